"""The stored settings of groups."""

from core.db.database import Database
from services.moderation.domain.settings import GroupSettings, Mode, Preset
from services.moderation.records.groups import GroupStore
from tests.support.clock import ManualClock

GROUP = -100


async def test_change_keeps_the_fields_that_another_replica_changed(database: Database, clock: ManualClock) -> None:
    one, other = GroupStore(database, clock), GroupStore(database, clock)
    known = await one.change(GroupSettings(GROUP), mode=Mode.ENFORCE)
    assert await other.change(known, budget=7) == await other.read(GROUP)
    changed = await one.change(known, preset=Preset.STRICT)
    assert (changed.mode, changed.budget, changed.preset) == (Mode.ENFORCE, 7, Preset.STRICT)
    assert changed == await one.get(GROUP) == await other.read(GROUP)


async def test_first_change_of_a_group_stores_all_its_settings(database: Database, clock: ManualClock) -> None:
    store = GroupStore(database, clock)
    changed = await store.change(GroupSettings(GROUP, mode=Mode.DRY, budget=9), house_rules="Be kind.")
    assert (changed.mode, changed.budget, changed.house_rules) == (Mode.DRY, 9, "Be kind.")
    assert await GroupStore(database, clock).read(GROUP) == changed
