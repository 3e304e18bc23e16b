"""Operators who look at the console: `python -m benchmarks.console`.

Fifty browsers refresh the overview, the list of providers, and the navigation and strip of the other pages, as the
console's script does, while clients chat through the endpoint of the same process. Prints the CPU of that process with
and without them, of one refresh, and the latency of the chats.
"""

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from benchmarks.measuring import Spread, cpu_s, machine, print_table, rss_mib
from benchmarks.processes import child, llm_process
from bot.web.console.frame.frame import FRAME_LIVE_S, LIVE_S
from tests.support.processes.redis_server import RedisServer, free_port
from tests.support.settings import variables_for

KEY = "sk-benchmark-0123456789"
WORD = "a-long-random-word-for-benchmarks"
READY_S = 120.0
PAGES = {
    "/console": LIVE_S["overview.html"],
    "/console/providers": LIVE_S["providers.html"],
    "/console/frame?page=settings": FRAME_LIVE_S,
}


@dataclass
class Period:
    """Figures of one period."""

    cpu_percent: float = 0.0
    refreshes: int = 0
    unchanged: int = 0
    refresh_ms: list[float] = field(default_factory=list)
    chat_ms: list[float] = field(default_factory=list)


async def _refresh(base: str, path: str, every_s: float, delay_s: float, period: Period) -> None:
    """Refresh a page as one browser does, until cancelled."""
    await asyncio.sleep(delay_s)
    etag = ""
    async with aiohttp.ClientSession(base, cookie_jar=aiohttp.CookieJar(unsafe=True)) as browser:
        async with browser.post("/console/sign-in", data={"token": WORD}) as response:
            assert response.status == 200
        while True:
            began = time.perf_counter()
            async with browser.get(path, headers={"If-None-Match": etag} if etag else {}) as response:
                assert response.status in {200, 304}
                await response.read()
                etag = response.headers["ETag"]
                period.unchanged += response.status == 304
            period.refreshes += 1
            period.refresh_ms.append((time.perf_counter() - began) * 1000)
            await asyncio.sleep(every_s)


async def _chat(session: aiohttp.ClientSession, pause_s: float, period: Period) -> None:
    """Ask for streamed answers one after another, until cancelled."""
    body = {"model": "auto", "messages": [{"role": "user", "content": "Hello?"}], "stream": True}
    while True:
        began = time.perf_counter()
        async with session.post("/v1/chat/completions", json=body) as response:
            assert response.status == 200
            await response.read()
        period.chat_ms.append((time.perf_counter() - began) * 1000)
        await asyncio.sleep(pause_s)


async def _measure(base: str, pid: int, operators: int, options: argparse.Namespace) -> Period:
    """Measure one period after a while of warming up."""
    warm_up, period = Period(), Period()
    pages = [(path, PAGES[path]) for path in options.pages]
    paths = [pages[number % len(pages)] for number in range(operators)]
    async with aiohttp.ClientSession(base, headers={"Authorization": f"Bearer {KEY}"}) as session:
        current = warm_up
        tasks = [asyncio.create_task(_chat(session, options.pause, current)) for _ in range(options.chats)]
        spread = max(PAGES.values())
        tasks += [
            asyncio.create_task(_refresh(base, path, every_s, spread * number / operators, current))
            for number, (path, every_s) in enumerate(paths)
        ]
        await asyncio.sleep(spread + 1)
        counted = len(current.chat_ms), len(current.refresh_ms), current.unchanged
        before, began = cpu_s(pid), time.perf_counter()
        await asyncio.sleep(options.seconds)
        period.cpu_percent = (cpu_s(pid) - before) / (time.perf_counter() - began) * 100
        period.chat_ms = current.chat_ms[counted[0] :]
        period.refresh_ms = current.refresh_ms[counted[1] :]
        period.refreshes, period.unchanged = len(period.refresh_ms), current.unchanged - counted[2]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return period


@asynccontextmanager
async def _served(directory: Path, llm_url: str, redis_url: str) -> AsyncIterator[tuple[str, int]]:
    port = free_port()
    variables = variables_for(
        directory, {"a": llm_url, "b": llm_url, "c": llm_url}, WEB_PORT=str(port), WEB_TOKEN=WORD,
        API_TOKENS=f"bench={KEY}", LIMIT_MESSAGES_PER_MINUTE="0", LIMIT_RUNNING_PER_USER="0", REDIS_URL=redis_url,
        LOG_LEVEL="critical",
    )  # fmt: skip
    async with child([sys.executable, "-m", "bot", "serve"], variables) as process:
        base = f"http://127.0.0.1:{port}"
        async with aiohttp.ClientSession(base) as session, asyncio.timeout(READY_S):
            while True:
                try:
                    async with session.get("/readyz") as response:
                        if response.status == 200:
                            break
                except aiohttp.ClientError:
                    pass
                await asyncio.sleep(0.3)
        yield base, process.pid


async def _run(options: argparse.Namespace) -> None:
    print(f"{machine()}; {options.chats} chats at once, {options.rounds} rounds of {options.seconds} s")
    periods: dict[int, list[Period]] = {0: [], options.operators: []}
    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        redis = RedisServer(directory)
        await redis.start()
        stack.push_async_callback(redis.stop)
        llm = await stack.enter_async_context(llm_process("--pieces", "40", "--pause", "0.01"))
        base, pid = await stack.enter_async_context(_served(directory / "data", llm.url, redis.url))
        for number in range(options.rounds):
            order = list(periods) if number % 2 == 0 else list(reversed(periods))
            for operators in order:
                periods[operators].append(await _measure(base, pid, operators, options))
        memory = rss_mib(pid)
    rows: list[list[str]] = []
    for operators, measured in periods.items():
        medians = [statistics.median(period.chat_ms) for period in measured]
        late = [statistics.quantiles(period.chat_ms, n=20)[-1] for period in measured]
        cpu = Spread.of([period.cpu_percent for period in measured])
        chats = sum(len(period.chat_ms) for period in measured) / options.seconds / options.rounds
        rows.append([
            str(operators), f"{cpu.text(1)} %", f"{chats:.0f}", Spread.of(medians).text(1), Spread.of(late).text(1)
        ])  # fmt: skip
    print_table(["operators", "CPU of one core", "chats a second", "a chat, ms", "95% of chats, ms"], rows)
    pairs = zip(periods[options.operators], periods[0], strict=True)
    costs = [
        (with_them.cpu_percent - without.cpu_percent) / 100 * options.seconds / with_them.refreshes * 1000
        for with_them, without in pairs
    ]
    polled = periods[options.operators]
    count = sum(period.refreshes for period in polled)
    took = [statistics.median(period.refresh_ms) for period in polled]
    unchanged = sum(period.unchanged for period in polled) / count * 100
    print(
        f"A refresh: {Spread.of(costs).text(1)} ms of CPU, {Spread.of(took).text(1)} ms to its answer; "
        f"{count / options.seconds / options.rounds:.0f} a second, {unchanged:.0f}% of them unchanged; "
        f"{memory:.0f} MiB in all."
    )


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pages", nargs="*", default=list(PAGES), help="addresses that are refreshed")
    parser.add_argument("--operators", type=int, default=50)
    parser.add_argument("--chats", type=int, default=4)
    parser.add_argument("--pause", type=float, default=0.2, help="seconds between two chats of a client")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--rounds", type=int, default=4)
    asyncio.run(_run(parser.parse_args()))


if __name__ == "__main__":
    main()
