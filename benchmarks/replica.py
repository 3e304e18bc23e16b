"""A replica of the fallback service over real Redis, configured like the bot's."""

import time
from collections.abc import Sequence
from typing import Self

from pydantic_ai import Agent
from pydantic_ai.models import Model

from core.clock import SystemClock
from core.config.providers import ProviderKind, ProviderSettings
from core.redis.client import open_redis
from services.chat.reply import Reply
from services.llm.models.factory import LLMModelFactory
from services.llm.providers.builder import ModelBuilder
from services.llm.request import RequestSpec
from services.llm.routing.fallback import LLMProviderFallback
from services.llm.routing.state.shared_state import SharedRouting
from services.moderation.domain.verdict import Verdict

AGENT = Agent(instructions="Answer in a few words.")


def provider(name: str, url: str) -> ProviderSettings:
    """Create a provider with default settings."""
    return ProviderSettings(id=name, kind=ProviderKind.OPENAI_COMPATIBLE, models=("m",), base_url=url)


async def plain(model: Model) -> None:
    """Send a request."""
    await AGENT.run("Hello?", model=model)


async def streamed(model: Model) -> None:
    """Send a streamed request and read all of its pieces."""
    async with AGENT.run_stream("Hello?", model=model) as result:
        async for _ in result.stream_text(delta=True, debounce_by=None):
            pass


async def listened(model: Model) -> None:
    """Send a streamed request whose text goes to a listener, as in a chat, and read its other events."""
    async with AGENT.iter("Hello?", model=model) as run:
        async for node in run:
            if Agent.is_model_request_node(node):
                async with node.stream(run.ctx) as events:
                    async for _ in events:
                        pass


class Replica:
    """A replica of the service.

    Args:
        redis_url: Redis of the shared state.
        providers: in order of priority.
        prefix: key prefix; replicas with the same prefix share their state.
    """

    def __init__(self, redis_url: str, providers: Sequence[ProviderSettings], prefix: str | None = None) -> None:
        self.redis = open_redis(redis_url)
        self.shared = SharedRouting(self.redis, prefix or f"bench-{time.monotonic_ns()}", SystemClock())
        self.fallback = LLMProviderFallback(providers, self.shared, SystemClock())
        self.builder = ModelBuilder()
        self.models = LLMModelFactory(self.fallback, self.builder, Verdict)

    async def __aenter__(self) -> Self:
        await self.shared.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.shared.close()
        await self.builder.aclose()
        await self.redis.aclose()

    @property
    def model(self) -> Model:
        """A new routed model, as each turn creates one."""
        return self.models.create_llm_model_with_fallback("bench")

    def listened_model(self, window_s: float) -> Model:
        """A new routed model, whose text may be held for so long until a listener gets it."""
        return self.models.create_routed_model(RequestSpec("bench"), listener=Reply(window_s))
