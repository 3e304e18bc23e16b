"""Starts daemons quickly: a process that imports what they need once, and forks one for each order.

A forked process does what `python -m bot telegram` does, from `main` on; only the imports are done already, which take
seconds of CPU: a test that kills a daemon six times would spend its time on nothing else. Orders come as lines of JSON
on the standard input; pids and exit codes go out the same way.
"""

import asyncio
import contextlib
import importlib
import json
import os
import queue
import selectors
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]
IMPORTS = ("bot.__main__", "bot.composition.services", "bot.telegram.daemon", "dbos", "dbos._queue", "openai",
           "alembic.command", "pydantic_ai.models.openai", "pydantic_ai.providers.openai", "psycopg",
           "aiosqlite")  # fmt: skip


class Daemon:
    """A process of the bot, and what it has logged."""

    def __init__(self, pid: int, log: Path) -> None:
        self.pid = pid
        self._log = log
        self._exit: int | None = None

    @property
    def log(self) -> str:
        """Everything that it has logged."""
        return self._log.read_text() if self._log.exists() else ""

    def events(self, name: str) -> list[dict[str, Any]]:
        """The logged events of that name."""
        lines = [json.loads(line) for line in self.log.splitlines() if line.startswith("{") and line.endswith("}")]
        return [line for line in lines if line.get("event") == name]

    @property
    def is_alive(self) -> bool:
        return self._exit is None

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal; one that is gone is left in peace."""
        if self.is_alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    async def event(self, name: str, *, timeout_s: float = 30) -> dict[str, Any]:
        """Wait until it has logged an event of that name; the first one."""
        deadline = time.monotonic() + timeout_s
        while not (found := self.events(name)):
            if not self.is_alive or time.monotonic() > deadline:
                raise AssertionError(f"no {name} within {timeout_s} s, exit {self._exit}:\n{self.log[-3000:]}")
            await asyncio.sleep(0.02)
        return found[0]

    async def code(self, *, timeout_s: float = 40) -> int:
        """Wait until it ends; its exit code, negative where a signal ended it."""
        deadline = time.monotonic() + timeout_s
        while self._exit is None:
            if time.monotonic() > deadline:
                raise AssertionError(f"it does not end within {timeout_s} s:\n{self.log[-3000:]}")
            await asyncio.sleep(0.01)
        return self._exit

    def ended(self, code: int) -> None:
        """What the nursery says."""
        self._exit = code


class ForkServer:
    """The process that forks daemons, as seen from the one that wants them."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.processes.fork_server"],
            cwd=ROOT, env={"PATH": os.environ["PATH"]}, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        self._born: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._daemons: dict[int, Daemon] = {}
        self._codes: dict[int, int] = {}
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def close(self) -> None:
        """Kill what still runs, and end."""
        for daemon in self._daemons.values():
            daemon.signal(signal.SIGKILL)
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait()
        self._reader.join()
        if self._process.stdout is not None:
            self._process.stdout.close()

    async def daemon(
        self, environment: Mapping[str, str], directory: Path, log: Path, entry: str = "bot.__main__"
    ) -> Daemon:
        """Start one.

        Args:
            environment: all of its environment.
            directory: where it runs.
            log: the file that its output is added to.
            entry: the module whose `main` it runs.
        """
        if self._process.stdin is None:
            raise RuntimeError("the nursery has no input")
        order = {"environment": dict(environment), "directory": str(directory), "log": str(log), "entry": entry}
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        self._process.stdin.flush()
        pid = await asyncio.to_thread(self._born.get, timeout=60)
        daemon = self._daemons[pid] = Daemon(pid, log)
        if pid in self._codes:
            daemon.ended(self._codes[pid])
        return daemon

    def _read(self) -> None:
        for line in self._process.stdout or ():
            told = json.loads(line)
            if "born" in told:
                self._born.put(told["born"])
            else:
                self._codes[told["ended"]] = told["code"]
                if (daemon := self._daemons.get(told["ended"])) is not None:
                    daemon.ended(told["code"])


def _become(order: Mapping[str, Any]) -> None:
    """Be the daemon, in the forked process; does not return."""
    code = 70
    try:
        output = os.open(order["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.environ.clear()
        os.environ.update(order["environment"])
        os.chdir(order["directory"])
        code = importlib.import_module(order["entry"]).main(["telegram"])
    except BaseException:  # noqa: BLE001 - the interpreter would do the same, and there is none above
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _tell(**what: int) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def _bury() -> None:
    """Say who has ended."""
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            _tell(ended=pid, code=os.waitstatus_to_exitcode(status))


def main() -> None:
    """Fork daemons until the standard input ends."""
    for module in IMPORTS:
        importlib.import_module(module)
    wakes, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    selector = selectors.DefaultSelector()
    selector.register(0, selectors.EVENT_READ)
    selector.register(wakes, selectors.EVENT_READ)
    orders = b""
    while True:
        for key, _ in selector.select():
            data = os.read(key.fd, 65536)
            if key.fd == wakes:
                _bury()
            elif not data:
                return
            else:
                orders += data
        while b"\n" in orders:
            line, _, orders = orders.partition(b"\n")
            if (pid := os.fork()) == 0:
                _become(json.loads(line))
            _tell(born=pid)


if __name__ == "__main__":
    main()
