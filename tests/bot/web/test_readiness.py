"""Readiness: one run for concurrent callers, bounded in time, each check isolated from the others' failures."""

import asyncio

from structlog.testing import capture_logs

from bot.web.readiness import Readiness, ReadinessTiming
from tests.support.clock import ManualClock

TIMING = ReadinessTiming()


async def _well() -> str | None:
    return None


async def test_concurrent_callers_share_one_run(clock: ManualClock) -> None:
    runs = 0

    async def check() -> str | None:
        nonlocal runs
        runs += 1
        await asyncio.sleep(0)
        return None

    readiness = Readiness({"part": check}, clock)
    reports = await asyncio.gather(*(readiness.check() for _ in range(20)))
    assert all(report.ready for report in reports)
    assert runs == 1


async def test_a_report_is_reused_until_it_expires(clock: ManualClock) -> None:
    reasons = iter((None, "gone"))

    async def check() -> str | None:
        return next(reasons)

    readiness = Readiness({"part": check}, clock, TIMING)
    assert (await readiness.check()).ready
    clock.shift(TIMING.fresh_s - 0.1)
    assert (await readiness.check()).ready
    clock.shift(0.1)
    with capture_logs() as logs:
        assert not (await readiness.check()).ready
    assert [(entry["event"], entry["log_level"]) for entry in logs] == [("web.readiness", "warning")]


async def test_a_check_that_hangs_or_fails_is_reported_as_such(clock: ManualClock) -> None:
    """All checks share one deadline, and the exception's text stays out of the report."""

    async def hanging() -> str | None:
        await asyncio.sleep(3600)
        return None

    async def broken() -> str | None:
        raise ValueError("with a-secret in it")

    checks = {"hanging": hanging, "broken": broken, "well": _well}
    async with asyncio.timeout(2):
        report = await Readiness(checks, clock, ReadinessTiming(check_timeout_s=0.05)).check()
    assert report.parts == {
        "hanging": "no answer within 0.05 s",
        "broken": "the check itself failed; see the log",
        "well": None,
    }
    assert not report.ready
