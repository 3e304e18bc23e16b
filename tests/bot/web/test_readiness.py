"""Readiness: one look for many askers, bounded in time, and no check that fails takes the others along."""

import asyncio

import pytest

from bot.web import readiness as health
from bot.web.readiness import Readiness
from tests.support.clock import ManualClock


async def _well() -> str | None:
    return None


async def test_many_askers_cost_one_look(clock: ManualClock) -> None:
    looks = 0

    async def check() -> str | None:
        nonlocal looks
        looks += 1
        await asyncio.sleep(0)
        return None

    readiness = Readiness({"part": check}, clock)
    reports = await asyncio.gather(*(readiness.look() for _ in range(20)))
    assert all(report.ready for report in reports)
    assert looks == 1


async def test_an_answer_grows_old(clock: ManualClock) -> None:
    said = iter((None, "gone"))

    async def check() -> str | None:
        return next(said)

    readiness = Readiness({"part": check}, clock)
    assert (await readiness.look()).ready
    clock.shift(health.FRESH_S - 0.1)
    assert (await readiness.look()).ready
    clock.shift(0.1)
    assert not (await readiness.look()).ready


async def test_a_part_that_is_silent_or_fails_is_told_as_such(
    clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within the time that is given to all of them together."""
    monkeypatch.setattr(health, "PATIENCE_S", 0.05)

    async def silent() -> str | None:
        await asyncio.sleep(3600)
        return None

    async def broken() -> str | None:
        raise ValueError("with a-secret in it")

    async with asyncio.timeout(2):
        report = await Readiness({"silent": silent, "broken": broken, "well": _well}, clock).look()
    assert report.parts == {
        "silent": "no answer within 0.05 s",
        "broken": "the check itself failed; the log tells more",
        "well": None,
    }
    assert not report.ready
