"""The deadline shared by many short waits: it ends long ones and is never confused with a cancellation."""

import asyncio
import contextlib

import pytest

from core.clock import Deadline

LOOP_S = 0.02


def now() -> float:
    """Return the event loop's time."""
    return asyncio.get_running_loop().time()


async def test_deadline_ends_a_wait_that_takes_too_long() -> None:
    """With a TimeoutError, and the task can continue."""
    deadline = Deadline()
    for _ in range(2):
        deadline.until = now() + LOOP_S
        with pytest.raises(TimeoutError), deadline:
            await asyncio.sleep(5)

    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    await asyncio.sleep(0)


async def test_short_waits_share_one_timer() -> None:
    """Together they take longer than any of them may; the timer is not armed for each."""
    deadline = Deadline()
    timers: set[int] = set()
    for _ in range(50):
        deadline.until = now() + 20 * LOOP_S
        with deadline:
            await asyncio.sleep(LOOP_S / 2)
        timers.add(id(deadline._timer))

    assert len(timers) < 10
    deadline.close()


async def test_deadline_does_not_fire_between_waits() -> None:
    """The consumer may take any time."""
    deadline = Deadline()
    deadline.until = now() + LOOP_S
    with deadline:
        await asyncio.sleep(0)
    await asyncio.sleep(2 * LOOP_S)

    deadline.until = now() + LOOP_S
    with pytest.raises(TimeoutError), deadline:
        await asyncio.sleep(5)


async def test_earlier_end_applies_at_once() -> None:
    """A wait with a shorter limit than the one before ends at its own time."""
    deadline = Deadline()
    deadline.until = now() + 60
    with deadline:
        await asyncio.sleep(0)

    deadline.until = now() + LOOP_S
    with pytest.raises(TimeoutError), deadline:
        await asyncio.sleep(5)


async def test_past_end_ends_the_wait_at_once() -> None:
    deadline = Deadline()
    deadline.until = now() - 1
    with pytest.raises(TimeoutError), deadline:
        await asyncio.sleep(5)


async def test_wait_whose_end_is_due_leaves_the_next_one_to_itself() -> None:
    """Data that arrived with the deadline is read; the event loop has no timer for a due end."""
    deadline = Deadline()
    deadline.until = now()
    for _ in range(2):
        with deadline:
            pass
    deadline.until = now() + LOOP_S
    with pytest.raises(TimeoutError), deadline:
        await asyncio.sleep(5)


async def test_other_errors_pass() -> None:
    deadline = Deadline()
    deadline.until = now() + 5
    with pytest.raises(KeyError), deadline:
        raise KeyError

    deadline.close()


async def _wait(deadline: Deadline, for_s: float) -> str:
    deadline.until = now() + for_s
    try:
        with deadline:
            await asyncio.sleep(5)
    except TimeoutError:
        return "timed out"
    return "over"


async def test_cancellation_is_no_timeout() -> None:
    """The user's Stop stays a cancellation."""
    deadline = Deadline()
    task = asyncio.create_task(_wait(deadline, 5))
    await asyncio.sleep(0)
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
    deadline.close()


@pytest.mark.parametrize("first", ["deadline", "user"])
async def test_cancellation_at_the_same_instant_wins(first: str) -> None:
    """Both in the same iteration of the loop, in either order."""
    deadline = Deadline()
    task = asyncio.create_task(_wait(deadline, 5))
    await asyncio.sleep(0)
    deadline.until = now()
    for who in ("deadline", "user") if first == "deadline" else ("user", "deadline"):
        if who == "deadline":
            deadline._due()
        else:
            task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
    deadline.close()


async def test_result_at_the_same_instant_wins() -> None:
    """A wait that swallows the cancellation because its result is there leaves the task's count unchanged."""
    deadline = Deadline()

    async def swallowing() -> int:
        deadline.until = now() + LOOP_S
        with deadline, contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(5)
        task = asyncio.current_task()
        assert task is not None
        return task.cancelling()

    assert await asyncio.create_task(swallowing()) == 0


async def test_wait_continues_while_it_is_prolonged() -> None:
    """The callback is called when the wait is due, and not before."""
    loop = asyncio.get_running_loop()
    answers = [loop.time() + 0.1, 0.0]
    deadline = Deadline(lambda: answers.pop(0))
    deadline.until = loop.time() + 0.02
    began = loop.time()
    with pytest.raises(TimeoutError), deadline:
        await asyncio.sleep(10)
    assert round(loop.time() - began, 3) >= 0.1
    assert answers == []
    deadline.close()
