"""Two providers, of which the first takes one request at a time, and a replica that routes between them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from redis.asyncio import Redis

from services.llm.routing.state.shared_state import SyncTiming
from tests.support.clock import ManualClock
from tests.support.fake_llm import server as llm
from tests.support.fake_llm.server import LLMServer
from tests.support.fallback_harness import FallbackHarness
from tests.support.llm_harness import (
    RealPauses,
    bench,
    eventually,
    provider,
)

ANN, BEN = "telegram:1", "telegram:2"


@dataclass(slots=True)
class LoadSheddingHarness(FallbackHarness):
    """Two providers and a replica; the first provider takes one request at a time."""

    redis: Redis
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def clock(self) -> ManualClock:
        return self.replica.clock

    async def occupy(self, *, streamed: bool = True, after_pieces: int = 0) -> asyncio.Task[object]:
        """Start a request that stays in flight at the first provider until the gate opens."""
        self.gate.clear()
        count = len(self.first.requests)
        self.first.script(llm.gate(self.gate, after_pieces=after_pieces))
        task = asyncio.create_task(self.replica.ask(streamed=streamed))
        await self.first.arrival(count + 1)
        return task

    async def set_free(self, occupying: asyncio.Task[object]) -> None:
        """Let that request end, and wait until the slot is released everywhere."""
        self.gate.set()
        await occupying
        await eventually(lambda: self.in_flight == 0)
        await self.replica.shedding.close()

    @property
    def in_flight(self) -> int:
        return self.fallback.get_provider_status().providers[0].in_flight


@asynccontextmanager
async def open_harness(
    redis: Redis,
    *,
    second_remote: bool = False,
    sync: SyncTiming | None = None,
    redis_retry_s: float = 2.0,
    **first_options: object,
) -> AsyncIterator[LoadSheddingHarness]:
    """Open a harness on that store; `first_options` are settings of the first provider."""
    async with LLMServer() as first, LLMServer() as second:
        providers = [
            provider("first", first.url, remote=False, **{"max_concurrency": 1, **first_options}),
            provider("second", second.url, remote=second_remote),
        ]
        async with bench(redis, providers, RealPauses(), sync=sync, redis_retry_s=redis_retry_s) as replica:
            yield LoadSheddingHarness((first, second), replica, [], redis)


async def move_user(harness: LoadSheddingHarness, user: str = ANN) -> None:
    """Have a user answered by the second provider because the first is busy; then free the first."""
    occupying = await harness.occupy()
    assert await harness.asked(user) == "second"
    await harness.set_free(occupying)
