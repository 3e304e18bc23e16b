"""One conversation in order, conversations side by side; and how it all ends."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from structlog.testing import capture_logs

from bot.telegram.lanes import WAITING_LIMIT, Lanes
from tests.support.clock import settle


class Work:
    """Jobs that tell when they ran, and wait until the test lets them end."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.ended: list[str] = []
        self._gates: dict[str, asyncio.Event] = {}

    def job(self, name: str) -> Callable[[], Awaitable[None]]:
        gate = self._gates[name] = asyncio.Event()

        async def run() -> None:
            self.begun.append(name)
            try:
                await gate.wait()
            except asyncio.CancelledError:
                self.ended.append(f"{name} cancelled")
                raise
            self.ended.append(name)

        return run

    async def finish(self, *names: str) -> None:
        for name in names:
            self._gates[name].set()
            await settle()


async def test_a_lane_is_in_order_and_lanes_are_side_by_side() -> None:
    lanes, work = Lanes(), Work()
    for key, name in (("x", "x1"), ("x", "x2"), ("y", "y1")):
        assert lanes.submit(key, work.job(name))
    await settle()
    assert work.begun == ["x1", "y1"]
    await work.finish("x2", "x1")
    assert work.begun == ["x1", "y1", "x2"]
    await work.finish("y1")
    assert work.ended == ["x1", "x2", "y1"]


async def test_one_runs_and_twenty_wait() -> None:
    """Also when they all come in one batch, before the first could begin."""
    lanes, work = Lanes(), Work()
    taken = [lanes.submit("x", work.job(str(number))) for number in range(WAITING_LIMIT + 3)]
    assert taken == [True] * (WAITING_LIMIT + 1) + [False, False]
    assert lanes.submit("y", work.job("y")), "another conversation has room"
    await settle()
    assert not lanes.submit("x", work.job("late"))
    await work.finish("0")
    assert lanes.submit("x", work.job("again")), "one has made room"


async def test_a_lane_that_is_empty_leaves_nothing_behind() -> None:
    """Memory must not follow everybody who ever wrote."""
    lanes, work = Lanes(), Work()
    for number in range(50):
        lanes.submit(number, work.job(str(number)))
        lanes.run_at_once(work.job(f"{number} at once"))
    await settle()
    for number in range(50):
        await work.finish(str(number), f"{number} at once")
    assert (lanes._lanes, lanes._workers, lanes._urgent) == ({}, {}, set())


async def test_a_job_that_fails_does_not_stop_its_lane() -> None:
    lanes, work = Lanes(), Work()

    async def broken() -> None:
        raise ValueError("out of tune")

    with capture_logs() as logs:
        lanes.submit("x", broken)
        lanes.submit("x", work.job("next"))
        lanes.run_at_once(broken)
        await settle()
    assert work.begun == ["next"]
    assert [entry["event"] for entry in logs] == ["lane.job_failed"] * 2
    await work.finish("next")


async def test_what_is_urgent_does_not_wait() -> None:
    lanes, work = Lanes(), Work()
    lanes.submit("x", work.job("slow"))
    lanes.run_at_once(work.job("stop"))
    await settle()
    assert work.begun == ["slow", "stop"]
    await work.finish("slow", "stop")


async def test_drain_lets_everything_end_within_its_time() -> None:
    lanes, work = Lanes(), Work()
    lanes.submit("x", work.job("x1"))
    lanes.submit("x", work.job("x2"))
    lanes.run_at_once(work.job("stop"))
    draining = asyncio.create_task(lanes.drain(5))
    await settle()
    await work.finish("x1", "x2")
    assert not draining.done()
    await work.finish("stop")
    await draining
    assert work.ended == ["x1", "x2", "stop"]


async def test_drain_waits_for_what_comes_out_of_what_it_waits_for() -> None:
    """A pressed Retry puts its answer into a lane."""
    lanes, work = Lanes(), Work()

    async def pressed() -> None:
        await asyncio.sleep(0)
        lanes.submit("x", work.job("retry"))

    lanes.run_at_once(pressed)
    draining = asyncio.create_task(lanes.drain(5))
    await settle()
    assert work.begun == ["retry"]
    assert not draining.done()
    await work.finish("retry")
    await draining
    assert work.ended == ["retry"]


async def test_drain_cancels_what_takes_too_long_and_drops_what_has_not_begun() -> None:
    """And waits until what it cancelled has saved what it has to save."""
    lanes, work = Lanes(), Work()
    saved = False

    async def slow() -> None:
        nonlocal saved
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0.01)
            saved = True
            raise

    lanes.submit("x", slow)
    lanes.submit("x", work.job("x2"))
    lanes.submit("x", work.job("x3"))
    await settle()
    with capture_logs() as logs:
        await lanes.drain(0.05)
    assert saved
    assert work.begun == []
    assert logs == [{"event": "lanes.cut_short", "log_level": "warning", "running": 1, "dropped": 2}]
    assert lanes._workers == {}


async def test_drain_takes_leave_of_what_it_drops() -> None:
    """Once a lane, by the last job's own farewell, and not before what ran there has said its last word."""
    lanes, work = Lanes(), Work()
    said: list[str] = []

    async def slow() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.01)
            said.append("last word")

    def farewell(name: str) -> Callable[[], Awaitable[None]]:
        async def say() -> None:
            said.append(name)

        return say

    lanes.submit("x", slow, farewell("x1"))
    lanes.submit("x", work.job("x2"), farewell("x2"))
    lanes.submit("x", work.job("x3"), farewell("x3"))
    lanes.submit("y", work.job("y1"), farewell("y1"))
    await settle()
    await lanes.drain(0.05)
    assert said == ["last word", "x3"]


async def test_a_farewell_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bot.telegram.lanes.FAREWELL_S", 0.05)
    lanes, work = Lanes(), Work()
    lanes.submit("x", work.job("x1"))
    lanes.submit("x", work.job("x2"), work.job("farewell"))
    await settle()
    async with asyncio.timeout(1):
        await lanes.drain(0.05)
    assert work.ended == ["x1 cancelled", "farewell cancelled"]


async def test_drain_of_nothing_is_done_at_once() -> None:
    async with asyncio.timeout(1):
        await Lanes().drain(60)
