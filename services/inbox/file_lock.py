"""Exclusive lock on a file: one process per data directory."""

import fcntl
from pathlib import Path
from typing import IO

import structlog

from core.clock import Clock
from core.errors import StartupError

log = structlog.get_logger()

WAIT_S = 35.0
"""Longest wait for a previous process that is still finishing its replies."""
RETRY_S = 1.0


class FileLock:
    """Advisory lock that the operating system releases when the process dies.

    Args:
        path: the lock file, created if missing.
        clock: measures the wait.
        wait_s: how long to wait for another holder.
    """

    def __init__(self, path: Path, clock: Clock, *, wait_s: float = WAIT_S) -> None:
        self._path = path
        self._clock = clock
        self._wait_s = wait_s
        self._file: IO[bytes] | None = None

    async def acquire(self) -> None:
        """Acquire the lock, waiting for a holder that may be about to exit.

        Raises:
            StartupError: the file cannot be locked, or its holder does not release it in time.
        """
        try:
            file = self._path.open("ab")
        except OSError as error:
            raise StartupError(f"DATA_DIR: {self._path} cannot be opened: {error.strerror}") from error
        try:
            await self._lock(file)
        except BaseException:
            file.close()
            raise
        self._file = file

    def release(self) -> None:
        """Release the lock. Safe to call twice."""
        if self._file is not None:
            self._file.close()
            self._file = None

    async def _lock(self, file: IO[bytes]) -> None:
        deadline = self._clock.monotonic() + self._wait_s
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if self._clock.monotonic() >= deadline:
                    raise StartupError(
                        f"DATA_DIR: another process of the bot uses {self._path.parent}; stop it, give this one "
                        "another folder, or share a database: DATABASE_URL=postgresql://user:password@host:5432/name"
                    ) from None
                log.info("inbox.waiting_for_lock", detail="another process uses DATA_DIR")
                await self._clock.sleep(RETRY_S)
            except OSError as error:
                raise StartupError(f"DATA_DIR: {self._path} cannot be locked: {error.strerror}") from error
            else:
                return
