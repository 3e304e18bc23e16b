"""The audit log."""

import pytest

from core.db.database import Database
from services.admin.audit import MAX_DETAIL, Audit, AuditEntry, AuditKind
from tests.support.clock import ManualClock

pytestmark = pytest.mark.integration


async def test_recent_returns_the_newest_first_up_to_the_limit(database: Database, clock: ManualClock) -> None:
    """Entries have actor, action, target, detail and time."""
    audit = Audit(database, clock)
    began = clock.now()
    await audit.record(2**40, "provider.force", "openai", "for 10m")
    clock.shift(60)
    await audit.record(2, "provider.clear")
    assert await audit.recent(1) == [AuditEntry(clock.now(), 2, "provider.clear", None, None)]
    assert (await audit.recent())[1:] == [AuditEntry(began, 2**40, "provider.force", "openai", "for 10m")]


async def test_recent_orders_entries_of_one_instant_by_recording(database: Database, clock: ManualClock) -> None:
    audit = Audit(database, clock)
    for action in ("a", "b", "c"):
        await audit.record(1, action)
    assert [entry.action for entry in await audit.recent()] == ["c", "b", "a"]


async def test_record_cuts_and_cleans_the_text(database: Database, clock: ManualClock) -> None:
    """Too long a detail and characters that databases reject never lose the entry."""
    audit = Audit(database, clock)
    await audit.record(1, "test", "a\x00b", "\ud800" + "x" * 5000)
    (entry,) = await audit.recent()
    assert entry.target == "ab"
    assert entry.detail is not None
    assert len(entry.detail) == MAX_DETAIL


async def test_recent_after_a_restart(database: Database, replica: Database, clock: ManualClock) -> None:
    await Audit(database, clock).record(1, "test")
    await database.close()
    assert [entry.action for entry in await Audit(replica, clock).recent()] == ["test"]


async def test_page_filters_by_kind(database: Database, clock: ManualClock) -> None:
    audit = Audit(database, clock)
    for action in (
        "provider.force",
        "moderation.mode",
        "config.save",
        "budget.set",
        "token.create",
        "user.ban",
        "dead.drop",
    ):
        await audit.record(1, action)
    kinds = {kind: [entry.action for entry in (await audit.page(kind)).entries] for kind in AuditKind}
    assert kinds == {
        AuditKind.PROVIDERS: ["provider.force"],
        AuditKind.MODERATION: ["moderation.mode"],
        AuditKind.SETTINGS: ["token.create", "budget.set", "config.save"],
        AuditKind.OPERATION: ["dead.drop", "user.ban"],
    }
    assert len((await audit.page()).entries) == 7


async def test_pages_lead_to_the_oldest_entry_and_back(database: Database, clock: ManualClock) -> None:
    """Entries that arrive meanwhile shift no page."""
    audit = Audit(database, clock)
    for number in range(5):
        await audit.record(1, f"provider.{number}")
        await audit.record(1, "moderation.mode")
    seen: list[str] = []
    page = await audit.page(AuditKind.PROVIDERS, limit=2)
    assert page.newer is None
    while True:
        seen += [entry.action for entry in page.entries]
        if page.older is None:
            break
        await audit.record(1, "provider.new")
        page = await audit.page(AuditKind.PROVIDERS, before=page.older, limit=2)
    assert seen == [f"provider.{number}" for number in (4, 3, 2, 1, 0)]
    back = await audit.page(AuditKind.PROVIDERS, after=page.newer, limit=2)
    assert [entry.action for entry in back.entries] == ["provider.2", "provider.1"]
    assert back.newer is not None
    assert back.older is not None
