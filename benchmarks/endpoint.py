"""The endpoint beside LiteLLM's proxy, over the same LLM server: `python -m benchmarks.endpoint --litellm PYTHON`.

Both run in processes of their own and are asked in turn by one client. Prints CPU and added latency of a request, plain
and streamed, healthy and with the primary refusing connections, resident memory, requests a second, a crowd of clients.

    python -m benchmarks.endpoint --litellm /path/to/venv/bin/python
"""

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from benchmarks.measuring import Spread, cpu_s, machine, print_table, rss_mib
from benchmarks.processes import LITELLM, child, llm_process
from tests.support.fake_llm.addresses import refusing_url
from tests.support.processes.redis_server import free_port
from tests.support.settings import variables_for

KEY = "sk-benchmark-0123456789"
READY_S = 120.0
WARM_UP = 20
LONGEST_S = 8.0
"""Seconds after which the requests of a round end."""
CASES = ("plain", "streamed")


@dataclass
class Contestant:
    """A running server, and its figures of each round by case."""

    name: str
    url: str
    pid: int
    model: str
    cpu_ms: dict[str, list[float]] = field(default_factory=dict[str, list[float]])
    latency_ms: dict[str, list[float]] = field(default_factory=dict[str, list[float]])
    per_s: list[float] = field(default_factory=list[float])
    waits_s: list[float] = field(default_factory=list[float])
    """Waiting times of the clients of the crowd that were answered."""


async def _ask(session: aiohttp.ClientSession, target: Contestant, *, streamed: bool) -> None:
    body = {"model": target.model, "messages": [{"role": "user", "content": "Hello?"}], "stream": streamed}
    headers = {"Authorization": f"Bearer {KEY}"}
    async with session.post(f"{target.url}/chat/completions", json=body, headers=headers) as response:
        text = await response.text()
        if response.status != 200:
            raise RuntimeError(f"{target.name}: HTTP {response.status}: {text[:300]}")


async def _measure(session: aiohttp.ClientSession, target: Contestant, case: str, requests: int) -> None:
    streamed = case.startswith("streamed")
    took: list[float] = []
    before = cpu_s(target.pid)
    while len(took) < requests and sum(took) < LONGEST_S:
        began = time.perf_counter()
        await _ask(session, target, streamed=streamed)
        took.append(time.perf_counter() - began)
    target.cpu_ms.setdefault(case, []).append((cpu_s(target.pid) - before) / len(took) * 1000)
    target.latency_ms.setdefault(case, []).append(statistics.median(took) * 1000)


async def _measure_load(session: aiohttp.ClientSession, target: Contestant, requests: int) -> None:
    """Measure plain requests a second, 16 at once; each server has one process."""
    left = iter(range(requests))

    async def work() -> None:
        for _ in left:
            await _ask(session, target, streamed=False)

    began = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(16)))
    target.per_s.append(requests / (time.perf_counter() - began))


async def _measure_crowd(session: aiohttp.ClientSession, target: Contestant, clients: int) -> None:
    """Ask by that many clients at one instant, half of them streamed."""
    began = time.perf_counter()

    async def ask(number: int) -> None:
        await _ask(session, target, streamed=number % 2 == 0)
        target.waits_s.append(time.perf_counter() - began)

    for failure in await asyncio.gather(*map(ask, range(clients)), return_exceptions=True):
        if isinstance(failure, BaseException):
            print(f"{target.name}: {failure!r}"[:200])


async def _wait_until_ready(session: aiohttp.ClientSession, target: Contestant) -> None:
    async with asyncio.timeout(READY_S):
        while True:
            try:
                await _ask(session, target, streamed=False)
            except (aiohttp.ClientError, RuntimeError):
                await asyncio.sleep(0.5)
            else:
                return


@asynccontextmanager
async def _understudy(providers: Mapping[str, str]) -> AsyncIterator[Contestant]:
    port = free_port()
    with tempfile.TemporaryDirectory() as directory:
        variables = variables_for(
            Path(directory), providers, WEB_PORT=str(port), API_TOKENS=f"bench={KEY}", LIMIT_MESSAGES_PER_MINUTE="0",
            LIMIT_RUNNING_PER_USER="0", LOG_LEVEL="warning",
        )  # fmt: skip
        async with child([sys.executable, "-m", "bot", "serve"], variables) as process:
            yield Contestant("Understudy", f"http://127.0.0.1:{port}/v1", process.pid, "auto")


