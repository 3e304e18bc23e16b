"""Backoff, and LoopTimeout, which counts only the time in which the event loop ran."""

import asyncio
import time

import pytest

from core.clock import STEPS, Backoff, LoopTimeout

TIMEOUT_S = 0.2


async def test_timeout_expires_while_the_loop_runs() -> None:
    slow: list[str] = []
    loop = asyncio.get_running_loop()
    began = loop.time()
    with pytest.raises(TimeoutError):
        async with LoopTimeout(TIMEOUT_S, lambda: slow.append("slow")):
            await asyncio.sleep(60)

    assert loop.time() - began >= TIMEOUT_S * 0.9
    assert slow == ["slow"]


async def test_standstill_costs_one_step() -> None:
    """The loop stands still for five times the timeout; an answer that comes then is still read."""
    loop = asyncio.get_running_loop()
    answered: asyncio.Future[str] = loop.create_future()

    def stand_still() -> None:
        time.sleep(5 * TIMEOUT_S)
        loop.call_later(TIMEOUT_S / STEPS / 2, answered.set_result, "in time")

    async with LoopTimeout(TIMEOUT_S):
        loop.call_soon(stand_still)
        assert await answered == "in time"


async def test_timeout_that_ends_in_time_reports_nothing() -> None:
    slow: list[str] = []
    async with LoopTimeout(TIMEOUT_S, lambda: slow.append("slow")):
        await asyncio.sleep(0)
    await asyncio.sleep(TIMEOUT_S * 1.5)

    assert slow == []


async def test_error_in_the_block_is_raised_as_it_is() -> None:
    with pytest.raises(KeyError):
        async with LoopTimeout(TIMEOUT_S):
            raise KeyError


PAUSES = [
    # failures in a row, pause
    (0, 2.0),  # none yet: the same as after the first
    (1, 2.0),
    (2, 4.0),
    (3, 8.0),
    (5, 32.0),
    (6, 60.0),  # 64 s exceeds the limit
    (10**6, 60.0),  # 2.0**1024 would overflow a float
]


@pytest.mark.parametrize(("failures", "pause_s"), PAUSES)
def test_backoff_doubles_from_the_first_pause_to_the_longest(failures: int, pause_s: float) -> None:
    assert Backoff(first_s=2.0, longest_s=60.0).pause_s(failures) == pause_s


def test_backoff_limits_the_first_pause_too() -> None:
    assert Backoff(first_s=5.0, longest_s=1.0).pause_s(1) == 1.0
