"""The audit log."""

from core.db.database import Database
from services.admin.audit import MAX_DETAIL, Audit, AuditEntry
from tests.support.clock import ManualClock


async def test_newest_first_and_no_more_than_asked(database: Database, clock: ManualClock) -> None:
    """An entry holds who, what, when; another replica reads it at once."""
    audit = Audit(database, clock)
    began = clock.now()
    await audit.record(2**40, "provider.force", "openai", "for 10m")
    clock.shift(60)
    await audit.record(2, "provider.clear")
    assert await audit.recent(1) == [AuditEntry(clock.now(), 2, "provider.clear", None, None)]
    assert (await audit.recent())[1:] == [AuditEntry(began, 2**40, "provider.force", "openai", "for 10m")]


async def test_entries_of_one_instant_keep_their_order(database: Database, clock: ManualClock) -> None:
    """Order is that of recording, even when the clock did not move."""
    audit = Audit(database, clock)
    for action in ("a", "b", "c"):
        await audit.record(1, action)
    assert [entry.action for entry in await audit.recent()] == ["c", "b", "a"]


async def test_whatever_the_text_an_entry_is_recorded(database: Database, clock: ManualClock) -> None:
    """An act is never lost to its detail: too long is cut, what the database refuses is cleaned."""
    audit = Audit(database, clock)
    await audit.record(1, "test", "a\x00b", "\ud800" + "x" * 5000)
    (entry,) = await audit.recent()
    assert entry.target == "ab"
    assert entry.detail is not None
    assert len(entry.detail) == MAX_DETAIL


async def test_survives_a_restart(database: Database, replica: Database, clock: ManualClock) -> None:
    """What one process recorded, another reads when the first is gone."""
    await Audit(database, clock).record(1, "test")
    await database.close()
    assert [entry.action for entry in await Audit(replica, clock).recent()] == ["test"]
