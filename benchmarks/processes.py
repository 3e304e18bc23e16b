"""Child processes of the benchmarks: LLM servers, the daemon, and the programs it is compared with."""

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.support.processes.redis_server import free_port

ROOT = Path(__file__).parents[1]
READY_S = 60.0
PATIENCE_S = 900.0
LITELLM = {
    # Otherwise each import downloads a price list.
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    # By default requests beyond 500 connections per host wait.
    "AIOHTTP_CONNECTOR_LIMIT": "100000",
    "AIOHTTP_CONNECTOR_LIMIT_PER_HOST": "100000",
}


@asynccontextmanager
async def child(
    command: Sequence[str],
    environment: Mapping[str, str] | None = None,
    *,
    directory: Path = ROOT,
    stdin: int = DEVNULL,
    stdout: int = DEVNULL,
    stderr: int | None = None,
) -> AsyncIterator[Process]:
    """Run a process that is terminated on exit.

    Args:
        command: program and arguments.
        environment: variables in addition to PATH, HOME and LANG.
        directory: working directory; a bot reads an `.env` file there.
        stdin: as for `asyncio.create_subprocess_exec`.
        stdout: discarded by default.
        stderr: inherited by default, so that errors are visible.
    """
    inherited = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=directory,
        env={**inherited, "PYTHONPATH": str(ROOT), **(environment or {})},
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
            try:
                await asyncio.wait_for(process.wait(), 40)
            except TimeoutError:
                process.kill()
                await process.wait()


class LLMProcess:
    """An LLM server in a process of its own, so that its CPU time is not measured."""

    def __init__(self, process: Process, port: int) -> None:
        self._process = process
        self.url = f"http://127.0.0.1:{port}/v1"

    async def toggle(self) -> None:
        """Pause all answers halfway, or resume them."""
        await self._signal(signal.SIGUSR1)

    async def held(self) -> int:
        """Return the number of paused answers."""
        return await self._signal(signal.SIGUSR2)

    async def _signal(self, number: int) -> int:
        assert self._process.stdout is not None
        self._process.send_signal(number)
        return int(await self._process.stdout.readline())


@asynccontextmanager
async def llm_process(*options: str) -> AsyncIterator[LLMProcess]:
    """Run an LLM server with options of `benchmarks.llm`."""
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.llm", "--port", str(port), *options]
    async with child(command, stdout=PIPE) as process:
        await _wait_for_port(port)
        yield LLMProcess(process, port)


@asynccontextmanager
async def telegram_process() -> AsyncIterator[str]:
    """Run a Bot API server; yield its base URL."""
    port = free_port()
    async with child([sys.executable, "-m", "tests.support.fake_telegram.server", "--port", str(port)]):
        await _wait_for_port(port)
        yield f"http://127.0.0.1:{port}"


async def _wait_for_port(port: int) -> None:
    async with asyncio.timeout(READY_S):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.05)
                continue
            writer.close()
            return


class Contestant:
    """A program that does the same work, in a process of its own.

    Args:
        process: reads one JSON request per line and writes one line when it is done.
    """

    def __init__(self, process: Process) -> None:
        self.process = process

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    async def run(self, **request: object) -> dict[str, Any]:
        """Send a request and return the response."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(request).encode() + b"\n")
        await self.process.stdin.drain()
        return await self.read()

    async def read(self) -> dict[str, Any]:
        """Return its next line, parsed."""
        assert self.process.stdout is not None
        async with asyncio.timeout(PATIENCE_S):
            line = await self.process.stdout.readline()
        if not line:
            raise RuntimeError("a contestant ended; its errors are above")
        return json.loads(line)


@asynccontextmanager
async def contestant(script: str, *options: str, python: str = sys.executable) -> AsyncIterator[Contestant]:
    """Run a script of `benchmarks/contestants` with any interpreter, and wait until it is ready."""
    path = ROOT / "benchmarks" / "contestants" / f"{script}.py"
    async with child([python, str(path), *options], LITELLM, stdin=PIPE, stdout=PIPE) as process:
        rival = Contestant(process)
        await rival.read()
        yield rival
