"""The event loop of the programs: uvloop, with enough threads to look host names up."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bot.event_loop import LOOK_UPS, run

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
LOOK_UP = """
import asyncio, os
from bot.event_loop import run

async def look_up():
    before = len(os.listdir("/proc/self/task"))
    await asyncio.get_running_loop().getaddrinfo("localhost", 80)
    return len(os.listdir("/proc/self/task")) - before

print(run(look_up()))
"""


def test_run_returns_the_exit_code_of_a_program_on_uvloop() -> None:
    async def program() -> int:
        return 7 if type(asyncio.get_running_loop()).__module__ == "uvloop" else 1

    assert run(program()) == 7


def test_run_passes_an_interrupt_on_to_the_program() -> None:
    """Ctrl-C cancels the program, which cleans up, and ends `run`."""
    seen: list[str] = []

    async def program() -> int:
        asyncio.get_running_loop().call_soon(os.kill, os.getpid(), signal.SIGINT)
        try:
            await asyncio.sleep(30)
        finally:
            seen.append("cleaned up")
        return 0

    with pytest.raises(KeyboardInterrupt):
        run(program())
    assert seen == ["cleaned up"]


def test_names_are_looked_up_by_more_threads_than_a_few_silent_name_servers_hold() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "UV_THREADPOOL_SIZE"}
    threads = subprocess.check_output([sys.executable, "-c", LOOK_UP], cwd=ROOT, text=True, env=environment)
    assert int(threads) >= 2 * LOOK_UPS, "libuv looks names up in half of its threads"
