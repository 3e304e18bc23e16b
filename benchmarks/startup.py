"""Start-up time: the console to its prompt, the daemon to its first getUpdates, and imports."""

import argparse
import asyncio
import sys
import tempfile
import time
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from benchmarks.bot import environment
from benchmarks.measuring import Spread, cpu_s, machine, print_table, rss_mib
from benchmarks.processes import LITELLM, LLMProcess, child, llm_process
from tests.support.fake_telegram.server import TelegramServer
from tests.support.settings import variables_for

Start = Callable[[LLMProcess, Path], Awaitable[tuple[float, float, float]]]

READY = "; print(flush=True); input()"
ROUTER = (
    "import litellm; litellm.Router(model_list=[{'model_name': 'm', 'litellm_params': {'model': 'openai/m',"
    " 'api_base': 'http://127.0.0.1:1/v1', 'api_key': 'blocked'}}])"
)


async def console(llm: LLMProcess, directory: Path) -> tuple[float, float, float]:
    """Start the console; an empty line precedes its first prompt, on stderr since it is piped."""
    variables = variables_for(directory, {"a": llm.url})
    return await _measure_until_line([sys.executable, "-m", "bot", "console"], directory, variables, on_stderr=True)


async def daemon(llm: LLMProcess, directory: Path) -> tuple[float, float, float]:
    """Start the daemon and wait for its first poll."""
    async with TelegramServer() as telegram:
        began = time.perf_counter()
        variables = environment(telegram.url, llm.url, directory)
        command = [sys.executable, "-m", "bot", "telegram"]
        async with child(command, variables, directory=directory, stderr=DEVNULL) as process:
            await telegram.wait_for(lambda: telegram.polls, 60)
            return time.perf_counter() - began, cpu_s(process.pid), rss_mib(process.pid)


def run_code(text: str, python: str = sys.executable) -> Start:
    """Return the start of an interpreter that runs this code."""

    async def start(_llm: LLMProcess, directory: Path) -> tuple[float, float, float]:
        return await _measure_until_line([python, "-c", text + READY], directory, LITELLM)

    return start


async def _measure_until_line(
    command: list[str], directory: Path, variables: Any, *, on_stderr: bool = False
) -> tuple[float, float, float]:
    began = time.perf_counter()
    output, error = (DEVNULL, PIPE) if on_stderr else (PIPE, DEVNULL)
    async with child(command, variables, directory=directory, stdin=PIPE, stdout=output, stderr=error) as process:
        stream = process.stderr if on_stderr else process.stdout
        assert stream is not None
        while (line := await stream.readline()).strip():
            pass
        if not line:
            raise RuntimeError(f"{command} ended before it was ready")
        return time.perf_counter() - began, cpu_s(process.pid), rss_mib(process.pid)


async def main(rounds: int, litellm: str | None) -> None:
    """Start each program in turn, for a number of rounds."""
    print(f"{machine()}; {rounds} starts of each, in turns")
    starts: dict[str, Start] = {
        "`python -c pass`": run_code("pass"),
        "the console, to its prompt": console,
        "the daemon, to its first getUpdates": daemon,
        "`import pydantic_ai` and its OpenAI model": run_code("import pydantic_ai, pydantic_ai.models.openai"),
        "`import aiogram`": run_code("import aiogram"),
    }
    if litellm is not None:
        starts["`import litellm`"] = run_code("import litellm", litellm)
        starts["LiteLLM's router, made"] = run_code(ROUTER, litellm)
    else:
        print("LiteLLM is left out: pass an interpreter that has it (--litellm /path/to/python)")
    figures: dict[str, list[tuple[float, float, float]]] = {name: [] for name in starts}
    async with llm_process() as llm:
        for number in range(-1, rounds):
            for name, start in starts.items():
                with tempfile.TemporaryDirectory() as directory:
                    figure = await start(llm, Path(directory))
                if number >= 0:  # the first round warms the disk cache
                    figures[name].append(figure)
    rows: list[list[str]] = []
    for name, measured in figures.items():
        wall, cpu, memory = (Spread.of(column) for column in zip(*measured, strict=True))
        rows.append([name, f"{wall.text()} s", f"{cpu.text()} s", f"{memory.median:.0f} MiB"])
    print_table(["start", "time", "CPU", "memory"], rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--litellm", help="an interpreter that has LiteLLM installed")
    options = parser.parse_args()
    asyncio.run(main(options.rounds, options.litellm))
