"""Time spans of the providers' states, sampled once a second and added up by the hour when they are a day old."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import structlog
from sqlalchemy import Connection, delete, func, select, update

from core.background import Outage
from core.clock import Clock
from core.db.database import Database
from core.db.usage_tables import ProviderSpanRow
from core.errors import StorageError
from services.history import figures
from services.history.figures import DAY, HOUR, STATE, Figure, FigureHistory, Sums
from services.llm.routing.fallback import LLMProviderFallback
from services.llm.routing.status import ProviderState

log = structlog.get_logger()

MAX_REASON = 200


class RecordedState(StrEnum):
    """A state of a provider in the history."""

    ANSWERS = "answers"
    """The first of the next request."""
    STANDS_BY = "stands_by"
    FORCED = "forced"
    COOLING = "cooling"
    PROBING = "probing"
    """Its cooldown has ended, and it has not answered since."""
    NOT_CONFIGURED = "not_configured"


_WELL = frozenset({ProviderState.PREFERRED, ProviderState.HEALTHY})
_RECORDED = {
    ProviderState.FORCED: RecordedState.FORCED,
    ProviderState.COOLING: RecordedState.COOLING,
    ProviderState.HALF_OPEN: RecordedState.PROBING,
    ProviderState.PROBING: RecordedState.PROBING,
    ProviderState.NOT_CONFIGURED: RecordedState.NOT_CONFIGURED,
}


@dataclass(frozen=True, slots=True)
class StateTiming:
    """Intervals and limits of the recording.

    Args:
        poll_s: sampling interval; a shorter state may be missed.
        seen_s: interval at which the open spans are confirmed in the database.
        gap_s: maximum age of the last confirmation of a span that continues; an older one leaves a gap.
        thin_s: interval of downsampling.
        kept_spans: number of spans per provider kept for a day; those of a flapping provider are added up sooner.
        cache_s: lifetime of cached spans, since many operators read them at the same time.
    """

    poll_s: float = 1.0
    seen_s: float = 60.0
    gap_s: float = 180.0
    thin_s: float = 600.0
    kept_spans: int = 2000
    cache_s: float = 2.0


@dataclass(frozen=True, slots=True)
class Span:
    """A time in one state, in seconds since the epoch; the last one of a provider may go on."""

    state: RecordedState
    reason: str | None
    began_at: int
    seen_at: int


States = Mapping[str, tuple[RecordedState, str | None]]


class StateHistory:
    """Records and reads the states of the providers.

    Args:
        figures: receives the times of old spans.
    """

    def __init__(
        self,
        fallback: LLMProviderFallback,
        history: FigureHistory,
        database: Database,
        clock: Clock,
        timing: StateTiming | None = None,
    ) -> None:
        self._fallback = fallback
        self._history = history
        self._database = database
        self._clock = clock
        self._timing = timing or StateTiming()
        self._known: States = {}
        self._confirm_at = 0.0
        self._thin_at = 0.0
        self._read: tuple[float, Mapping[str, Sequence[Span]]] | None = None
        self._reading = asyncio.Lock()

    async def run(self) -> None:
        """Records changes and thins the history until cancelled. While the database fails, it tries again."""
        outage = Outage()
        while True:
            try:
                await self.step()
            except StorageError as error:
                if outage.begins():
                    log.warning("history.not_recorded", error=str(error))
            else:
                outage.end()
            await self._clock.sleep(self._timing.poll_s)

    async def step(self) -> None:
        """Records changes since the last look, confirms the present states, and thins, each when it is due.

        Raises:
            StorageError: the database failed; the next look records the missed time.
        """
        now, present = self._clock.time(), self._present()
        changed = {name: state for name, state in present.items() if self._known.get(name) != state}
        if changed or now >= self._confirm_at:
            at, was_known = int(now), set(self._known)
            await self._database.run(lambda connection: self._write(connection, present, changed, was_known, at))
            self._known, self._confirm_at = present, now + self._timing.seen_s
        if now >= self._thin_at:
            self._thin_at = now + self._timing.thin_s
            await self.thin()

    async def thin(self) -> None:
        """Sums spans of the time before yesterday's present hour by the hour, then thins the figures.

        Raises:
            StorageError: the database failed.
        """
        before = int(self._clock.time() - self._history.timing.minutes.total_seconds()) // HOUR * HOUR
        await self._database.run(lambda connection: self._sum_up(connection, before))
        await self._history.thin()

    async def read_day(self) -> Mapping[str, Sequence[Span]]:
        """Returns the spans of each provider in the last 24 hours, oldest first; cached for a moment.

        Raises:
            StorageError: the database failed.
        """
        async with self._reading:
            now = self._clock.monotonic()
            if self._read is None or not 0 <= now - self._read[0] < self._timing.cache_s:
                self._read = now, await self.read(int(self._clock.time()) - DAY)
            return self._read[1]

    async def read(self, since: int) -> dict[str, list[Span]]:
        """Returns the spans of each provider that ended later, oldest first.

        Raises:
            StorageError: the database failed.
        """
        row = ProviderSpanRow
        query = (
            select(row.provider, row.state, row.reason, row.began_at, row.seen_at)
            .where(row.seen_at >= since)
            .order_by(row.provider, row.number)
        )

        def work(connection: Connection) -> dict[str, list[Span]]:
            spans: dict[str, list[Span]] = {}
            for provider, state, reason, began_at, seen_at in connection.execute(query):
                spans.setdefault(provider, []).append(Span(RecordedState(state), reason, began_at, seen_at))
            return spans

        return await self._database.run(work, reading=True)

    def _present(self) -> dict[str, tuple[RecordedState, str | None]]:
        first = next(iter(self._fallback.order()), None)
        well = {True: RecordedState.ANSWERS, False: RecordedState.STANDS_BY}
        return {
            each.provider: (
                well[each.provider == first] if each.state in _WELL else _RECORDED[each.state],
                each.reason[:MAX_REASON] if each.reason else None,
            )
            for each in self._fallback.get_provider_status().providers
        }

    def _write(self, connection: Connection, present: States, changed: States, was_known: set[str], at: int) -> None:
        """Continues the spans of the present states and begins those of changed ones.

        Replicas see a change one after the other, and may see different states while Redis is gone: a fresh span of
        another state is ended only by a replica that saw the change itself.
        """
        sums: Sums = {}
        for provider, (state, reason) in sorted(present.items()):
            name = provider[:64]
            row = ProviderSpanRow
            latest = connection.execute(
                select(row.number, row.state, row.reason, row.seen_at)
                .where(row.provider == name)
                .order_by(row.number.desc())
                .limit(1)
            ).first()
            is_fresh = latest is not None and at - latest.seen_at <= self._timing.gap_s
            if latest is not None and is_fresh:
                is_same = (latest.state, latest.reason) == (state, reason)
                if is_same or provider in changed:
                    seen = max(at, latest.seen_at)
                    connection.execute(
                        update(row).where(row.provider == name, row.number == latest.number).values(seen_at=seen)
                    )
                if is_same or provider not in changed:
                    continue
            number = 1 if latest is None else latest.number + 1
            values = {"provider": name, "number": number, "state": state, "reason": reason}
            begun = connection.execute(
                self._database.insert(row)
                .values(**values, began_at=at, seen_at=at)
                .on_conflict_do_nothing()
                .returning(row.number)
            ).first()
            if begun is not None and provider in was_known and latest is not None and latest.state != state:
                figures.add(sums, at, name, Figure.CHANGES, 1)
        figures.write(self._database, connection, sums)

    def _sum_up(self, connection: Connection, before: int) -> None:
        row, sums = ProviderSpanRow, Sums()
        newest = select(row.provider, func.max(row.number)).group_by(row.provider)
        for provider, last in connection.execute(newest).all():
            spare = last - self._timing.kept_spans
            old = select(row.number, row.state, row.began_at, row.seen_at).where(
                row.provider == provider, (row.began_at < before) | (row.number <= spare)
            )
            for number, state, began_at, seen_at in connection.execute(old).all():
                is_over = seen_at <= before or number <= spare
                same = (row.provider == provider, row.number == number, row.began_at == began_at)
                # One that goes on is cut. The condition holds for one replica of several.
                done = connection.execute(
                    delete(row).where(*same) if is_over else update(row).where(*same).values(began_at=before)
                )
                if done.rowcount:
                    _add_hours(sums, provider, state, began_at, seen_at if is_over else before)
        figures.write(self._database, connection, sums)


def _add_hours(sums: Sums, provider: str, state: str, begin: int, end: int) -> None:
    """Adds the seconds of a span to each hour that it touches."""
    while begin < end:
        stop = min(end, begin // HOUR * HOUR + HOUR)
        figures.add(sums, begin, provider, f"{STATE}{state}", stop - begin, step=HOUR)
        begin = stop
