"""What waits for a database that does not take it."""

import asyncio
from collections.abc import Callable

import pytest
from structlog.testing import capture_logs

from core.errors import StorageError
from services.chat.deferred_writes import DeferredWrites, Save


class Store:
    """A database that takes what it is given, or does not."""

    def __init__(self) -> None:
        self.taken: list[str] = []
        self.tries = 0
        self.down = True

    def save(self, name: str, refuse: Callable[[], Exception] | None = None) -> Save:
        async def save() -> None:
            self.tries += 1
            await asyncio.sleep(0.01)
            if self.down:
                raise StorageError("the database failed: it is locked by another process")
            if refuse is not None:
                raise refuse()
            self.taken.append(name)

        return save


def erased() -> StorageError:
    """What comes of a row whose thread is gone."""
    return StorageError("the database failed: it refused the statement", permanent=True)


@pytest.fixture
def store() -> Store:
    """A database that is down."""
    return Store()


async def test_saved_at_once(store: Store) -> None:
    """The ordinary case: nothing waits."""
    store.down = False
    assert await DeferredWrites().save(store.save("a"))
    assert store.taken == ["a"]


async def test_saved_later_in_order(store: Store) -> None:
    """What comes when the database is back stands behind what waited."""
    backlog = DeferredWrites()
    for name in "abc":
        assert not await backlog.save(store.save(name))
    assert not await backlog.flush()
    store.down = False
    assert await backlog.save(store.save("d"))
    assert store.taken == ["a", "b", "c", "d"]


async def test_a_crowd_saves_each_once(store: Store) -> None:
    """Turns that begin at the same moment all want to flush: nothing is saved twice, nothing dropped unsaved."""
    backlog = DeferredWrites()
    for name in "abc":
        await backlog.save(store.save(name))
    store.down = False
    assert await asyncio.gather(*(backlog.flush() for _ in range(5))) == [True] * 5
    assert store.taken == ["a", "b", "c"]


async def test_a_crowd_before_a_locked_database_shares_one_try(store: Store) -> None:
    """Each try may take a whole busy timeout, and they would wait for it one after the other."""
    backlog = DeferredWrites()
    await backlog.save(store.save("a"))
    store.tries = 0
    assert await asyncio.gather(*(backlog.flush() for _ in range(20))) == [False] * 20
    assert store.tries == 1


async def test_what_will_never_be_taken_keeps_nobody_waiting(store: Store) -> None:
    """What its rows belonged to was erased while it waited; or saving it fails by a bug of ours, which is told."""
    backlog = DeferredWrites()
    await backlog.save(store.save("erased", erased))
    await backlog.save(store.save("bug", lambda: RuntimeError("a bug")))
    await backlog.save(store.save("a"))
    store.down = False
    with capture_logs() as logs:
        assert await backlog.flush()
    assert store.taken == ["a"]
    assert [(entry["event"], entry["log_level"]) for entry in logs] == [
        ("turn.write_rejected", "warning"),
        ("turn.lost", "error"),
        ("turn.backlog_flushed", "info"),
    ]


async def test_what_will_never_be_taken_does_not_begin_to_wait(store: Store) -> None:
    """It is refused to its owner."""
    store.down = False
    backlog = DeferredWrites()
    with pytest.raises(StorageError):
        await backlog.save(store.save("erased", erased))
    store.tries = 0
    assert await backlog.flush()
    assert store.tries == 0


async def test_the_oldest_gives_way(store: Store) -> None:
    """Memory is bounded; what is lost by that is told."""
    backlog = DeferredWrites(limit=2)
    with capture_logs() as logs:
        for name in "abc":
            await backlog.save(store.save(name))
    assert [entry["event"] for entry in logs].count("turn.lost") == 1
    store.down = False
    await backlog.flush()
    assert store.taken == ["b", "c"]


async def test_giving_way_in_the_middle_of_a_flush(store: Store) -> None:
    """The one that is being saved gives way to a new one: what is behind it is not dropped in its place."""
    backlog = DeferredWrites(limit=2)
    await backlog.save(store.save("a"))
    await backlog.save(store.save("b"))
    store.down = False
    flushing = asyncio.create_task(backlog.flush())
    await asyncio.sleep(0.005)
    backlog._queue(store.save("c"))
    await flushing
    assert store.taken == ["a", "b", "c"]
