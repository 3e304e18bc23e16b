"""What stands beside a benchmark in processes of its own: LLM servers, the daemon, and rivals asked in turn."""

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
    # It would fetch a price list from the internet at each import.
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    # By default it opens 500 connections to a host, and further requests wait.
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
    """A process that ends with the block, with hardly anything in its environment but what is given.

    Args:
        command: what is run.
        environment: variables beside PATH, HOME and LANG.
        directory: where; a bot reads an `.env` there.
        stdin: as `asyncio.create_subprocess_exec` takes it, like the other two.
        stdout: nobody's by default.
        stderr: this process's own by default, so that what goes wrong is seen.
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
    """An LLM server in a process of its own, whose CPU time does not count.

    Args:
        process: the process.
        port: where it listens.
    """

    def __init__(self, process: Process, port: int) -> None:
        self._process = process
        self.url = f"http://127.0.0.1:{port}/v1"

    async def toggle(self) -> None:
        """Hold all answers in their middles from now on, or let them go."""
        await self._told(signal.SIGUSR1)

    async def held(self) -> int:
        """How many answers are held."""
        return await self._told(signal.SIGUSR2)

    async def _told(self, number: int) -> int:
        assert self._process.stdout is not None
        self._process.send_signal(number)
        return int(await self._process.stdout.readline())


@asynccontextmanager
async def llm_process(*options: str) -> AsyncIterator[LLMProcess]:
    """An LLM server that behaves as the options of `benchmarks.llm` say."""
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.llm", "--port", str(port), *options]
    async with child(command, stdout=PIPE) as process:
        await _listens(port)
        yield LLMProcess(process, port)


@asynccontextmanager
async def telegram_process() -> AsyncIterator[str]:
    """The base URL of a Bot API server in a process of its own."""
    port = free_port()
    async with child([sys.executable, "-m", "tests.support.fake_telegram.server", "--port", str(port)]):
        await _listens(port)
        yield f"http://127.0.0.1:{port}"


async def _listens(port: int) -> None:
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
    """A program that does the same work, in a process of its own, a line of JSON for each turn of it.

    Args:
        process: reads a request a line, and answers each with a line when it is done.
    """

    def __init__(self, process: Process) -> None:
        self.process = process

    @property
    def pid(self) -> int:
        """The id of its process."""
        return self.process.pid

    async def does(self, **request: object) -> dict[str, Any]:
        """Have it do something, and what it says about that."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(request).encode() + b"\n")
        await self.process.stdin.drain()
        return await self.answer()

    async def answer(self) -> dict[str, Any]:
        """Its next line."""
        assert self.process.stdout is not None
        async with asyncio.timeout(PATIENCE_S):
            line = await self.process.stdout.readline()
        if not line:
            raise RuntimeError("a contestant died; what it said stands above")
        return json.loads(line)


@asynccontextmanager
async def contestant(script: str, *options: str, python: str = sys.executable) -> AsyncIterator[Contestant]:
    """A script of `benchmarks/contestants`, by any interpreter, once it says that it is ready."""
    path = ROOT / "benchmarks" / "contestants" / f"{script}.py"
    async with child([python, str(path), *options], LITELLM, stdin=PIPE, stdout=PIPE) as process:
        rival = Contestant(process)
        await rival.answer()
        yield rival
