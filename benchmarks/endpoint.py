"""The endpoint beside LiteLLM's proxy, over the same LLM server: `python -m benchmarks.endpoint --litellm PYTHON`.

Both run in processes of their own and are asked in turn by one client. Prints CPU and latency of a request, plain and
streamed, healthy and with the primary refusing connections, and resident memory.

    python -m benchmarks.endpoint --litellm /path/to/venv/bin/python --requests 100
"""

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from benchmarks.measuring import cpu_s, machine, print_table, rss_mib
from benchmarks.processes import LITELLM, child, llm_process
from tests.support.fake_llm.addresses import refusing_url
from tests.support.processes.redis_server import free_port
from tests.support.settings import variables_for

KEY = "sk-benchmark-0123456789"
READY_S = 120.0
WARM_UP = 20


@dataclass
class Contestant:
    """A running server, and its figures by case."""

    name: str
    url: str
    pid: int
    model: str
    cpu_ms: dict[str, float] = field(default_factory=dict)
    latency_ms: dict[str, float] = field(default_factory=dict)


async def _ask(session: aiohttp.ClientSession, target: Contestant, *, streamed: bool) -> None:
    body = {"model": target.model, "messages": [{"role": "user", "content": "Hello?"}], "stream": streamed}
    headers = {"Authorization": f"Bearer {KEY}"}
    async with session.post(f"{target.url}/chat/completions", json=body, headers=headers) as response:
        text = await response.text()
        if response.status != 200:
            raise RuntimeError(f"{target.name}: HTTP {response.status}: {text[:300]}")


async def _measure(session: aiohttp.ClientSession, target: Contestant, case: str, requests: int) -> None:
    streamed = case.startswith("streamed")
    for _ in range(WARM_UP):
        await _ask(session, target, streamed=streamed)
    took: list[float] = []
    before = cpu_s(target.pid)
    for _ in range(requests):
        began = time.perf_counter()
        await _ask(session, target, streamed=streamed)
        took.append(time.perf_counter() - began)
    target.cpu_ms[case] = (cpu_s(target.pid) - before) / requests * 1000
    target.latency_ms[case] = statistics.median(took) * 1000


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
            LOG_LEVEL="warning",
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


async def _run(options: argparse.Namespace) -> None:
    print(machine())
    cases = ("plain", "streamed")
    rows: list[list[str]] = []
    with refusing_url() as refused:
        async with llm_process("--pieces", str(options.pieces)) as llm, aiohttp.ClientSession() as session:
            for state, primary in (("healthy", llm.url), ("primary dead", refused)):
                providers = {"a": primary, "b": llm.url}
                async with AsyncExitStack() as stack:
                    targets = [await stack.enter_async_context(_understudy(providers))]
                    if options.litellm:
                        targets.append(await stack.enter_async_context(_litellm(options.litellm, providers)))
                    for target in targets:
                        await _wait_until_ready(session, target)
                    for case in cases:
                        for target in targets:
                            await _measure(session, target, case, options.requests)
                    rows += [
                        [target.name, state, case, f"{target.cpu_ms[case]:.1f}", f"{target.latency_ms[case]:.1f}",
                         f"{rss_mib(target.pid):.0f}"]
                        for case in cases for target in targets
                    ]  # fmt: skip
    print_table(["server", "state", "request", "CPU ms", "latency ms (median)", "MiB"], rows)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--litellm", metavar="PYTHON", help="an interpreter with litellm[proxy]; without it ours alone")
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--pieces", type=int, default=50, help="pieces of a streamed answer")
    asyncio.run(_run(parser.parse_args()))


if __name__ == "__main__":
    main()
