"""Measures the time a failover adds, and how soon a second replica sees a change of state."""

import argparse
import asyncio
import logging
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import structlog
from pydantic_ai.models import Model

from benchmarks.measuring import Spread, machine, print_table
from benchmarks.processes import llm_process
from benchmarks.replica import Replica, provider, streamed
from tests.support.fake_llm.server import refusing_url
from tests.support.processes.redis_server import RedisServer

SILENT_S = 0.5
"""First-token timeout of the silent provider."""


@dataclass(frozen=True, slots=True)
class Case:
    """A kind of failure.

    Args:
        name: for the table.
        url: of a provider that fails this way.
        target: the most that it may add, in milliseconds.
    """

    name: str
    url: str
    target: str


async def added_ms(redis_url: str, healthy: str, case: Case, repeat: int) -> list[float]:
    """Return the milliseconds beyond the second provider's own time, measured just before."""
    broken = replace(provider("first", case.url), first_token_timeout_s=SILENT_S)
    async with Replica(redis_url, [broken, provider("second", healthy)]) as replica:
        alone = replica.builder.models[provider("second", healthy), "m"]
        for model in (alone, replica.model):
            await streamed(model)
        added: list[float] = []
        for _ in range(repeat):
            await replica.fallback.control.reset("first")
            own = await _wall_s(alone)
            added.append((await _wall_s(replica.model) - own) * 1000)
        return added


async def _wall_s(model: Model) -> float:
    began = time.perf_counter()
    await streamed(model)
    return time.perf_counter() - began


async def spread_ms(redis_url: str, repeat: int) -> list[float]:
    """Return the milliseconds from an operator's act at one replica until another one's copy has it."""
    providers = [provider("first", "http://127.0.0.1:1/v1"), provider("second", "http://127.0.0.1:1/v1")]
    delays: list[float] = []
    async with Replica(redis_url, providers, "bench") as one, Replica(redis_url, providers, "bench") as two:
        for _ in range(repeat):
            began = time.perf_counter()
            acting = asyncio.create_task(one.fallback.force_provider("second", 60))
            await _until(lambda: two.shared.routing.force is not None)
            delays.append((time.perf_counter() - began) * 1000)
            await acting
            await one.fallback.clear_cache()
            await _until(lambda: two.shared.routing.force is None)
    return delays


async def _until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0)


def to_row(name: str, figures: Sequence[float], target: str) -> list[str]:
    """Return a row of the table."""
    percentile = statistics.quantiles(figures, n=20, method="inclusive")[18]
    return [name, Spread.of(figures).text(1), f"{percentile:.1f}", f"{max(figures):.1f}", target]


async def main(repeat: int) -> None:
    """Run all measurements on one Redis."""
    print(f"{machine()}; {repeat} failovers of each kind, streamed, in milliseconds")
    async with AsyncExitStack() as stack:
        redis = RedisServer(Path(stack.enter_context(tempfile.TemporaryDirectory())))
        await redis.start()
        stack.push_async_callback(redis.stop)
        healthy = await stack.enter_async_context(llm_process("--pieces", "10"))
        failing = await stack.enter_async_context(llm_process("--behaviour", "500"))
        silent = await stack.enter_async_context(llm_process("--behaviour", "hang"))
        cases = [
            Case("connection refused", stack.enter_context(refusing_url()), "20"),
            Case("500: the pause of 200 to 300 ms and one more try", failing.url, "300 and the retry's own time + 20"),
            Case(f"silent, with a deadline of {SILENT_S * 1000:.0f} ms", silent.url, f"{SILENT_S * 1000 + 50:.0f}"),
        ]
        table = [to_row(case.name, await added_ms(redis.url, healthy.url, case, repeat), case.target) for case in cases]
        seen = to_row(
            "a change of state, seen by a second replica", await spread_ms(redis.url, 10 * repeat), "50 (95%)"
        )
    print_table(["added by a failover", "median (quartiles)", "95%", "worst", "target"], [*table, seen])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=30)
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    asyncio.run(main(options.repeat))
