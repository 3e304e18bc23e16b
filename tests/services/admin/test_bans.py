"""Bans: two processes on one database, the audit log, and the stored data of a person."""

import pytest
from sqlalchemy import text

from core.db.database import Database
from services.admin.audit import Audit
from services.admin.bans import BanAct, Bans
from services.pseudonyms import load_pseudonyms
from tests.support.clock import ManualClock

pytestmark = pytest.mark.integration

BOB = "telegram:9"


async def bans_on(database: Database, clock: ManualClock) -> Bans:
    return Bans(database, clock, Audit(database, clock), await load_pseudonyms(database))


async def test_a_ban_holds_in_other_processes_until_it_is_lifted(
    database: Database, replica: Database, clock: ManualClock
) -> None:
    here, there = await bans_on(database, clock), await bans_on(replica, clock)
    assert await here.ban(BOB, 1, "spam") == BanAct(is_changed=True)
    assert await here.ban(BOB, 1) == BanAct(is_changed=False)
    assert here.is_banned("telegram:-100", BOB)
    assert not here.is_banned("telegram:99")
    assert there.is_empty
    await there.refresh()
    assert there.is_banned(BOB)
    assert not there.is_empty
    clock.shift(60)
    assert (await there.lift(BOB, 2)).is_changed
    assert not (await there.lift(BOB, 2)).is_changed
    await here.refresh()
    assert not here.is_banned(BOB)
    assert here.is_empty
    acts = [
        (entry.actor_id, entry.action, entry.target, entry.detail) for entry in await Audit(database, clock).recent()
    ]
    assert acts == [(2, "user.unban", BOB, None), (1, "user.ban", BOB, "spam")]


async def test_a_swapped_ban_is_noticed(database: Database, replica: Database, clock: ManualClock) -> None:
    """As many bans as before, but of another person."""
    here, there = await bans_on(database, clock), await bans_on(replica, clock)
    await here.ban(BOB, 1)
    await there.refresh()
    await here.lift(BOB, 1)
    clock.shift(1)
    await here.ban("telegram:10", 1)
    await there.refresh()
    assert not there.is_banned(BOB)
    assert there.is_banned("telegram:10")


async def test_a_ban_outlasts_the_label_of_its_person(file: Database, clock: ManualClock) -> None:
    """/forget erases the label; the pseudonym names no one without the key."""
    bans = await bans_on(file, clock)
    await bans.ban(BOB, 1, "r" * 500)
    async with file.session() as session:
        (person,) = (await session.execute(text("SELECT person FROM bans"))).one()
        assert person != "9"
        assert BOB not in person
        await session.execute(text("UPDATE bans SET label = NULL"))
    restarted = await bans_on(file, clock)
    await restarted.refresh()
    assert restarted.is_banned(BOB)
    (ban,) = await restarted.newest(10)
    assert ban.label is None
    assert ban.reason == "r" * 200
