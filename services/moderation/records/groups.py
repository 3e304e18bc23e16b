"""Stores the settings of groups, with a cache of one second, and their consent to judging by remote providers."""

import json
from dataclasses import replace
from typing import Any

from cachetools import TTLCache
from sqlalchemy import delete, select, update

from core.clock import Clock
from core.db.database import Database
from core.db.moderation_tables import (
    ModerationCountsRow,
    ModerationEntryRow,
    ModerationGroupRow,
    ModerationIncidentRow,
    ModerationMemberRow,
    ModerationNewcomerRow,
    ModerationPendingRow,
    ModerationReportRow,
    ModerationWarningRow,
    ProcessedVersionRow,
    SpamScoreRow,
)
from core.messages import Surface, chat_ref
from services.moderation.domain.settings import GroupSettings, Mode, Preset, RuleSet
from services.preferences import PreferenceStore

CACHE_TTL_S = 1.0
"""Time until every replica sees a change."""
CACHED_GROUPS = 10_000

_KEYED_BY_MESSAGE = (ProcessedVersionRow, ModerationReportRow, ModerationPendingRow)
_KEYED_BY_GROUP = (
    ModerationGroupRow, ModerationMemberRow, ModerationCountsRow, ModerationWarningRow, ModerationEntryRow,
    ModerationNewcomerRow,
)  # fmt: skip


class GroupStore:
    """The settings of all groups. Methods raise StorageError when the database fails."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._cache: TTLCache[int, GroupSettings | None] = TTLCache(CACHED_GROUPS, CACHE_TTL_S, timer=clock.monotonic)

    async def get(self, group_id: int) -> GroupSettings | None:
        """Returns a group's settings, at most a second old; None if moderation was never switched on."""
        try:
            return self._cache[group_id]
        except KeyError:
            settings = self._cache[group_id] = await self.read(group_id)
            return settings

    async def are_any_on(self) -> bool:
        """Returns whether at least one group is moderated."""
        on = select(ModerationGroupRow.group_id).where(ModerationGroupRow.mode != Mode.OFF.value).limit(1)
        async with self._database.reading() as session:
            return (await session.scalar(on)) is not None

    async def has_cards(self, chat_id: int) -> bool:
        """Returns whether moderation posts in a chat, or has done so: its own group, or one that gets the cards."""
        row = ModerationGroupRow
        posts = select(row.group_id).where((row.group_id == chat_id) | (row.cards_to == chat_id)).limit(1)
        posted = select(ModerationIncidentRow.id).where(ModerationIncidentRow.card_chat_id == chat_id).limit(1)
        async with self._database.reading() as session:
            return (await session.scalar(posts)) is not None or (await session.scalar(posted)) is not None

    async def read(self, group_id: int) -> GroupSettings | None:
        """Returns a group's settings from the database, past the cache."""
        async with self._database.reading() as session:
            row = await session.get(ModerationGroupRow, group_id)
        return None if row is None else _to_settings(row)

    async def change(self, settings: GroupSettings, **choices: object) -> GroupSettings:
        """Stores some fields, with the others of a group that has none stored, and returns the stored settings.

        A field that another replica changed in the meantime keeps its value.
        """
        values = _to_values(replace(settings, **choices))
        now = self._clock.now()
        insert = self._database.insert(ModerationGroupRow).values(group_id=settings.group_id, **values, updated_at=now)
        changes = {name: values[name] for name in choices} | {"updated_at": now}
        store = insert.on_conflict_do_update(index_elements=["group_id"], set_=changes).returning(ModerationGroupRow)
        async with self._database.session() as session:
            row = (await session.scalars(store, execution_options={"populate_existing": True})).one()
            changed = self._cache[settings.group_id] = _to_settings(row)
        return changed

    async def move(self, old_id: int, new_id: int) -> bool:
        """Moves a group's data to the id of its supergroup. Returns False if there was nothing to move.

        Message ids change with the group, so data that is keyed by message id is deleted.
        """
        unsynchronised: dict[str, Any] = {"synchronize_session": False}
        async with self._database.session() as session:
            row = await session.get(ModerationGroupRow, old_id)
            if row is None or await session.get(ModerationGroupRow, new_id) is not None:
                return False
            for table in _KEYED_BY_GROUP:
                moved = update(table).where(table.group_id == old_id).values(group_id=new_id)
                await session.execute(moved, execution_options=unsynchronised)
            for table in _KEYED_BY_MESSAGE:
                gone = delete(table).where(table.group_id == old_id)
                await session.execute(gone, execution_options=unsynchronised)
            incidents = update(ModerationIncidentRow).where(ModerationIncidentRow.group_id == old_id)
            await session.execute(incidents.values(group_id=new_id), execution_options=unsynchronised)
            cards = update(ModerationGroupRow).where(ModerationGroupRow.cards_to == old_id).values(cards_to=new_id)
            await session.execute(cards, execution_options=unsynchronised)
            score = update(SpamScoreRow).where(SpamScoreRow.scope == old_id).values(scope=new_id)
            await session.execute(score, execution_options=unsynchronised)
        self._cache.pop(old_id, None)
        self._cache.pop(new_id, None)
        return True


def _to_settings(row: ModerationGroupRow) -> GroupSettings:
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


def _to_values(settings: GroupSettings) -> dict[str, Any]:
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


class RemoteJudgingConsent:
    """Reads and changes a group's consent. Methods raise StorageError when the database fails.

    Args:
        groups: holds each group's own switch.
        preferences: holds the chat's consent to remote providers.
        is_asked: REMOTE_CONSENT is `ask`; otherwise the operator consented for all chats.
    """

    def __init__(self, groups: GroupStore, preferences: PreferenceStore, *, is_asked: bool) -> None:
        self._groups = groups
        self._preferences = preferences
        self._is_asked = is_asked

    async def is_allowed(self, settings: GroupSettings) -> bool:
        """Returns whether remote providers may judge: the switch is on, and the chat consented if it was asked."""
        if not settings.remote or not self._is_asked:
            return settings.remote
        return bool((await self._preferences.get(chat_ref(Surface.TELEGRAM, settings.group_id))).remote_consent)

    async def switch(self, settings: GroupSettings, *, allowed: bool) -> GroupSettings:
        """Sets the group's switch. Where consent is asked for, switching it on grants the chat's consent."""
        if allowed and self._is_asked:
            await self._preferences.set_remote_consent(chat_ref(Surface.TELEGRAM, settings.group_id), granted=True)
        return await self._groups.change(settings, remote=allowed)
