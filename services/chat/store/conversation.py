"""Threads of a chat and their turns."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import cast

import structlog
from pydantic_ai.messages import ModelRequest
from sqlalchemy import ColumnElement, Table

from core.db.tables import ThreadRow, TurnRow
from core.messages import ConversationKey

log = structlog.get_logger()

THREADS = cast("Table", ThreadRow.__table__)
TURNS = cast("Table", TurnRow.__table__)


class TurnStatus(StrEnum):
    """State of a turn."""

    RUNNING = "running"
    """Saved and not answered yet; stays so when the process dies."""
    COMPLETE = "complete"
    STOPPED = "stopped"
    """Stopped by the user; the text so far counts."""
    INTERRUPTED = "interrupted"
    """Cut off by the provider or a shutdown; the text so far counts."""
    FAILED = "failed"
    """No provider answered: the prompt is kept for Retry and not sent to a model again."""
    SUPERSEDED = "superseded"
    """Replaced by another turn."""


ANSWERED = frozenset({TurnStatus.COMPLETE, TurnStatus.STOPPED, TurnStatus.INTERRUPTED})
"""Turns that are part of the history sent to a model."""


@dataclass(frozen=True, slots=True)
class Thread:
    """One conversation of a chat or topic."""

    id: int
    key: ConversationKey
    name: str | None
    created_at: datetime
    persona: str | None = None
    """Stored form; None: the chat's own."""
    names_topic: bool = False
    """True if its topic, in a private chat, takes its name."""


@dataclass(frozen=True, slots=True)
class Turn:
    """A prompt and its answer.

    Args:
        prompt: the user's message with its files; None if the stored form is unreadable.
        replaces_id: the turn that this one replaces once it is answered.
        answer_ids: ids of the messages that hold the answer, oldest first.
        origin: id of the job that it answers, if any.
        question_id: the message with the prompt, if the surface numbers messages.
    """

    id: int
    thread: Thread
    status: TurnStatus
    speaker_id: int
    created_at: datetime
    prompt: ModelRequest | None
    replaces_id: int | None = None
    provider: str | None = None
    model: str | None = None
    answer_ids: tuple[int, ...] = ()
    origin: str | None = None
    question_id: int | None = None

    @property
    def id_to_replace(self) -> int:
        """The turn that a Retry of this one replaces: this one, or the one that it failed to replace itself."""
        is_open = self.status in {TurnStatus.RUNNING, TurnStatus.FAILED}
        return self.replaces_id if is_open and self.replaces_id is not None else self.id


def key_conditions(key: ConversationKey) -> list[ColumnElement[bool]]:
    """Returns the conditions that select the threads of a chat or topic."""
    return [
        ThreadRow.surface == key.surface,
        ThreadRow.chat_id == key.chat_id,
        ThreadRow.topic_id == key.topic_id,
    ]
