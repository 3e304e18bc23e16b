"""The history of the providers: figures over all replicas, thinned with age, and spans of their states."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC
from zoneinfo import ZoneInfo

import pytest
from pydantic_ai.usage import RequestUsage
from sqlalchemy import func, select

from core.config.providers import Price, ProviderKind, ProviderSettings
from core.db.database import Database
from core.db.usage_tables import ProviderFigureRow
from core.redis.client import open_redis
from services.history.figures import DAY, HOUR, MINUTE, FigureHistory, Period, bucket, percentile
from services.history.states import RecordedState, StateHistory, StateTiming
from services.llm.request import RequestSpec
from services.llm.routing.fallback import LLMProviderFallback
from services.llm.routing.state.shared_state import SharedRouting
from services.llm.usage import RequestEnd, RequestReport, TokenUse
from services.usage.ledger import UsageLedger
from tests.support.clock import ManualClock

PAID = ProviderSettings(
    id="paid",
    kind=ProviderKind.OPENAI_COMPATIBLE,
    models=("m",),
    base_url="https://llm.example.org/v1",
    prices={"m": Price(1.0, 10.0)},
)
OWN = ProviderSettings(id="own", kind=ProviderKind.OLLAMA, models=("m",), remote=False)


def report(clock: ManualClock, *, failed: bool = False, first_output_s: float | None = 0.8) -> RequestReport:
    return RequestReport(
        at=clock.time(),
        provider=PAID,
        model="m",
        spec=RequestSpec("chat"),
        end=RequestEnd.FAILED if failed else RequestEnd.ANSWERED,
        is_failure=failed,
        used=TokenUse(RequestUsage(input_tokens=100, output_tokens=10)),
        first_output_s=None if failed else first_output_s,
    )


async def steps(database: Database) -> dict[int, int]:
    """Return the stored requests by step."""
    row = ProviderFigureRow
    query = select(row.step, func.sum(row.value)).where(row.name == "requests").group_by(row.step)
    async with database.reading() as session:
        return {step: int(value) for step, value in await session.execute(query)}


async def test_requests_of_all_replicas_are_one_series(
    database: Database, replica: Database, clock: ManualClock
) -> None:
    ledgers = [UsageLedger(database, clock), UsageLedger(replica, clock)]
    for ledger in ledgers:
        ledger.count(report(clock))
        ledger.count(report(clock, failed=True))
        assert await ledger.flush()
    series = await FigureHistory(database, clock).read(Period.DAY)
    total = series.total("paid")
    assert (total.requests, total.failures, total.unpriced) == (4, 2, 0)
    assert total.cost_usd == pytest.approx(4 * 0.0002)
    assert series.points["paid"][-1].requests == 4
    assert sum(point.requests for point in series.combined()) == 4


async def test_minutes_become_hours_and_days_without_a_request_lost(database: Database, clock: ManualClock) -> None:
    ledger, history = UsageLedger(database, clock), FigureHistory(database, clock)
    for age in (400, 40, 2, 0):
        clock.shift(-age * DAY)
        for _ in range(3):
            ledger.count(report(clock))
            clock.shift(MINUTE)
        await ledger.flush()
        clock.shift(age * DAY - 3 * MINUTE)
    assert await steps(database) == {MINUTE: 12}
    await history.thin()
    assert await steps(database) == {MINUTE: 3, HOUR: 3, DAY: 3}
    for period, requests in ((Period.DAY, 3), (Period.MONTH, 6), (Period.YEAR, 9)):
        total = (await history.read(period)).total("paid")
        assert (total.requests, sum(total.first_output.values())) == (requests, requests)


async def test_two_replicas_that_thin_at_once_count_once(
    database: Database, replica: Database, clock: ManualClock
) -> None:
    ledger = UsageLedger(database, clock)
    for _ in range(120):
        ledger.count(report(clock))
        clock.shift(MINUTE)
    await ledger.flush()
    clock.shift(2 * DAY)
    await asyncio.gather(FigureHistory(database, clock).thin(), FigureHistory(replica, clock).thin())
    assert await steps(database) == {HOUR: 120}


@pytest.mark.parametrize("zone", [UTC, ZoneInfo("Asia/Kolkata"), ZoneInfo("America/New_York")])
async def test_days_of_a_year_begin_at_midnight_of_the_time_zone(
    file: Database, clock: ManualClock, zone: ZoneInfo
) -> None:
    ledger, history = UsageLedger(file, clock), FigureHistory(file, clock, zone)
    before = (await history.read(Period.YEAR)).instants
    clock.shift(before[-31] - clock.time())
    for _ in range(24):
        ledger.count(report(clock))
        clock.shift(HOUR)
    await ledger.flush()
    for _ in range(2):
        clock.shift(31 * DAY)
        series = await FigureHistory(file, clock, zone).read(Period.YEAR)
        assert [point.requests for point in series.points["paid"] if point.requests] == [24]
        await history.thin()


@pytest.mark.parametrize(("share", "low", "high"), [(0.5, 0.6, 1.0), (0.95, 2.0, 3.3)])
def test_percentile_lies_in_the_bucket_of_the_true_one(share: float, low: float, high: float) -> None:
    counts: dict[int, int] = {}
    for seconds in [0.8] * 90 + [2.5] * 10:
        counts[bucket(seconds)] = counts.get(bucket(seconds), 0) + 1
    found = percentile(counts, share)
    assert found is not None
    assert low <= found <= high
    assert percentile({}, share) is None


class Replica:
    """A process that records the states of two providers."""

    def __init__(self, fallback: LLMProviderFallback, database: Database, clock: ManualClock) -> None:
        self.fallback = fallback
        self.figures = FigureHistory(database, clock)
        self.states = StateHistory(fallback, self.figures, database, clock, StateTiming())
        self._clock = clock

    async def spans(self, provider: str) -> list[tuple[RecordedState, int, int]]:
        """Return a provider's spans, in seconds before now."""
        now = int(self._clock.time())
        spans = await self.states.read(0)
        return [(span.state, now - span.began_at, now - span.seen_at) for span in spans[provider]]


