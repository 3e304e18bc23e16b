"""Background tasks: ownership, reported deaths, cancellation at shutdown."""

import asyncio
import gc

import pytest
from structlog.testing import capture_logs

from core.background import BackgroundTasks, Outage, cancel_and_wait, restart_on_error, wait_first
from core.clock import Backoff
from tests.support.clock import ManualClock, settle


async def test_background_tasks_keep_a_reference_until_the_task_is_done() -> None:
    """The event loop itself holds tasks weakly, so an unreferenced task could be collected while it waits."""
    tasks, go, results = BackgroundTasks(), asyncio.Event(), list[str]()

    async def work() -> None:
        await go.wait()
        results.append("done")

    assert tasks.start(work(), "worker").get_name() == "worker"
    gc.collect()
    go.set()
    await settle()

    assert results == ["done"]
    assert not tasks._tasks


async def test_background_tasks_log_a_task_that_dies_and_keep_the_others() -> None:
    tasks = BackgroundTasks()
    survivor = tasks.start(asyncio.Event().wait(), "survivor")

    async def work() -> None:
        raise ValueError("broken")

    with capture_logs() as logs:
        tasks.start(work(), "victim")
        await settle()

    assert [(entry["event"], entry["task"], str(entry["exc_info"])) for entry in logs] == [
        ("task.died", "victim", "broken")
    ]
    assert not survivor.done()
    await tasks.close()


async def test_background_tasks_are_cancelled_on_close() -> None:
    tasks, cleaned_up = BackgroundTasks(), list[str]()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.01)
            cleaned_up.append("done")

    with capture_logs() as logs:
        task = tasks.start(work(), "worker")
        await settle()
        await tasks.close()
        await tasks.close()

    assert task.cancelled()
    assert cleaned_up == ["done"]
    assert logs == []


async def test_cancel_and_wait_cancels_again_where_a_cancellation_was_swallowed() -> None:
    """As `asyncio.wait_for` does on Python 3.11 when the result arrives at the same time."""
    cancellations = 0

    async def stubborn() -> None:
        nonlocal cancellations
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancellations += 1
                if cancellations == 2:
                    raise

    task = asyncio.create_task(stubborn())
    await settle()
    async with asyncio.timeout(5):
        await cancel_and_wait(task)

    assert task.cancelled()
    assert cancellations == 2


async def test_cancel_and_wait_leaves_the_result_with_the_task() -> None:
    async def fail() -> None:
        raise ValueError("broken")

    finished, failed = asyncio.create_task(asyncio.sleep(0, "result")), asyncio.create_task(fail())
    await settle()
    await cancel_and_wait(finished, failed)
    await cancel_and_wait()

    assert finished.result() == "result"
    with pytest.raises(ValueError, match="broken"):
        failed.result()


async def test_cancel_and_wait_can_be_cancelled_itself() -> None:
    release = asyncio.Event()

    async def slow_to_end() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await release.wait()

    task = asyncio.create_task(slow_to_end())
    await settle()
    waiter = asyncio.create_task(cancel_and_wait(task))
    await settle()
    waiter.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiter

    assert not task.done()
    release.set()
    await asyncio.wait([task])


@pytest.mark.parametrize("first", ["task", "event"])
async def test_wait_first_returns_when_either_is_ready(first: str) -> None:
    go, event = asyncio.Event(), asyncio.Event()
    task = asyncio.create_task(go.wait())
    waiter = asyncio.create_task(wait_first(event, task))
    await settle()
    assert not waiter.done()

    (go if first == "task" else event).set()
    await settle()

    assert waiter.done()
    assert task.done() is (first == "task")
    go.set()
    await task


async def test_wait_first_leaves_no_task_behind_when_it_is_cancelled() -> None:
    task = asyncio.create_task(asyncio.Event().wait())
    before = asyncio.all_tasks()
    waiter = asyncio.create_task(wait_first(asyncio.Event(), task))
    await settle()
    await cancel_and_wait(waiter)
    await settle()

    assert asyncio.all_tasks() == before
    assert not task.done()
    await cancel_and_wait(task)


async def test_restart_on_error_starts_failed_work_again_after_growing_pauses(clock: ManualClock) -> None:
    """Until it returns; work that ran for long enough counts as new."""
    lives_s = iter([0.0, 0.0, 10.0, 0.0, None])
    starts: list[float] = []

    async def work() -> None:
        starts.append(clock.monotonic() - began)
        life_s = next(lives_s)
        if life_s is not None:
            await clock.sleep(life_s)
            raise KeyError("a bug")

    began = clock.monotonic()
    with capture_logs() as logs:
        task = asyncio.create_task(restart_on_error(work, "worker", clock, Backoff(1.0, 8.0)))
        for _ in range(60):
            await settle()
            await clock.advance(0.5)
    assert task.done()
    assert starts == [0, 1, 3, 14, 16]
    assert [(entry["event"], entry["task"], entry["restart_in_s"]) for entry in logs] == [
        ("task.failed", "worker", pause_s) for pause_s in (1, 2, 1, 2)
    ]


def test_outage_begins_once_until_it_ends() -> None:
    outage = Outage()
    assert [outage.begins(), outage.begins()] == [True, False]
    outage.end()
    assert [outage.begins(), outage.begins()] == [True, False]
