"""Usage totals: daily sums by user, chat and provider."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, tzinfo
from typing import Any

from sqlalchemy import ColumnElement, Executable, Row, distinct, func, select
from sqlalchemy.orm import InstrumentedAttribute

from core.clock import Clock
from core.db.database import Database
from core.db.usage_tables import UsageDayRow
from core.errors import StorageError
from services.usage.ledger import UsageLedger
from services.usage.prices import NANO

READ_TIMEOUT_S = 3.0


@dataclass(frozen=True, slots=True)
class UsageTotal:
    """Usage of a set of requests.

    Args:
        answers: requests that produced an answer for a user; steps of a tool loop, verdicts and names do not count.
        failures: requests that failed at the provider.
        estimated: requests with estimated token counts.
        unpriced: requests of unknown price; they are not part of `cost_usd`.
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
        """Input and output tokens."""
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
    """Reads daily sums, after writing the backlog of this replica.

    Each method raises StorageError where the database fails or takes too long.

    Args:
        zone: days start at its midnight; the ledger's.
    """

    def __init__(self, database: Database, ledger: UsageLedger, clock: Clock, zone: tzinfo = UTC) -> None:
        self._database = database
        self._ledger = ledger
        self._clock = clock
        self._zone = zone

    @property
    def today(self) -> date:
        """The current day."""
        return self._clock.now().astimezone(self._zone).date()

    @property
    def zone_name(self) -> str:
        """The abbreviation of the time zone in which days start, such as CET."""
        return self._clock.now().astimezone(self._zone).strftime("%Z")

    async def of_speaker(self, speaker: str, since: date) -> UsageTotal:
        """Returns the usage of one user in all chats since a day."""
        return await self._sum(UsageDayRow.speaker == speaker, UsageDayRow.day >= since)

    async def of_chat(self, chat: str, since: date) -> UsageTotal:
        """Returns the usage of all users in one chat since a day."""
        return await self._sum(UsageDayRow.chat == chat, UsageDayRow.day >= since)

    async def of_all(self, since: date) -> UsageTotal:
        """Returns the usage of all users in all chats since a day."""
        return await self._sum(UsageDayRow.day >= since)

    async def parties(self, since: date) -> tuple[int, int]:
        """Returns the number of users and of chats with any request since a day."""
        counts = (func.count(distinct(func.nullif(column, ""))) for column in (UsageDayRow.speaker, UsageDayRow.chat))
        rows = await self._read(select(*counts).where(UsageDayRow.day >= since))
        sums: tuple[Any, ...] = tuple(rows[0])
        return int(sums[0]), int(sums[1])

    async def of_purpose(self, chat: str, purpose: str, since: date) -> UsageTotal:
        """Returns the usage in one chat for one purpose since a day."""
        return await self._sum(UsageDayRow.chat == chat, UsageDayRow.purpose == purpose, UsageDayRow.day >= since)

    async def by_provider(self, since: date) -> Mapping[str, UsageTotal]:
        """Returns the usage per provider since a day."""
        return await self._by(UsageDayRow.provider, since)

    async def by_model(self, since: date) -> Mapping[str, UsageTotal]:
        """Returns the usage per `<provider>/<model>` since a day."""
        return await self._by(UsageDayRow.provider + "/" + UsageDayRow.model, since)

    async def by_purpose(self, since: date) -> Mapping[str, UsageTotal]:
        """Returns the usage per purpose since a day."""
        return await self._by(UsageDayRow.purpose, since)

    async def _by(
        self, group: ColumnElement[str] | InstrumentedAttribute[str], since: date
    ) -> Mapping[str, UsageTotal]:
        rows = await self._read(select(group, *_SUMS).where(UsageDayRow.day >= since).group_by(group))
        return {row[0]: _to_total(row[1:]) for row in rows}

    async def _sum(self, *where: ColumnElement[bool]) -> UsageTotal:
        rows = await self._read(select(*_SUMS).where(*where))
        return _to_total(tuple(rows[0]))

    async def _read(self, query: Executable) -> list[Row[Any]]:
        try:
            async with asyncio.timeout(READ_TIMEOUT_S):
                await self._ledger.flush()
                async with self._database.reading() as session:
                    return list(await session.execute(query))
        except TimeoutError:
            raise StorageError("the database failed: it did not answer in time") from None


def _to_total(sums: tuple[Any, ...]) -> UsageTotal:
    # PostgreSQL sums 64-bit integers to a decimal.
    *numbers, nanousd = map(int, sums)
    return UsageTotal(*numbers, cost_usd=nanousd / NANO)
