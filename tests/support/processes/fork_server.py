"""Starts daemons quickly: a process imports their modules once and forks one per command.

A forked process runs the daemon's `main`; only the imports, which take seconds of CPU, are done already. A test that
kills a daemon six times would otherwise spend its time on importing. Commands arrive on standard input as lines of
JSON; pids and exit codes are written to standard output in the same form.
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
    """A process of the bot and its log."""

    def __init__(self, pid: int, log: Path) -> None:
        self.pid = pid
        self._log = log
        self._exit: int | None = None

    @property
    def log(self) -> str:
        """Everything logged so far."""
        return self._log.read_text() if self._log.exists() else ""

    def events(self, name: str) -> list[dict[str, Any]]:
        """Return the logged events of that name."""
        lines = [json.loads(line) for line in self.log.splitlines() if line.startswith("{") and line.endswith("}")]
        return [line for line in lines if line.get("event") == name]

    @property
    def is_alive(self) -> bool:
        return self._exit is None

    @property
    def peak_memory_kib(self) -> int:
        """The most memory that the process has held."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")))

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, unless the process has ended."""
        if self.is_alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    async def wait_for_event(self, name: str, *, timeout_s: float = 30) -> dict[str, Any]:
        """Wait for the first event of that name and return it."""
        deadline = time.monotonic() + timeout_s
        while not (found := self.events(name)):
            if not self.is_alive or time.monotonic() > deadline:
                raise AssertionError(f"no event {name} within {timeout_s} s, exit {self._exit}:\n{self.log[-3000:]}")
            await asyncio.sleep(0.02)
        return found[0]

    async def wait_for_exit(self, *, timeout_s: float = 40) -> int:
        """Wait for the process to end; return its exit code, negative after a signal."""
        deadline = time.monotonic() + timeout_s
        while self._exit is None:
            if time.monotonic() > deadline:
                raise AssertionError(f"the daemon did not end within {timeout_s} s:\n{self.log[-3000:]}")
            await asyncio.sleep(0.01)
        return self._exit

    def set_exit(self, code: int) -> None:
        """Record the exit code; called by the fork server."""
        self._exit = code


class ForkServer:
    """Client of the process that forks daemons."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.processes.fork_server"],
            cwd=ROOT, env={"PATH": os.environ["PATH"]}, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        self._started: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._daemons: dict[int, Daemon] = {}
        self._codes: dict[int, int] = {}
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def close(self) -> None:
        """Kill all daemons and the server."""
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
        """Start a daemon.

        Args:
            environment: its complete environment.
            directory: its working directory.
            log: file that its output is appended to.
            entry: module that provides `main`.
        """
        if self._process.stdin is None:
            raise RuntimeError("the fork server has no standard input")
        command = {"environment": dict(environment), "directory": str(directory), "log": str(log), "entry": entry}
        self._process.stdin.write(json.dumps(command).encode() + b"\n")
        self._process.stdin.flush()
        pid = await asyncio.to_thread(self._started.get, timeout=60)
        daemon = self._daemons[pid] = Daemon(pid, log)
        if pid in self._codes:
            daemon.set_exit(self._codes[pid])
        return daemon

    def _read(self) -> None:
        for line in self._process.stdout or ():
            message = json.loads(line)
            if "started" in message:
                self._started.put(message["started"])
            else:
                self._codes[message["ended"]] = message["code"]
                if (daemon := self._daemons.get(message["ended"])) is not None:
                    daemon.set_exit(message["code"])


def _run_daemon(command: Mapping[str, Any]) -> None:
    """Run the daemon in the forked process; does not return."""
    code = 70
    try:
        output = os.open(command["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.environ.clear()
        os.environ.update(command["environment"])
        os.chdir(command["directory"])
        code = importlib.import_module(command["entry"]).main(["telegram"])
    except BaseException:  # noqa: BLE001 - as the interpreter does at top level
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _send(**fields: int) -> None:
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


def _report_exits() -> None:
    """Report the daemons that have ended."""
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            _send(ended=pid, code=os.waitstatus_to_exitcode(status))


def main() -> None:
    """Fork daemons until standard input ends."""
    for module in IMPORTS:
        importlib.import_module(module)
    wakes, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    selector = selectors.DefaultSelector()
    selector.register(0, selectors.EVENT_READ)
    selector.register(wakes, selectors.EVENT_READ)
    buffer = b""
    while True:
        for key, _ in selector.select():
            data = os.read(key.fd, 65536)
            if key.fd == wakes:
                _report_exits()
            elif not data:
                return
            else:
                buffer += data
        while b"\n" in buffer:
            line, _, buffer = buffer.partition(b"\n")
            if (pid := os.fork()) == 0:
                _run_daemon(json.loads(line))
            _send(started=pid)


if __name__ == "__main__":
    main()
