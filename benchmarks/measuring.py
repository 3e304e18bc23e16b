"""Rounds of alternatives side by side, and the ratio of each to the first with its spread."""

import asyncio
import random
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager

from tests.support.redis_server import free_port

Work = Callable[[], Awaitable[object]]


@asynccontextmanager
async def llm_server_process(behaviour: str = "answer") -> AsyncIterator[str]:
    """The base URL of an LLM server in a process of its own, whose CPU time does not count."""
    port = free_port()
    command = [sys.executable, "-m", "tests.support.llm_server", "--port", str(port), "--behaviour", behaviour]
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.DEVNULL)
    try:
        for _ in range(200):
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.05)
                continue
            writer.close()
            break
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        await process.wait()


async def compare(title: str, alternatives: Mapping[str, Work], *, rounds: int = 15, repeat: int = 100) -> None:
    """Print the CPU time of each alternative, and its ratio to the first: the median and the quartiles of the rounds.

    Args:
        title: what is compared.
        alternatives: by name, the first being what the others are compared with.
        rounds: how often each takes its turn.
        repeat: how many calls a turn has.
    """
    names = list(alternatives)
    times: dict[str, list[float]] = {name: [] for name in names}
    for name in names:
        for _ in range(10):
            await alternatives[name]()
    for _ in range(rounds):
        for name in random.sample(names, len(names)):  # the order changes, so that none always comes first
            began = time.process_time()
            for _ in range(repeat):
                await alternatives[name]()
            times[name].append((time.process_time() - began) / repeat)
    print(f"\n{title}")
    for name in names:
        ratios = [mine / base for mine, base in zip(times[name], times[names[0]], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        print(
            f"  {name:<28} {statistics.median(times[name]) * 1000:8.3f} ms   x{middle:.3f}  ({low:.3f} to {high:.3f})"
        )
