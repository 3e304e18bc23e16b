"""Memory with thousands of turns in flight: the whole bot, a bare agent, LiteLLM's router."""

import argparse
import asyncio
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

from benchmarks.bot import bot
from benchmarks.measuring import machine, print_table, rss_mib
from benchmarks.processes import LLMProcess, contestant, llm_process
from tests.support.fake_llm.server import refusing_url
from tests.support.processes.redis_server import RedisServer

PIECES = "40"
WARM_UP = 20
SETTLE_S = 3.0
"""Until all edits in the chats are done."""
APART_S = 0.05
"""Pause between the starts of two users. All at once, on one core, they would delay each other beyond the 5 s limit for
connecting to a provider."""
PATIENCE_S = 900
"""Answers are paused until the last one has started, which exceeds the default deadlines of a provider."""
DEADLINES = {name: str(PATIENCE_S) for name in ("A_TIMEOUT", "A_FIRST_TOKEN_TIMEOUT", "A_STALL_TIMEOUT")}


async def measure(
    pid: int, llm: LLMProcess, turns: int, work: Callable[[int], Awaitable[object]]
) -> tuple[float, float]:
    """Return the memory of a process, idle and with this many half-finished answers, in MiB."""
    await work(WARM_UP)
    idle = rss_mib(pid)
    await llm.toggle()
    running = asyncio.ensure_future(work(turns))
    async with asyncio.timeout(PATIENCE_S):
        while await llm.held() < turns:
            await asyncio.sleep(0.5)
            if running.done():
                running.result()
                raise RuntimeError("answers ended that should be paused")
    await asyncio.sleep(SETTLE_S)
    full = rss_mib(pid)
    await llm.toggle()
    await running
    return idle, full


async def measure_bot(stack: AsyncExitStack, llm: LLMProcess, turns: int) -> tuple[float, float]:
    """Measure the daemon, with a private chat per turn."""
    directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    redis = RedisServer(directory)
    await redis.start()
    stack.push_async_callback(redis.stop)
    daemon = await stack.enter_async_context(bot(directory, llm.url, redis.url, **DEADLINES))
    return await measure(daemon.pid, llm, turns, lambda n: daemon.turns(range(1, n + 1), n, apart_s=APART_S))


async def measure_agent(stack: AsyncExitStack, llm: LLMProcess, turns: int) -> tuple[float, float]:
    """Measure a bare agent."""
    agent = await stack.enter_async_context(contestant("bare_agent", "--url", llm.url, "--connections", str(2 * turns)))
    return await measure(agent.pid, llm, turns, lambda n: agent.run(turns=n, at_once=n, apart_s=APART_S))


async def measure_litellm(stack: AsyncExitStack, llm: LLMProcess, turns: int, python: str) -> tuple[float, float]:
    """Measure LiteLLM's router."""
    options = ("--healthy", llm.url, "--refusing", stack.enter_context(refusing_url()))
    router = await stack.enter_async_context(contestant("litellm_router", *options, python=python))
    return await measure(router.pid, llm, turns, lambda n: router.run(act="hold", turns=n, apart_s=APART_S))


async def main(counts: list[int], litellm: str | None) -> None:
    """Measure each number of turns in a new process."""
    print(f"{machine()}; resident memory of the process, half of each answer of {PIECES} pieces given")
    table: list[list[str]] = []
    for turns in counts:
        ways: dict[str, Callable[[AsyncExitStack, LLMProcess, int], Awaitable[tuple[float, float]]]] = {
            "the bot: a turn in a chat of its own": measure_bot,
            "a bare agent: a streamed run": measure_agent,
        }
        if litellm is not None:
            ways["LiteLLM's router: a streamed request"] = lambda stack, llm, count: measure_litellm(
                stack, llm, count, litellm
            )
        for name, way in ways.items():
            async with AsyncExitStack() as stack:
                llm = await stack.enter_async_context(llm_process("--pieces", PIECES))
                idle, full = await way(stack, llm, turns)
            each = (full - idle) / turns * 1024
            table.append([name, f"{turns:,}", f"{idle:.0f} MiB", f"{full:.0f} MiB", f"{each:.0f} KiB"])
    if litellm is None:
        print("LiteLLM is left out: pass an interpreter that has it (--litellm /path/to/python)")
    print_table(["", "in flight", "idle", "then", "each"], table)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, nargs="+", default=[1000, 3000])
    parser.add_argument("--litellm", help="an interpreter that has LiteLLM installed")
    options = parser.parse_args()
    asyncio.run(main(options.turns, options.litellm))
