"""Memory with a thousand turns in flight and more: the whole bot, a bare agent, LiteLLM's router."""

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
SETTLES_S = 3.0
"""Until what is shown in the chats is shown."""
APART_S = 0.05
"""Between two people who begin. All at once, on one core, they would wait longer for each other than the 5 s within
which a connection to a provider must come about."""
PATIENCE_S = 900
"""The first answers are held until the last one has begun, which is not what a provider's deadlines are made for."""
DEADLINES = {name: str(PATIENCE_S) for name in ("A_TIMEOUT", "A_FIRST_TOKEN_TIMEOUT", "A_STALL_TIMEOUT")}


async def measured(
    pid: int, llm: LLMProcess, turns: int, work: Callable[[int], Awaitable[object]]
) -> tuple[float, float]:
    """The memory of a process before, and with so many turns in the middle of their answers, in MiB."""
    await work(WARM_UP)
    idle = rss_mib(pid)
    await llm.toggle()
    running = asyncio.ensure_future(work(turns))
    async with asyncio.timeout(PATIENCE_S):
        while await llm.held() < turns:
            await asyncio.sleep(0.5)
            if running.done():
                running.result()
                raise RuntimeError("answers ended that were to be held")
    await asyncio.sleep(SETTLES_S)
    full = rss_mib(pid)
    await llm.toggle()
    await running
    return idle, full


async def of_bot(stack: AsyncExitStack, llm: LLMProcess, turns: int) -> tuple[float, float]:
    """The daemon, a private chat for each turn."""
    directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    redis = RedisServer(directory)
    await redis.start()
    stack.push_async_callback(redis.stop)
    house = await stack.enter_async_context(bot(directory, llm.url, redis.url, **DEADLINES))
    return await measured(house.pid, llm, turns, lambda n: house.turns(range(1, n + 1), n, apart_s=APART_S))


async def of_agent(stack: AsyncExitStack, llm: LLMProcess, turns: int) -> tuple[float, float]:
    """A bare agent."""
    agent = await stack.enter_async_context(contestant("bare_agent", "--url", llm.url, "--connections", str(2 * turns)))
    return await measured(agent.pid, llm, turns, lambda n: agent.does(turns=n, at_once=n, apart_s=APART_S))


async def of_litellm(stack: AsyncExitStack, llm: LLMProcess, turns: int, python: str) -> tuple[float, float]:
    """LiteLLM's router."""
    options = ("--healthy", llm.url, "--refusing", stack.enter_context(refusing_url()))
    router = await stack.enter_async_context(contestant("litellm_router", *options, python=python))
    return await measured(router.pid, llm, turns, lambda n: router.does(act="hold", turns=n, apart_s=APART_S))


async def main(counts: list[int], litellm: str | None) -> None:
    """Each number of turns, each by a process that has just started."""
    print(f"{machine()}; resident memory of the process, half of each answer of {PIECES} pieces given")
    table: list[list[str]] = []
    for turns in counts:
        ways: dict[str, Callable[[AsyncExitStack, LLMProcess, int], Awaitable[tuple[float, float]]]] = {
            "the bot: a turn in a chat of its own": of_bot,
            "a bare agent: a streamed run": of_agent,
        }
        if litellm is not None:
            ways["LiteLLM's router: a streamed request"] = lambda stack, llm, count: of_litellm(
                stack, llm, count, litellm
            )
        for name, way in ways.items():
            async with AsyncExitStack() as stack:
                llm = await stack.enter_async_context(llm_process("--pieces", PIECES))
                idle, full = await way(stack, llm, turns)
            each = (full - idle) / turns * 1024
            table.append([name, f"{turns:,}", f"{idle:.0f} MiB", f"{full:.0f} MiB", f"{each:.0f} KiB"])
    if litellm is None:
        print("LiteLLM's lines are left out: no interpreter that has it was given (--litellm /path/to/python)")
    print_table(["", "in flight", "idle", "then", "each"], table)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, nargs="+", default=[1000, 3000])
    parser.add_argument("--litellm", help="an interpreter that has LiteLLM installed")
    options = parser.parse_args()
    asyncio.run(main(options.turns, options.litellm))
