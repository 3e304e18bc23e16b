"""Write-ahead journal of sends: which messages of an answer may exist although the database does not know them.

A send is noted before it is made, and its result in the same step of the event loop in which Telegram's response is
read. Both survive `kill -9`, unlike a transaction that is still waiting for its commit. The process that resumes the
answer continues in a noted message, and looks for one whose send had begun without a result.
"""

import json
import os
from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import structlog

log = structlog.get_logger()

MAX_FILE_BYTES = 1 << 20
"""Size from which the journal is rewritten without the answers that are delivered."""


@dataclass(frozen=True, slots=True)
class PendingSend:
    """A send of one page of an answer.

    Args:
        floor: newest message id that was known in the chat before the send: the message has a higher one.
        shared_floor: newest id known over all private chats, which share one counter; 0 in a group.
        message_id: id of the message; None if the result is unknown.
    """

    floor: int
    shared_floor: int
    message_id: int | None = None


class SendJournal(Protocol):
    """Notes sends. `begin`, `accept` and `close` return at once and never fail: a lost note may double a message."""

    def begin(self, turn_id: int, page: int, send: PendingSend) -> None:
        """Note a send before it is made."""
        ...

    def accept(self, turn_id: int, page: int, message_id: int) -> None:
        """Note that a message was accepted."""
        ...

    def close(self, turn_id: int) -> None:
        """Forget a turn whose answer is delivered and recorded."""
        ...

    async def load(self, turn_id: int) -> Mapping[int, PendingSend]:
        """Return the sends of an earlier attempt at a turn, by page; empty where they cannot be read."""
        ...


class FileSendJournal:
    """Journal in a file, for a single process. Nothing is synced: a killed process loses no write, a power cut may.

    Args:
        path: the file, created if missing.
        max_bytes: size from which it is rewritten.
    """

    def __init__(self, path: Path, max_bytes: int = MAX_FILE_BYTES) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._sends = _read(path)
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._size = os.fstat(self._file).st_size
        self._rewrite()

    def begin(self, turn_id: int, page: int, send: PendingSend) -> None:
        """Note a send before it is made."""
        self._sends[turn_id][page] = send
        self._append([turn_id, page, send.floor, send.shared_floor, send.message_id])

    def accept(self, turn_id: int, page: int, message_id: int) -> None:
        """Note that a message was accepted."""
        begun = self._sends[turn_id].get(page, PendingSend(0, 0))
        self.begin(turn_id, page, PendingSend(begun.floor, begun.shared_floor, message_id))

    def close(self, turn_id: int) -> None:
        """Forget a turn whose answer is delivered and recorded."""
        if self._sends.pop(turn_id, None) is not None:
            self._append([turn_id])
        if self._size > self._max_bytes:
            self._rewrite()

    async def load(self, turn_id: int) -> Mapping[int, PendingSend]:
        """Return the sends of an earlier attempt at a turn, by page."""
        return dict(self._sends.get(turn_id, {}))

    def shut(self) -> None:
        """Close the file."""
        os.close(self._file)

    def _append(self, entry: list[int | None]) -> None:
        line = json.dumps(entry).encode() + b"\n"
        with suppress(OSError):
            # A full disk: the database, which then fails too, says so.
            self._size += os.write(self._file, line)

    def _rewrite(self) -> None:
        lines = [
            json.dumps([turn_id, page, send.floor, send.shared_floor, send.message_id])
            for turn_id, pages in self._sends.items()
            for page, send in pages.items()
        ]
        draft = self._path.with_suffix(".new")
        try:
            draft.touch(mode=0o600)
            draft.write_text("".join(f"{line}\n" for line in lines))
            draft.replace(self._path)
            os.close(self._file)
            self._file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            self._size = os.fstat(self._file).st_size
        except OSError as error:
            log.warning("inbox.journal_not_rewritten", error=error.strerror)


def _read(path: Path) -> defaultdict[int, dict[int, PendingSend]]:
    """Read the journal of the previous process; a line that was cut off is skipped."""
    sends: defaultdict[int, dict[int, PendingSend]] = defaultdict(dict)
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError:
        return sends
    for line in lines:
        with suppress(ValueError, TypeError):
            entry: Any = json.loads(line)  # Any: checked by its unpacking
            if len(entry) == 1:
                sends.pop(entry[0], None)
            else:
                turn_id, page, floor, shared_floor, message_id = entry
                sends[turn_id][page] = PendingSend(floor, shared_floor, message_id)
    return sends
