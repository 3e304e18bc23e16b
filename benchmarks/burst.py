"""A burst: many people write at one instant, and the waits until their answers are complete."""

import argparse
import asyncio
import statistics
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path

from benchmarks.bot import Bot, bot
from benchmarks.measuring import cpu_s, load, machine, peak_mib, print_table
from benchmarks.processes import llm_process
from tests.support.processes.redis_server import RedisServer

WARM_UP = range(900_001, 900_021)
LOST_MEMORY, BLAMED = "turn.history_unavailable", "provider.failed"


async def wait_s(daemon: Bot, chat_id: int) -> float:
    """Write in a chat and return the seconds until the complete answer."""
    began = time.perf_counter()
    await daemon.turn(chat_id)
    return time.perf_counter() - began


async def measure(people: int, pieces: int, pause_s: float) -> list[str]:
    """Return the table row of a burst."""
    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        redis = RedisServer(directory)
        await redis.start()
        stack.push_async_callback(redis.stop)
        llm = await stack.enter_async_context(llm_process("--pieces", str(pieces), "--pause", str(pause_s)))
        daemon = await stack.enter_async_context(bot(directory, llm.url, redis.url))
        await daemon.turns(WARM_UP, len(WARM_UP))
        cpu = cpu_s(daemon.pid)
        waits = sorted(await asyncio.gather(*(wait_s(daemon, chat_id) for chat_id in range(1, people + 1))))
        cpu = cpu_s(daemon.pid) - cpu
        log = (directory / "log").read_text(errors="replace")
        return [
            f"{people:,}",
            f"{waits[0]:.1f} s",
            f"{statistics.median(waits):.1f} s",
            f"{waits[-1]:.1f} s",
            f"{cpu / people * 1000:.0f} ms",
            f"{peak_mib(daemon.pid):.0f} MiB",
            str(log.count(LOST_MEMORY)),
            str(log.count(BLAMED)),
            f"{load():.1f}",
        ]


async def main(bursts: list[int], pieces: int, pause_s: float) -> None:
    """Measure each burst with a new daemon."""
    print(f"{machine()}; answers of {pieces} pieces, one each {pause_s} s")
    rows = [await measure(people, pieces, pause_s) for people in bursts]
    header = ["people", "first", "median", "last", "CPU a turn", "peak", "without memory", "provider blamed", "load"]
    print_table(header, rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--people", type=int, nargs="+", default=[1000])
    parser.add_argument("--pieces", type=int, default=40)
    parser.add_argument("--pause", type=float, default=0.05, help="seconds between two pieces")
    options = parser.parse_args()
    asyncio.run(main(options.people, options.pieces, options.pause))
