"""Deferred writes: order, limit, permanent errors."""

import asyncio
from collections.abc import Callable

import pytest
from structlog.testing import capture_logs

from core.errors import StorageError
from services.chat.turn_records import DeferredWrites, Save


class Store:
    """A database that accepts writes, or is down."""

    def __init__(self) -> None:
        self.saved: list[str] = []
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
            self.saved.append(name)

        return save


def rejected() -> StorageError:
    """The error for a row whose thread was deleted."""
    return StorageError("the database failed: it refused the statement", permanent=True)


@pytest.fixture
def store() -> Store:
    """A database that is down."""
    return Store()


async def test_save_writes_at_once(store: Store) -> None:
    """Nothing is pending."""
    store.down = False
    assert await DeferredWrites().save(store.save("a"))
    assert store.saved == ["a"]


async def test_save_keeps_the_order_after_an_outage(store: Store) -> None:
    """A write after the outage comes after the pending ones."""
    writes = DeferredWrites()
    for name in "abc":
        assert not await writes.save(store.save(name))
    assert not await writes.flush()
    store.down = False
    assert await writes.save(store.save("d"))
    assert store.saved == ["a", "b", "c", "d"]


async def test_concurrent_flushes_save_each_write_once(store: Store) -> None:
    """Nothing is saved twice, and nothing dropped unsaved."""
    writes = DeferredWrites()
    for name in "abc":
        await writes.save(store.save(name))
    store.down = False
    assert await asyncio.gather(*(writes.flush() for _ in range(5))) == [True] * 5
    assert store.saved == ["a", "b", "c"]


async def test_concurrent_flushes_share_one_attempt(store: Store) -> None:
    """Each attempt may take a whole busy timeout; in sequence they would add up."""
    writes = DeferredWrites()
    await writes.save(store.save("a"))
    store.tries = 0
    assert await asyncio.gather(*(writes.flush() for _ in range(20))) == [False] * 20
    assert store.tries == 1


async def test_flush_drops_permanently_rejected_writes(store: Store) -> None:
    """Rows of deleted threads, and bugs, which are logged as errors."""
    writes = DeferredWrites()
    await writes.save(store.save("erased", rejected))
    await writes.save(store.save("bug", lambda: RuntimeError("a bug")))
    await writes.save(store.save("a"))
    store.down = False
    with capture_logs() as logs:
        assert await writes.flush()
    assert store.saved == ["a"]
    assert [(entry["event"], entry["log_level"]) for entry in logs] == [
        ("turn.write_rejected", "warning"),
        ("turn.lost", "error"),
        ("turn.backlog_flushed", "info"),
    ]


async def test_save_raises_permanent_errors(store: Store) -> None:
    """The write is not queued."""
    store.down = False
    writes = DeferredWrites()
    with pytest.raises(StorageError):
        await writes.save(store.save("erased", rejected))
    store.tries = 0
    assert await writes.flush()
    assert store.tries == 0


async def test_save_drops_the_oldest_beyond_the_limit(store: Store) -> None:
    """The loss is logged."""
    writes = DeferredWrites(limit=2)
    with capture_logs() as logs:
        for name in "abc":
            await writes.save(store.save(name))
    assert [entry["event"] for entry in logs].count("turn.lost") == 1
    store.down = False
    await writes.flush()
    assert store.saved == ["b", "c"]


async def test_save_during_a_flush_drops_only_the_oldest(store: Store) -> None:
    """The write being saved is the oldest; the one behind it is not dropped in its place."""
    writes = DeferredWrites(limit=2)
    await writes.save(store.save("a"))
    await writes.save(store.save("b"))
    store.down = False
    flushing = asyncio.create_task(writes.flush())
    await asyncio.sleep(0.005)
    writes._queue(store.save("c"))
    await flushing
    assert store.saved == ["a", "b", "c"]
