"""Figures of the whole bot for its operators: people, chats, answers, cost, moderation."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import func, select

from core.clock import Clock
from core.db.database import Database
from core.db.job_tables import DeadLetterRow
from core.db.moderation_tables import ModerationGroupRow, ModerationIncidentRow
from core.db.operator_tables import BanRow
from core.db.tables import ThreadRow
from services.usage.totals import UsageTotal, UsageTotals

PERIODS = (1, 7, 30)
"""Days, today included."""


@dataclass(frozen=True, slots=True)
class PeriodFigures:
    """Figures of the last `days` days, today included.

    Args:
        people: users with at least one request.
        chats: chats with at least one request.
        incidents: incidents of moderation.
    """

    days: int
    people: int
    chats: int
    usage: UsageTotal
    incidents: int


@dataclass(frozen=True, slots=True)
class ServiceFigures:
    """Figures of the whole bot.

    Args:
        private_chats: chats with one person that have a conversation.
        groups: groups that have a conversation.
        threads: conversations of all chats.
        moderated_groups: groups with moderation settings.
    """

    periods: Sequence[PeriodFigures]
    private_chats: int
    groups: int
    threads: int
    moderated_groups: int
    banned: int
    dead_letters: int


class Statistics:
    """Reads the figures. Raises StorageError where the database fails."""

    def __init__(self, database: Database, totals: UsageTotals, clock: Clock) -> None:
        self._database = database
        self._totals = totals
        self._clock = clock

    async def read(self) -> ServiceFigures:
        """Returns the figures of now."""
        periods = [await self._period(days) for days in PERIODS]
        private = func.count(ThreadRow.chat_id.distinct()).filter(ThreadRow.chat_id > 0)
        groups = func.count(ThreadRow.chat_id.distinct()).filter(ThreadRow.chat_id < 0)
        async with self._database.reading() as session:
            chats = (await session.execute(select(private, groups, func.count()).select_from(ThreadRow))).one()
            counts = [
                await session.scalar(select(func.count()).select_from(table)) or 0
                for table in (ModerationGroupRow, BanRow, DeadLetterRow)
            ]
        return ServiceFigures(periods, *chats, *counts)

    async def _period(self, days: int) -> PeriodFigures:
        since = self._totals.today - timedelta(days=days - 1)
        people, chats = await self._totals.parties(since)
        opened = ModerationIncidentRow.created_at > self._clock.now() - timedelta(days=days)
        async with self._database.reading() as session:
            incidents = await session.scalar(select(func.count()).select_from(ModerationIncidentRow).where(opened))
        return PeriodFigures(days, people, chats, await self._totals.of_all(since), incidents or 0)
