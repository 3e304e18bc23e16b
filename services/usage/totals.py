"""What was used: sums of days, by asker, chat and provider."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

from sqlalchemy import ColumnElement, Row, func, select

from core.clock import Clock
from core.db.database import Database
from core.db.tables import UsageDayRow
from core.errors import StorageError
from services.usage.ledger import UsageLedger
from services.usage.prices import NANO

PATIENCE_S = 3.0
"""How long somebody who asks waits for the database."""


@dataclass(frozen=True, slots=True)
class UsageTotal:
    """What some requests used together.

    Args:
        requests: how many there were.
        answers: those that came to something that somebody read; steps of a tool loop, verdicts and names are none.
        failures: those that their provider failed.
        estimated: those whose tokens are an estimate.
        unpriced: those whose price nobody knows; they are not in `cost_usd`.
        input_tokens: what models read.
        output_tokens: what they wrote.
        cost_usd: what those with a known price cost.
    """

    requests: int = 0
    answers: int = 0
    failures: int = 0
    estimated: int = 0
    unpriced: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: float = 0.0

    @property
    def tokens(self) -> int:
        """Read and written."""
        return self.input_tokens + self.output_tokens


_SUMS = tuple(
    func.coalesce(func.sum(column), 0)
    for column in (
        UsageDayRow.requests,
        UsageDayRow.answers,
        UsageDayRow.failures,
        UsageDayRow.estimated,
        UsageDayRow.unpriced,
        UsageDayRow.input_tokens,
        UsageDayRow.output_tokens,
        UsageDayRow.cost_nanousd,
    )
)


class UsageTotals:
    """Reads the sums. What this replica has not written yet is written first.

    Each method raises StorageError where the database fails, or takes too long.

    Args:
        database: where they are.
        ledger: what is still to be written.
        clock: the time.
    """

    def __init__(self, database: Database, ledger: UsageLedger, clock: Clock) -> None:
        self._database = database
        self._ledger = ledger
        self._clock = clock

    @property
    def today(self) -> date:
        """The day in UTC, as all days here are."""
        return self._clock.now().date()

    async def of_speaker(self, speaker: str, since: date) -> UsageTotal:
        """What one asker used, in all chats, from that day on."""
        return await self._sum(UsageDayRow.speaker == speaker, UsageDayRow.day >= since)

    async def of_chat(self, chat: str, since: date) -> UsageTotal:
        """What was used in one chat by everybody, from that day on."""
        return await self._sum(UsageDayRow.chat == chat, UsageDayRow.day >= since)

    async def of_purpose(self, chat: str, purpose: str, since: date) -> UsageTotal:
        """What was used in one chat for one purpose, from that day on."""
        return await self._sum(UsageDayRow.chat == chat, UsageDayRow.purpose == purpose, UsageDayRow.day >= since)

    async def by_provider(self, since: date) -> Mapping[str, UsageTotal]:
        """What everybody used of each provider, from that day on."""
        query = select(UsageDayRow.provider, *_SUMS).where(UsageDayRow.day >= since).group_by(UsageDayRow.provider)
        rows = await self._read(query)
        return {row[0]: _usage(row[1:]) for row in rows}

    async def _sum(self, *where: ColumnElement[bool]) -> UsageTotal:
        rows = await self._read(select(*_SUMS).where(*where))
        return _usage(tuple(rows[0]))

    async def _read(self, query: Any) -> list[Row[Any]]:  # noqa: ANN401 - a SELECT of whatever columns
        try:
            async with asyncio.timeout(PATIENCE_S):
                await self._ledger.flush()
                async with self._database.reading() as session:
                    return list(await session.execute(query))
        except TimeoutError:
            raise StorageError("the database failed: it did not answer in time") from None


def _usage(sums: tuple[Any, ...]) -> UsageTotal:
    # PostgreSQL adds up 64-bit numbers to a decimal.
    *numbers, nanousd = map(int, sums)
    return UsageTotal(*numbers, cost_usd=nanousd / NANO)
