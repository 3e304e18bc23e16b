"""The fallback service over HTTP: three providers, the embedded store, and a clock that tests move."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from core.redis.client import open_redis
from services.llm.request import ModelChoice
from services.llm.routing.events import ProviderNotice
from services.llm.routing.fallback import LLMProviderFallback
from services.llm.routing.timing import RoutingLimits
from tests.support.fake_llm import server as llm
from tests.support.fake_llm.server import LLMServer
from tests.support.llm_harness import LLMHarness, answered_by, bench, provider

NAMES = ("first", "second", "third")


@dataclass(slots=True)
class FallbackHarness:
    """Three providers, each with its own server whose answer names it, and a replica that routes between them."""

    servers: Sequence[LLMServer]
    replica: LLMHarness
    events: list[ProviderNotice]

    @property
    def first(self) -> LLMServer:
        return self.servers[0]

    @property
    def second(self) -> LLMServer:
        return self.servers[1]

    @property
    def third(self) -> LLMServer:
        return self.servers[2]

    @property
    def fallback(self) -> LLMProviderFallback:
        return self.replica.fallback

    async def asked(
        self,
        user: str | None = None,
        *,
        streamed: bool = True,
        choice: ModelChoice | str | None = None,
        local_only: bool = False,
    ) -> str:
        """Return the id of the provider that answers a request now."""
        response = await self.replica.ask(streamed=streamed, choice=choice, user=user, local_only=local_only)
        return answered_by(response)

    def counts(self) -> list[int]:
        """Return the number of requests each server has received."""
        return [len(server.requests) for server in self.servers]

    async def first_fails(self) -> None:
        """Make the first provider fail once, which starts its cooldown of 300 s."""
        self.first.script(llm.status(529))
        assert await self.asked() == "second"


@asynccontextmanager
async def open_fallback_harness(
    rules: RoutingLimits | None = None, **changes: object
) -> AsyncIterator[FallbackHarness]:
    """Open a harness whose providers have the settings `changes`."""
    async with LLMServer() as first, LLMServer() as second, LLMServer() as third, open_redis(None) as redis:
        servers = (first, second, third)
        for name, server in zip(NAMES, servers, strict=True):
            server.default = llm.answer(f"from the {name}")
        providers = [provider(name, server.url, **changes) for name, server in zip(NAMES, servers, strict=True)]
        async with bench(redis, providers, rules=rules) as replica:
            harness = FallbackHarness(servers, replica, [])
            replica.fallback.recorder.listen(harness.events.append)
            yield harness