@asynccontextmanager
async def _litellm(python: str, providers: Mapping[str, str]) -> AsyncIterator[Contestant]:
    port = free_port()
    entries = [
        {"model_name": name, "litellm_params": {"model": "openai/m", "api_base": url, "api_key": "none"}}
        for name, url in providers.items()
    ]
    names = list(providers)
    config = {
        "model_list": entries,
        "router_settings": {"fallbacks": [{names[0]: names[1:]}], "num_retries": 1},
        "general_settings": {"master_key": KEY},
    }
    with tempfile.TemporaryDirectory() as directory:
        # JSON is YAML.
        path = Path(directory) / "config.yaml"
        path.write_text(json.dumps(config))
        command = [python, "-m", "litellm.proxy.proxy_cli", "--config", str(path), "--port", str(port)]
        async with child([*command, "--host", "127.0.0.1", "--num_workers", "1"], LITELLM) as process:
            yield Contestant("LiteLLM's proxy", f"http://127.0.0.1:{port}/v1", process.pid, names[0])


def _session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=120))


async def _run(options: argparse.Namespace) -> None:
    print(machine())
    rows: list[list[str]] = []
    with refusing_url() as refused:
        async with (
            llm_process("--pieces", str(options.pieces)) as llm,
            _session() as session,
        ):
            for state, primary in (("healthy", llm.url), ("primary dead", refused)):
                providers = {"a": primary, "b": llm.url}
                async with AsyncExitStack() as stack:
                    targets = [await stack.enter_async_context(_understudy(providers))]
                    if options.litellm:
                        targets.append(await stack.enter_async_context(_litellm(options.litellm, providers)))
                    direct = Contestant("no proxy", llm.url, os.getpid(), "m")
                    for target in targets:
                        await _wait_until_ready(session, target)
                    is_healthy = state == "healthy"
                    await _measure_rounds(session, [direct, *targets], options, is_healthy=is_healthy)
                    rows += [_row(target, targets[-1], direct, state, case) for case in CASES for target in targets]
                    if is_healthy:
                        for target in targets:
                            print(_describe(target, options.clients))
    print_table(["server", "state", "request", "CPU ms", "of LiteLLM's", "added latency ms", "MiB"], rows)


async def _measure_rounds(
    session: aiohttp.ClientSession,
    targets: Sequence[Contestant],
    options: argparse.Namespace,
    *,
    is_healthy: bool,
) -> None:
    for target in targets:
        for _ in range(WARM_UP if is_healthy else 1):
            await _ask(session, target, streamed=False)
            await _ask(session, target, streamed=True)
    for _ in range(options.rounds):
        for case in CASES:
            for target in targets:
                await _measure(session, target, case, options.requests)
        if is_healthy:
            for target in targets[1:]:
                await _measure_load(session, target, options.requests * 4)
    if is_healthy and options.clients:
        for target in targets[1:]:
            await _measure_crowd(session, target, options.clients)


def _row(target: Contestant, last: Contestant, direct: Contestant, state: str, case: str) -> list[str]:
    ratios = [mine / its for mine, its in zip(target.cpu_ms[case], last.cpu_ms[case], strict=True)]
    added = [mine - its for mine, its in zip(target.latency_ms[case], direct.latency_ms[case], strict=True)]
    return [
        target.name, state, case, Spread.of(target.cpu_ms[case]).text(1), Spread.of(ratios).text(),
        Spread.of(added).text(1),
        f"{rss_mib(target.pid):.0f}",
    ]  # fmt: skip


def _describe(target: Contestant, clients: int) -> str:
    """Return the figures of load: requests a second, and the crowd."""
    waits = sorted(target.waits_s) or [0.0]
    return (
        f"{target.name}: {Spread.of(target.per_s).text(0)} plain requests a second; of {clients} clients at once "
        f"{len(target.waits_s)} answered, waits median {statistics.median(waits):.1f} s, "
        f"95% {waits[int(len(waits) * 0.95) - 1]:.1f} s, last {waits[-1]:.1f} s"
    )


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--litellm", metavar="PYTHON", help="an interpreter with litellm[proxy]; without it ours alone")
    parser.add_argument("--requests", type=int, default=100, help="in each round")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--clients", type=int, default=1000, help="at one instant")
    parser.add_argument("--pieces", type=int, default=50, help="pieces of a streamed answer")
    asyncio.run(_run(parser.parse_args()))


if __name__ == "__main__":
    main()
