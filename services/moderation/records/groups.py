"""The settings of moderated groups, stored in the database and cached for a second."""

import json
from dataclasses import replace
from typing import Any

from sqlalchemy import delete, select, update

from core.clock import Clock
from core.db.database import Database
from core.db.moderation_tables import (
    ModerationCountsRow,
    ModerationGroupRow,
    ModerationIncidentRow,
    ModerationMemberRow,
    ModerationPendingRow,
    ModerationReportRow,
    ModerationWarningRow,
    ProcessedVersionRow,
)
from core.db.tables import SpamScoreRow
from services.moderation.domain.rule_set import RuleSet
from services.moderation.domain.settings import GroupSettings, Mode, Preset

FRESH_S = 1.0
"""How old the copy of a group's settings may be: a change is known to every replica within that time."""
GROUPS_KEPT = 10_000
"""Groups whose settings are kept in memory; what is beyond is read again."""


class GroupStore:
    """The settings of all groups. Methods raise StorageError where the database fails.

    Args:
        database: where they are.
        clock: how old the copies in memory are.
    """

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._known: dict[int, tuple[float, GroupSettings | None]] = {}

    async def get(self, group_id: int) -> GroupSettings | None:
        """The settings of a group, a second old at most; None where moderation was never switched on."""
        known = self._known.get(group_id)
        now = self._clock.monotonic()
        if known is not None and now - known[0] < FRESH_S:
            return known[1]
        settings = await self.read(group_id)
        self._remember(group_id, settings, now)
        return settings

    async def are_any_on(self) -> bool:
        """Whether any group is moderated at all."""
        on = select(ModerationGroupRow.group_id).where(ModerationGroupRow.mode != Mode.OFF.value).limit(1)
        async with self._database.reading() as session:
            return (await session.scalar(on)) is not None

    async def read(self, group_id: int) -> GroupSettings | None:
        """The settings of a group as they are now."""
        async with self._database.reading() as session:
            row = await session.get(ModerationGroupRow, group_id)
        return None if row is None else _settings_of(row)

    async def put(self, settings: GroupSettings) -> None:
        """Make these the settings of their group."""
        values = _values_of(settings) | {"updated_at": self._clock.now()}
        statement = self._database.insert(ModerationGroupRow).values(group_id=settings.group_id, **values)
        async with self._database.session() as session:
            await session.execute(statement.on_conflict_do_update(index_elements=["group_id"], set_=values))
        self._remember(settings.group_id, settings, self._clock.monotonic())

    async def change(self, settings: GroupSettings, **choices: Any) -> GroupSettings:  # noqa: ANN401 - the fields' own types, which `replace` checks by name
        """Change some choices, and tell what holds now."""
        changed = replace(settings, **choices)
        await self.put(changed)
        return changed

    async def move(self, old_id: int, new_id: int) -> bool:
        """A group goes on under another id, with all that is known of it; False where there was nothing to move.

        Messages get new ids with the group, so what is known by a message's id stays behind.
        """
        async with self._database.session() as session:
            row = await session.get(ModerationGroupRow, old_id)
            if row is None or await session.get(ModerationGroupRow, new_id) is not None:
                return False
            for table in (ModerationGroupRow, ModerationMemberRow, ModerationCountsRow, ModerationWarningRow):
                moved = update(table).where(table.group_id == old_id).values(group_id=new_id)
                await session.execute(moved.execution_options(synchronize_session=False))
            for table in (ProcessedVersionRow, ModerationReportRow, ModerationPendingRow):
                gone = delete(table).where(table.group_id == old_id)
                await session.execute(gone.execution_options(synchronize_session=False))
            moved = update(ModerationIncidentRow).where(ModerationIncidentRow.group_id == old_id)
            await session.execute(moved.values(group_id=new_id).execution_options(synchronize_session=False))
            learned = update(SpamScoreRow).where(SpamScoreRow.scope == old_id).values(scope=new_id)
            await session.execute(learned.execution_options(synchronize_session=False))
        self._known.pop(old_id, None)
        self._known.pop(new_id, None)
        return True

    def _remember(self, group_id: int, settings: GroupSettings | None, now: float) -> None:
        if len(self._known) >= GROUPS_KEPT:
            self._known.clear()
        self._known[group_id] = (now, settings)


def _settings_of(row: ModerationGroupRow) -> GroupSettings:
    return GroupSettings(
        row.group_id,
        Mode(row.mode),
        Preset(row.preset),
        row.language,
        ban_allowed=row.ban_allowed,
        remote=row.remote,
        cards_to=row.cards_to,
        rules=RuleSet.from_json(json.loads(row.rules)),
        house_rules=row.house_rules,
        budget=row.budget,
        report_threshold=row.report_threshold,
    )


def _values_of(settings: GroupSettings) -> dict[str, Any]:
    return {
        "mode": settings.mode.value,
        "preset": settings.preset.value,
        "language": settings.language,
        "ban_allowed": settings.ban_allowed,
        "remote": settings.remote,
        "cards_to": settings.cards_to,
        "rules": json.dumps(settings.rules.as_json()),
        "house_rules": settings.house_rules,
        "budget": settings.budget,
        "report_threshold": settings.report_threshold,
    }
