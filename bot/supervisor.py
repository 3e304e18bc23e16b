"""Runs `python -m bot` and starts it again after a crash: `python -m bot.supervisor [telegram | console | ...]`.

Standard library only. A configuration error and an ordinary end are passed on; a crash (`CRASHED`, or a signal such as
SIGKILL or SIGSEGV) is followed by a restart after a growing pause.
"""

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import FrameType

CRASHED = 70
"""Exit code of a bug that ended the daemon (EX_SOFTWARE of sysexits.h)."""
STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@dataclass(frozen=True, slots=True)
class RestartTiming:
    """Pauses between restarts, in seconds.

    Args:
        first_s: delay after the first crash, doubled after each further one.
        longest_s: upper bound of a pause.
        healthy_s: uptime after which the delays are reset.
    """

    first_s: float = 1.0
    longest_s: float = 60.0
    healthy_s: float = 600.0


class Supervisor:
    """Runs one command until it ends other than by a crash.

    Args:
        command: the program and its arguments.
        report: receives a line for the operator before each restart.
    """

    def __init__(
        self,
        command: Sequence[str],
        timing: RestartTiming | None = None,
        report: Callable[[str], object] = lambda line: sys.stderr.write(f"{line}\n"),
    ) -> None:
        self._command = list(command)
        self._timing = timing or RestartTiming()
        self._report = report
        self._child: subprocess.Popen[bytes] | None = None
        self._stopped = threading.Event()

    def stop(self, signum: int, _frame: FrameType | None = None) -> None:
        """Passes a signal on to the child and restarts it no more."""
        self._stopped.set()
        # Ctrl-C reaches the whole group of the terminal, the child included.
        if self._child is not None and self._child.poll() is None and signum != signal.SIGINT:
            self._child.send_signal(signum)

    def run(self) -> int:
        """Runs the command, again after each crash. Returns its exit code."""
        crashes = 0
        while True:
            began = time.monotonic()
            self._child = subprocess.Popen(self._command)  # noqa: S603 - our own program
            code = self._child.wait()
            if self._stopped.is_set() or not is_crash(code):
                return code if code >= 0 else 128 - code
            if time.monotonic() - began >= self._timing.healthy_s:
                crashes = 0
            pause_s = min(self._timing.first_s * 2**crashes, self._timing.longest_s)
            crashes += 1
            self._report(f"The bot ended by a crash ({describe_code(code)}); it starts again in {pause_s:g} s.")
            if self._stopped.wait(pause_s):
                return code if code >= 0 else 128 - code


def is_crash(code: int) -> bool:
    """Returns whether an exit code is that of a bug, or of a signal that no operator sends to stop a program."""
    return code == CRASHED or (code < 0 and -code not in STOPPING)


def describe_code(code: int) -> str:
    """Returns the name of the signal that ended a process, or its exit code."""
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"exit code {code}"


def main() -> int:
    """Runs the bot with the arguments of the command line."""
    supervisor = Supervisor([sys.executable, "-m", "bot", *sys.argv[1:]])
    for signum in STOPPING:
        signal.signal(signum, supervisor.stop)
    return supervisor.run()


if __name__ == "__main__":
    sys.exit(main())
