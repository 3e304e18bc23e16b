"""Budgets on both databases: never overdrawn by requests side by side, settled by use, given back after a crash."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import pytest
from pydantic_ai.messages import ModelResponse
from sqlalchemy import func, select

from core.config.providers import Price
from core.db.database import Database
from core.db.usage_tables import BudgetDayRow, BudgetHoldRow
from core.errors import BudgetExhausted
from core.redis.client import open_redis
from services.budgets.budgets import Budgets, BudgetTiming
from services.budgets.limits import BudgetLimits
from services.llm.models.factory import LLMModelFactory
from services.llm.request import RequestSpec
from services.llm.routing.admission.budget_guard import BudgetKind
from services.moderation.domain.verdict import Verdict
from services.pseudonyms import load_pseudonyms
from services.usage.ledger import UsageLedger
from services.usage.prices import NANO
from tests.support.clock import ManualClock, settle, until
from tests.support.fake_llm.server import LLMServer, answer, gate, status
from tests.support.llm_harness import RealSleeps, answered_by, bench, provider
from tests.support.routed_requests import ask

pytestmark = pytest.mark.integration

PRICE = Price(0.0, 100.0)
"""USD per million tokens: an answer of 4,096 tokens reserves 0.4096 USD."""
ANN = "telegram:7"


@dataclass(slots=True)
class Replica:
    """A process: its budgets and the models that are routed under them."""

    database: Database
    budgets: Budgets
    factory: LLMModelFactory[Verdict]

    async def ask(self, user: str | None = ANN, purpose: str = "chat") -> ModelResponse:
        spec = RequestSpec(purpose, user=user, chat="telegram:-100")
        return await ask(self.factory.create_routed_model(spec), streamed=True)

    async def spent(self, kind: BudgetKind = BudgetKind.USER, reference: str = ANN) -> float:
        await self.budgets.settlements.flush()
        return (await self.budgets.state(kind, reference)).spent_usd

    async def amounts(self, kind: BudgetKind = BudgetKind.USER, reference: str = ANN) -> tuple[float, float]:
        """Return the amounts spent and reserved, in USD."""
        async with self.database.reading() as session:
            row = await session.get(BudgetDayRow, (self.budgets.limits.scope(kind, reference), self.budgets.today))
        return (row.spent / NANO, row.reserved / NANO) if row is not None else (0, 0)

    async def reserved(self, kind: BudgetKind = BudgetKind.USER, reference: str = ANN) -> float:
        return (await self.amounts(kind, reference))[1]


@asynccontextmanager
async def replica_of(
    database: Database,
    clock: ManualClock,
    limits: BudgetLimits,
    servers: Sequence[LLMServer],
    *,
    free: str = "",
    capped: str = "",
) -> AsyncIterator[Replica]:
    """Open a replica whose providers `p0`, `p1` ... cost `PRICE`, except the one that is free."""
    providers = [
        provider(
            f"p{n}",
            server.url,
            prices={} if f"p{n}" == free else {f"p{n}-model": PRICE},
            remote=f"p{n}" != free,
            budget_day_usd=0.3 if f"p{n}" == capped else None,
        )
        for n, server in enumerate(servers)
    ]
    async with AsyncExitStack() as stack:
        ledger = UsageLedger(database, clock)
        budgets = Budgets(database, clock, await load_pseudonyms(database), limits)
        await budgets.start()
        stack.push_async_callback(budgets.close)
        redis = open_redis(None)
        stack.push_async_callback(redis.aclose)
        harness = await stack.enter_async_context(bench(redis, providers, clock, meter=ledger, budgets=budgets))
        yield Replica(database, budgets, harness.factory)


async def test_budget_is_never_overdrawn_by_a_hundred_at_once_over_two_replicas(
    database: Database, replica: Database, first: LLMServer
) -> None:
    first.default = answer("Hello")
    limits = BudgetLimits(user_usd=2.0)
    async with (
        replica_of(database, RealSleeps(), limits, [first]) as one,
        replica_of(replica, RealSleeps(), limits, [first]) as other,
    ):
        await one.budgets.set_limit(BudgetKind.USER, ANN, 0.413)
        await other.budgets.keep_up()
        highest = 0.0

        async def watch() -> None:
            nonlocal highest
            while True:
                highest = max(highest, sum(await one.amounts()))
                await asyncio.sleep(0.01)

        watching = asyncio.create_task(watch())
        results = await asyncio.gather(*((one, other)[n % 2].ask() for n in range(100)), return_exceptions=True)
        watching.cancel()
        await other.budgets.settlements.flush()
        answered = [result for result in results if isinstance(result, ModelResponse)]
        assert all(isinstance(result, BudgetExhausted) for result in results if result not in answered)
        # Each reserves 0.4096 and uses 0.0007: five go, one after the other.
        assert len(answered) == 5
        assert 0 < highest <= 0.413
        assert await one.spent() <= 0.413
        assert await one.reserved() == 0
        assert len(first.requests) == len(answered)


async def test_budget_is_settled_by_the_tokens_that_were_used(database: Database, first: LLMServer) -> None:
    first.default = answer("Hello there")
    async with replica_of(database, RealSleeps(), BudgetLimits(user_usd=1.0, all_usd=1.0), [first]) as one:
        response = await one.ask()
        used = response.usage.output_tokens * PRICE.output_usd / 1e6
        assert used > 0
        assert await one.spent() == pytest.approx(used)
        assert await one.spent(BudgetKind.ALL, "") == pytest.approx(used)
        assert await one.reserved() == 0


async def test_budget_gives_back_a_request_that_failed(database: Database, first: LLMServer) -> None:
    first.default = status(401)
    async with replica_of(database, RealSleeps(), BudgetLimits(user_usd=1.0), [first]) as one:
        with pytest.raises(Exception, match="all providers failed"):
            await one.ask()
        assert await one.spent() == 0
        assert await one.reserved() == 0


async def test_budget_of_a_provider_passes_it_over(database: Database, first: LLMServer, second: LLMServer) -> None:
    async with replica_of(database, RealSleeps(), BudgetLimits(), [first, second], capped="p0") as one:
        assert answered_by(await one.ask()) == "p1"
        assert len(first.requests) == 0


async def test_budget_of_a_user_leaves_free_models(database: Database, first: LLMServer, second: LLMServer) -> None:
    async with replica_of(database, RealSleeps(), BudgetLimits(user_usd=0), [first, second], free="p1") as one:
        assert answered_by(await one.ask()) == "p1"
        assert len(first.requests) == 0


async def test_budget_names_its_owner_and_its_renewal(database: Database, first: LLMServer) -> None:
    clock = RealSleeps()
    async with replica_of(database, clock, BudgetLimits(user_usd=0.01, chat_usd=5), [first]) as one:
        with pytest.raises(BudgetExhausted) as caught:
            await one.ask()
        assert caught.value.budget == "user"
        assert 0 < caught.value.renews_at - clock.time() <= 24 * 3600
        assert len(first.requests) == 0
        clock.shift(caught.value.renews_at - clock.time() + 1)
        await one.budgets.set_limit(BudgetKind.USER, ANN, 1.0)
        assert await one.ask()


async def test_budget_of_people_is_left_alone_by_moderation(database: Database, first: LLMServer) -> None:
    async with replica_of(database, RealSleeps(), BudgetLimits(user_usd=0, chat_usd=0), [first]) as one:
        assert await one.ask(purpose="moderation")
        await one.budgets.set_limit(BudgetKind.ALL, "", 0)
        with pytest.raises(BudgetExhausted):
            await one.ask(purpose="moderation")


async def test_request_waits_for_a_reservation_in_flight(database: Database, first: LLMServer) -> None:
    opened = asyncio.Event()
    first.script(gate(opened, then=answer("First")), answer("Second"))
    async with replica_of(database, RealSleeps(), BudgetLimits(user_usd=0.5), [first]) as one:
        early = asyncio.create_task(one.ask())
        while len(first.requests) == 0:
            await asyncio.sleep(0.01)
        late = asyncio.create_task(one.ask())
        await asyncio.sleep(0.3)
        assert not late.done()
        assert len(first.requests) == 1
        opened.set()
        assert await early
        assert await late


async def test_hold_of_a_dead_process_is_given_back(database: Database, replica: Database, first: LLMServer) -> None:
    first.default = gate(asyncio.Event())
    clock = RealSleeps()
    limits = BudgetLimits(user_usd=0.5)
    dead = AsyncExitStack()
    one = await dead.enter_async_context(replica_of(database, clock, limits, [first]))
    asking = asyncio.create_task(one.ask())
    while len(first.requests) == 0:
        await asyncio.sleep(0.01)
    async with replica_of(replica, clock, limits, [first]) as other:
        assert await other.reserved() == pytest.approx(0.4096)
        clock.shift(100)
        await one.budgets.keep_up()
        clock.shift(100)
        await other.budgets.keep_up()
        # It was extended.
        assert await other.reserved() == pytest.approx(0.4096)
        clock.shift(200)
        await other.budgets.keep_up()
        assert await other.reserved() == 0
        # The process was only slow: its cost is added, and nothing is given back twice.
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        await dead.aclose()
        assert await other.reserved() == 0
        async with replica.reading() as session:
            assert await session.scalar(select(func.count()).select_from(BudgetHoldRow)) == 0


async def test_limit_set_at_noon_counts_the_morning(database: Database, first: LLMServer) -> None:
    first.default = answer("Hello")
    async with replica_of(database, RealSleeps(), BudgetLimits(), [first]) as one:
        clock = RealSleeps()
        ledger = UsageLedger(database, clock)
        spec = RequestSpec("chat", user=ANN)
        redis = open_redis(None)
        priced = provider("p0", first.url, prices={"p0-model": PRICE})
        async with bench(redis, [priced], clock, meter=ledger) as harness:
            await ask(harness.factory.create_routed_model(spec), streamed=True)
        await ledger.flush()
        await redis.aclose()
        spent = (await one.budgets.state(BudgetKind.USER, ANN)).spent_usd
        assert spent > 0
        await one.budgets.set_limit(BudgetKind.USER, ANN, spent)
        with pytest.raises(BudgetExhausted):
            await one.ask()
        assert await one.budgets.limits.labels() == {f"user:{ANN}": pytest.approx(spent)}
        assert await one.budgets.clear_limit(BudgetKind.USER, ANN)
        assert await one.ask()


async def test_database_failure_does_not_stop_answers_and_adds_their_cost(file: Database, first: LLMServer) -> None:
    async with replica_of(file, RealSleeps(), BudgetLimits(user_usd=1.0), [first]) as one:
        await one.ask()
        before = await one.spent()
        async with file.session() as held:
            await held.scalar(select(1))
            assert await one.ask()
        assert await one.spent() == pytest.approx(2 * before)


async def test_wait_ends_after_a_moment_or_with_a_change(file: Database, clock: ManualClock) -> None:
    budgets = Budgets(file, clock, await load_pseudonyms(file))
    waiting = asyncio.create_task(budgets.wait())
    await settle()
    assert not waiting.done()
    await clock.advance(BudgetTiming().poll_s)
    assert waiting.done()
    waiting = asyncio.create_task(budgets.wait())
    await settle()
    assert not waiting.done()
    await budgets.keep_up()
    await until(waiting.done)