@asynccontextmanager
async def replicas(database: Database, clock: ManualClock, count: int = 1) -> AsyncGenerator[list[Replica]]:
    async with AsyncExitStack() as stack:
        redis = await stack.enter_async_context(open_redis(None))
        opened: list[Replica] = []
        for _ in range(count):
            shared = SharedRouting(redis, "test", clock)
            await shared.start()
            stack.push_async_callback(shared.close)
            opened.append(Replica(LLMProviderFallback([OWN, PAID], shared, clock), database, clock))
        yield opened


async def test_cooldown_is_a_span_with_its_reason(file: Database, clock: ManualClock) -> None:
    async with replicas(file, clock) as [replica]:
        await replica.states.step()
        clock.shift(100)
        await replica.fallback.report_provider_failure("own", TimeoutError(), "chat")
        await replica.states.step()
        clock.shift(50)
        await replica.fallback.control.reset("own")
        await replica.states.step()
        assert await replica.spans("own") == [
            (RecordedState.ANSWERS, 150, 50),
            (RecordedState.COOLING, 50, 0),
            (RecordedState.ANSWERS, 0, 0),
        ]
        assert (await replica.states.read(0))["own"][1].reason == "timed out"
        assert [state for state, _, _ in await replica.spans("paid")] == [
            RecordedState.STANDS_BY,
            RecordedState.ANSWERS,
            RecordedState.STANDS_BY,
        ]
        assert (await replica.figures.read(Period.DAY)).total("own").changes == 2


async def test_second_replica_records_no_change_twice(file: Database, clock: ManualClock) -> None:
    async with replicas(file, clock, 2) as both:
        for replica in both:
            await replica.states.step()
        await both[0].fallback.force_provider("paid", 600)
        for replica in both:
            clock.shift(1)
            await replica.states.step()
        assert [state for state, _, _ in await both[1].spans("paid")] == [RecordedState.STANDS_BY, RecordedState.FORCED]


async def test_standstill_of_all_processes_is_a_gap(file: Database, clock: ManualClock) -> None:
    async with replicas(file, clock) as [replica]:
        await replica.states.step()
        clock.shift(60)
        await replica.states.step()
    clock.shift(3600)
    async with replicas(file, clock) as [replica]:
        await replica.states.step()
        assert await replica.spans("own") == [(RecordedState.ANSWERS, 3660, 3600), (RecordedState.ANSWERS, 0, 0)]


async def test_old_spans_become_seconds_by_the_hour(file: Database, clock: ManualClock) -> None:
    """A state that goes on is cut, so that its seconds count once and its bar goes on."""
    async with replicas(file, clock) as [replica]:
        replica.states = StateHistory(replica.fallback, replica.figures, file, clock, StateTiming(gap_s=2 * HOUR))
        for _ in range(73):
            await replica.states.step()
            clock.shift(HOUR)
        await replica.states.thin()
        spans = await replica.spans("own")
        total = (await replica.figures.read(Period.MONTH)).total("own")
        ((state, began, _),) = spans
        assert state is RecordedState.ANSWERS
        assert DAY <= began < DAY + HOUR
        assert total.states["answers"] + began == 73 * HOUR


async def test_provider_that_changes_all_the_time_keeps_few_spans(file: Database, clock: ManualClock) -> None:
    async with replicas(file, clock) as [replica]:
        replica.states = StateHistory(replica.fallback, replica.figures, file, clock, StateTiming(kept_spans=10))
        for _ in range(20):
            await replica.fallback.control.cool_down("own", 60, by="test")
            await replica.states.step()
            clock.shift(1)
            await replica.fallback.control.reset("own")
            await replica.states.step()
            clock.shift(1)
        await replica.states.thin()
        assert len(await replica.spans("own")) == 10
        states = (await replica.figures.read(Period.DAY)).total("own").changes
        assert states == 39
