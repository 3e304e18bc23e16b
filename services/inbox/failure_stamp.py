"""Remembers over restarts that the operators were told about a queue that cannot work."""

from pathlib import Path

PAUSE_S = 1800.0
"""Time until they are told again while a supervisor keeps restarting the process."""


class FailureStamp:
    """A file whose age is the time since the last notice.

    Args:
        path: the file; it exists only after a failure.
        pause_s: time until another notice is due.
    """

    def __init__(self, path: Path, pause_s: float = PAUSE_S) -> None:
        self._path = path
        self._pause_s = pause_s

    def is_due(self, now: float) -> bool:
        """Return whether a notice is due at an instant of `Clock.time`; also where the file cannot be read."""
        try:
            return not 0 <= now - float(self._path.read_text()) < self._pause_s
        except (OSError, ValueError):
            return True

    def write(self, now: float) -> None:
        """Note that a notice was sent. A directory that is not writable costs a repeated notice."""
        try:
            self._path.touch(mode=0o600)
            self._path.write_text(str(now))
        except OSError:
            return
