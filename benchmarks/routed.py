"""What the routed model costs: CPU time against a bare model, added latency of a failover, spread of a change."""

import argparse
import asyncio
import logging
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Self

import structlog
from pydantic_ai import Agent
from pydantic_ai.models import Model
from pydantic_ai.models.fallback import FallbackModel

from benchmarks.measuring import Work, compare, llm_server_process
from core.clock import SystemClock
from core.provider_settings import ProviderKind, ProviderSettings
from core.redis import open_redis
from services.llm.builders import ModelBuilder
from services.llm.fallback import LLMProviderFallback
from services.llm.model_factory import LLMModelFactory
from services.llm.state import SharedRouting
from tests.support.llm_server import refusing_url
from tests.support.redis_server import RedisServer

AGENT = Agent(instructions="Answer in a few words.")


def _provider(name: str, url: str) -> ProviderSettings:
    return ProviderSettings(id=name, kind=ProviderKind.OPENAI_COMPATIBLE, models=("m",), base_url=url)


class Replica:
    """The service over real Redis, with models of its own."""

    def __init__(self, redis_url: str, providers: list[ProviderSettings]) -> None:
        self.redis = open_redis(redis_url)
        self.shared = SharedRouting(self.redis, f"bench-{time.monotonic_ns()}", SystemClock())
        self.fallback = LLMProviderFallback(providers, self.shared, SystemClock())
        self.builder = ModelBuilder()
        self.models = LLMModelFactory(self.fallback, self.builder)

    async def __aenter__(self) -> Self:
        await self.shared.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.shared.close()
        await self.builder.aclose()
        await self.redis.aclose()

    @property
    def model(self) -> Model:
        """A fresh routed model, as each turn makes one."""
        return self.models.create_llm_model_with_fallback("bench")


async def _plain(model: Model) -> None:
    await AGENT.run("Hello?", model=model)


async def _streamed(model: Model) -> None:
    async with AGENT.run_stream("Hello?", model=model) as result:
        async for _ in result.stream_text(delta=True, debounce_by=None):
            pass


async def overhead(redis_url: str, healthy: str, broken: str, rounds: int, repeat: int) -> None:
    """CPU time of a request, healthy and with the primary down."""
    up = [_provider("first", healthy), _provider("second", healthy)]
    down = [_provider("first", broken), _provider("second", healthy)]
    async with Replica(redis_url, up) as well, Replica(redis_url, down) as ill:
        await ill.fallback.report_provider_failure("first", TimeoutError("down"), "bench")
        bare = well.builder.model(up[0], "m")
        stock = FallbackModel(bare, well.builder.model(up[1], "m"))
        stock_ill = FallbackModel(ill.builder.model(down[0], "m"), ill.builder.model(down[1], "m"))
        for title, ask in (("plain", _plain), ("streamed", _streamed)):
            alternatives: dict[str, Work] = {
                "bare model": lambda ask=ask: ask(bare),
                "routed, healthy": lambda ask=ask: ask(well.model),
                "routed, primary in cooldown": lambda ask=ask: ask(ill.model),
                "FallbackModel, healthy": lambda ask=ask: ask(stock),
            }
            if title == "plain":
                # Streamed, it stopped for ever after some sixty refused connections in a row.
                alternatives["FallbackModel, primary down"] = lambda ask=ask: ask(stock_ill)
            await compare(f"CPU time of a {title} request", alternatives, rounds=rounds, repeat=repeat)


async def failover_latency(redis_url: str, healthy: str, cases: dict[str, str]) -> None:
    """Wall-clock time that a failover adds to the second provider's own."""
    print("\nAdded latency of a failover, streamed, milliseconds (median of 15, worst)")
    for name, url in cases.items():
        broken = replace(_provider("first", url), first_token_timeout_s=0.5)
        async with Replica(redis_url, [broken, _provider("second", healthy)]) as replica:
            alone = replica.builder.model(_provider("second", healthy), "m")
            await _streamed(alone)
            added: list[float] = []
            for _ in range(15):
                await replica.fallback.reset("first")
                began = time.perf_counter()
                await _streamed(alone)
                own = time.perf_counter() - began
                began = time.perf_counter()
                await _streamed(replica.model)
                added.append((time.perf_counter() - began - own) * 1000)
            print(f"  {name:<28} {statistics.median(added):8.1f}  {max(added):8.1f}")


async def spread(redis_url: str) -> None:
    """How long a change takes to reach a second replica."""
    redis_a, redis_b = open_redis(redis_url), open_redis(redis_url)
    one = SharedRouting(redis_a, "bench-spread", SystemClock())
    two = SharedRouting(redis_b, "bench-spread", SystemClock())
    providers = [_provider("first", "http://127.0.0.1:1/v1"), _provider("second", "http://127.0.0.1:1/v1")]
    service = LLMProviderFallback(providers, one, SystemClock())
    await one.start()
    await two.start()
    delays: list[float] = []
    for _ in range(200):
        began = time.perf_counter()
        acting = asyncio.create_task(service.force_provider("second", 60))
        await _until(lambda: two.routing.force is not None)
        delays.append((time.perf_counter() - began) * 1000)
        await acting
        await service.clear_cache()
        await _until(lambda: two.routing.force is None)
    cuts = statistics.quantiles(delays, n=20)
    print("\nA change seen by a second replica, milliseconds")
    print(f"  median {statistics.median(delays):.2f}, 95th percentile {cuts[18]:.2f}, worst {max(delays):.2f}")
    await one.close()
    await two.close()
    await redis_a.aclose()
    await redis_b.aclose()


async def _until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - the very instant is what is measured
        await asyncio.sleep(0)


async def main(rounds: int, repeat: int) -> None:
    """Everything, on one Redis."""
    async with AsyncExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory())
        redis = RedisServer(Path(directory))
        await redis.start()
        stack.push_async_callback(redis.stop)
        healthy = await stack.enter_async_context(llm_server_process())
        failing = await stack.enter_async_context(llm_server_process("500"))
        silent = await stack.enter_async_context(llm_server_process("hang"))
        gone = stack.enter_context(refusing_url())
        await overhead(redis.url, healthy, gone, rounds, repeat)
        await failover_latency(redis.url, healthy, {"refused": gone, "500": failing, "silent (0.5 s)": silent})
        await spread(redis.url)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--repeat", type=int, default=60)
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    asyncio.run(main(options.rounds, options.repeat))
