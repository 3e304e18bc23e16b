"""The fallback service over LLM servers on loopback, and requests through it."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import cache

from pydantic_ai.direct import model_request, model_request_stream
from pydantic_ai.messages import (
    ModelMessage,
    ModelRequest,
    ModelResponse,
    PartDeltaEvent,
    PartStartEvent,
    TextPart,
    TextPartDelta,
)
from pydantic_ai.models import ModelRequestParameters
from redis.asyncio import Redis

from core.config.providers import ProviderKind
from core.config.settings import ProviderSettings
from services.llm.models.factory import LLMModelFactory
from services.llm.providers.builder import ModelBuilder
from services.llm.request import Capability, ModelChoice, RequestSpec
from services.llm.routing.admission.budget_guard import BudgetGuard
from services.llm.routing.admission.concurrency import LoadShedding
from services.llm.routing.fallback import LLMProviderFallback
from services.llm.routing.faults.refusals import KNOWN_WORDS, KnownWords
from services.llm.routing.state.shared_state import SharedRouting, SyncTiming
from services.llm.routing.timing import RoutingLimits, RoutingTiming
from services.llm.usage import UsageMeter
from services.moderation.domain.verdict import Verdict
from tests.support.clock import ManualClock
from tests.support.fake_llm.server import LLMServer

HELLO: list[ModelMessage] = [ModelRequest.user_text_prompt("Hello?")]


class RealPauses(ManualClock):
    """A manual clock on which the short pause before a retry returns at once."""

    def __init__(self) -> None:
        super().__init__()
        self.pauses: list[float] = []

    async def sleep(self, seconds: float) -> None:
        if seconds < 0.4:
            self.pauses.append(seconds)
            return
        await super().sleep(seconds)


class RealSleeps(ManualClock):
    """A manual clock whose sleeps take real time, for tests with real servers."""

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


async def eventually(holds: Callable[[], bool], within_s: float = 30.0) -> None:
    """Wait until a condition of a background task holds."""
    async with asyncio.timeout(within_s):
        while not holds():
            await asyncio.sleep(0.002)


async def subscribed(redis: Redis, replicas: int) -> None:
    """Wait until that many replicas are subscribed to the routing state."""
    async with asyncio.timeout(5):
        while (await redis.pubsub_numsub("test:{llm}:changed"))[0][1] < replicas:
            await asyncio.sleep(0.005)


def provider(name: str, server_url: str, **changes: object) -> ProviderSettings:
    """Return an OpenAI-compatible provider whose deadlines a busy machine does not miss."""
    settings = ProviderSettings(
        id=name,
        kind=ProviderKind.OPENAI_COMPATIBLE,
        models=(f"{name}-model", f"{name}-large"),
        base_url=server_url,
        timeout_s=5.0,
        first_token_timeout_s=5.0,
        stall_timeout_s=5.0,
    )
    return replace(settings, **changes)


@dataclass(slots=True)
class LLMHarness:
    """One replica of the service on a given store."""

    clock: ManualClock
    shared: SharedRouting
    fallback: LLMProviderFallback
    factory: LLMModelFactory[Verdict]
    shedding: LoadShedding

    async def ask(
        self,
        *,
        streamed: bool,
        choice: ModelChoice | str | None = None,
        messages: list[ModelMessage] | None = None,
        user: str | None = None,
        local_only: bool = False,
        parameters: ModelRequestParameters | None = None,
        required: frozenset[Capability] = frozenset(),
    ) -> ModelResponse:
        """Make one request; a streamed one is read to its end."""
        chosen = ModelChoice(choice) if isinstance(choice, str) else choice
        spec = RequestSpec("test", user=user, choice=chosen, local_only=local_only, required=required)
        model = self.factory.create_routed_model(spec)
        if not streamed:
            return await model_request(model, messages or HELLO, model_request_parameters=parameters)
        async with model_request_stream(model, messages or HELLO, model_request_parameters=parameters) as stream:
            async for _ in stream:
                pass
        return stream.get()

    async def pieces(self) -> AsyncIterator[str]:
        """Yield the text of one streamed answer, piece by piece."""
        model = self.factory.create_llm_model_with_fallback("test")
        async with model_request_stream(model, HELLO) as stream:
            async for event in stream:
                match event:
                    case PartStartEvent(part=TextPart(content=text)) if text:
                        yield text
                    case PartDeltaEvent(delta=TextPartDelta(content_delta=text)):
                        yield text
                    case _:
                        pass

    def set_timing(self, **changes: float) -> None:
        """Change the waits of the service from now on."""
        probes = self.fallback._probes
        probes.timing = replace(probes.timing, **changes)

    def cooling(self) -> dict[str, float]:
        """Return the remaining cooldown of each provider, in seconds."""
        now = self.clock.time()
        return {name: entry.until - now for name, entry in self.shared.routing.cooldowns.items() if entry.until > now}

    @property
    def preferred(self) -> str | None:
        return self.fallback.get_provider_status().preferred


@cache
def _tls() -> ssl.SSLContext:
    """Return one context for all tests: loading the certificate authorities takes longer than most of them."""
    return ModelBuilder()._tls


@asynccontextmanager
async def bench(
    redis: Redis,
    providers: Sequence[ProviderSettings],
    clock: ManualClock | None = None,
    rules: RoutingLimits | None = None,
    meter: UsageMeter | None = None,
    timing: RoutingTiming | None = None,
    sync: SyncTiming | None = None,
    words: KnownWords = KNOWN_WORDS,
    *,
    budgets: BudgetGuard | None = None,
    redis_retry_s: float = 2.0,
) -> AsyncIterator[LLMHarness]:
    """Open a replica on a store."""
    clock = clock or RealPauses()
    shared = SharedRouting(redis, "test", clock, sync)
    await shared.start()
    shedding = LoadShedding(redis, "test", clock, redis_retry_s)
    fallback = LLMProviderFallback(providers, shared, clock, rules, shedding, meter, timing, words, budgets=budgets)
    builder = ModelBuilder()
    builder._tls = _tls()
    try:
        yield LLMHarness(clock, shared, fallback, LLMModelFactory(fallback, builder, Verdict), shedding)
    finally:
        await builder.aclose()
        await shedding.close()
        await shared.close()


def said(response: ModelResponse) -> str:
    """Return the text of a response."""
    return "".join(part.content for part in response.parts if isinstance(part, TextPart))


def answered_by(response: ModelResponse) -> str:
    """Return the provider in the provenance of a response."""
    assert response.metadata is not None
    return response.metadata["understudy"]["provider"]


async def stopped_server() -> str:
    """Return the URL of a port that refuses connections."""
    server = await LLMServer().start()
    await server.stop()
    return server.url
