"""Cost of a whole turn, from the update to the saved answer, against a bare `Agent.run_stream`."""

import argparse
import asyncio
import itertools
import logging
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import structlog

from benchmarks.bot import Bot, bot
from benchmarks.conversation import ANSWER_PIECES, seed
from benchmarks.measuring import cpu_s, interleave, machine, print_table
from benchmarks.processes import Contestant, contestant, llm_process
from tests.support.processes.redis_server import RedisServer

HISTORY_TOKENS = 8000
"""Default of the setting: history sent to a model in a long conversation."""


def measure_bot(daemon: Bot, chats: Callable[[], range], at_once: int) -> Callable[[], Awaitable[float]]:
    """Return a measurement of the daemon: CPU per turn in ms."""

    async def measure() -> float:
        asked = chats()
        began = cpu_s(daemon.pid)
        await daemon.turns(asked, at_once)
        return (cpu_s(daemon.pid) - began) / len(asked) * 1000

    return measure


def measure_rival(rival: Contestant, turns: int, at_once: int) -> Callable[[], Awaitable[float]]:
    """Return the same measurement of a contestant."""

    async def measure() -> float:
        began = cpu_s(rival.pid)
        await rival.run(turns=turns, at_once=at_once)
        return (cpu_s(rival.pid) - began) / turns * 1000

    return measure


async def case(history: int, rounds: int, turns: int, at_once: int, pause: str) -> list[list[str]]:
    """Measure conversations of this many tokens, with a pause in s before each piece; return rows of the table."""
    numbers = itertools.count(1)
    regulars = range(1, turns + 1)

    def newcomers() -> range:
        first = next(numbers) * 10_000
        return range(first, first + turns)

    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        redis = RedisServer(directory)
        await redis.start()
        stack.push_async_callback(redis.stop)
        llm = await stack.enter_async_context(llm_process("--pieces", str(ANSWER_PIECES), "--pause", pause))
        if history:
            await seed(directory, regulars, history)
        daemon = await stack.enter_async_context(bot(directory, llm.url, redis.url))
        bare = await stack.enter_async_context(contestant("bare_agent", "--url", llm.url, "--history", str(history)))
        measured = await interleave(
            {
                "bare `Agent.run_stream`": measure_rival(bare, turns, at_once),
                "the bot": measure_bot(daemon, (lambda: regulars) if history else newcomers, at_once),
            },
            rounds,
        )
    kind = f"{history:,} tokens of history" if history else "a first message"
    return [
        [kind, name, f"{measured.spread(name).text(1)} ms", measured.ratio(name).text()] for name in measured.figures
    ]


async def main(rounds: int, turns: int, at_once: int, pause: str) -> None:
    """Measure short and long conversations."""
    print(
        f"{machine()}; {rounds} rounds of {turns} turns, {at_once} at a time, answers of {ANSWER_PIECES} pieces,"
        f" {pause} s apart"
    )
    rows = [row for history in (0, HISTORY_TOKENS) for row in await case(history, rounds, turns, at_once, pause)]
    print_table(["turn", "", "CPU per turn", "ratio"], rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--turns", type=int, default=40)
    parser.add_argument("--at-once", type=int, default=20)
    parser.add_argument("--pause", default="0.01", help="seconds between two pieces of an answer")
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    asyncio.run(main(options.rounds, options.turns, options.at_once, options.pause))
