"""The supervisor: restarts after a crash, none after anything else, and signals that are passed on."""

import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from bot.__main__ import run_process
from bot.supervisor import CRASHED, RestartTiming, Supervisor, is_crash

pytestmark = pytest.mark.integration

QUICK = RestartTiming(first_s=0.01, longest_s=0.04)


def command(tmp_path: Path, *codes: str) -> list[str]:
    """Return a command that ends with these codes in turn; `kill` ends it by a signal."""
    (tmp_path / "codes").write_text("\n".join(codes))
    script = """
import os, pathlib, sys
path = pathlib.Path(sys.argv[1]); first, *rest = path.read_text().split(); path.write_text(" ".join(rest))
os.kill(os.getpid(), 9) if first == "kill" else sys.exit(int(first))
"""
    return [sys.executable, "-c", script, str(tmp_path / "codes")]


def test_supervisor_restarts_after_crashes_with_growing_pauses(tmp_path: Path) -> None:
    lines: list[str] = []
    crashes = [str(CRASHED), "kill", str(CRASHED), str(CRASHED)]
    assert Supervisor(command(tmp_path, *crashes, "0"), QUICK, lines.append).run() == 0
    assert [line.partition("again in ")[2] for line in lines] == ["0.01 s.", "0.02 s.", "0.04 s.", "0.04 s."]
    assert "(SIGKILL)" in lines[1]


@pytest.mark.parametrize("code", ["0", "1", "2", "130"])
def test_supervisor_passes_other_codes_on(tmp_path: Path, code: str) -> None:
    """1 is a configuration error, which no restart mends."""
    assert Supervisor(command(tmp_path, code, "0"), QUICK).run() == int(code)
    assert (tmp_path / "codes").read_text() == "0"


def test_supervisor_passes_a_signal_on_and_does_not_restart() -> None:
    supervisor = Supervisor([sys.executable, "-c", "import time; time.sleep(60)"], QUICK)

    def stop() -> None:
        while supervisor._child is None:
            time.sleep(0.01)
        supervisor.stop(signal.SIGTERM)

    threading.Thread(target=stop).start()
    assert supervisor.run() == 128 + signal.SIGTERM


def test_supervisor_stops_during_a_pause(tmp_path: Path) -> None:
    supervisor = Supervisor(
        command(tmp_path, str(CRASHED), "0"), RestartTiming(first_s=60), lambda _: supervisor.stop(signal.SIGTERM)
    )
    assert supervisor.run() == CRASHED
    assert (tmp_path / "codes").read_text() == "0"


def test_is_crash_knows_bugs_and_signals() -> None:
    assert is_crash(CRASHED)
    assert is_crash(-signal.SIGSEGV)
    assert not is_crash(1)
    assert not is_crash(-signal.SIGTERM)


def test_bug_ends_the_process_as_a_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reported by the hook, and told from a configuration error by its code."""
    reported: list[object] = []

    def fail() -> int:
        raise RuntimeError("a bug")

    monkeypatch.setattr("bot.__main__.main", fail)
    monkeypatch.setattr(sys, "excepthook", lambda kind, *_: reported.append(kind))
    assert run_process() == CRASHED
    assert reported == [RuntimeError]
