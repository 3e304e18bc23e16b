"""What a conversation is made of: threads, and turns in them."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from pydantic_ai.messages import ModelRequest

from core.messages import ConversationKey


class TurnStatus(StrEnum):
    """What became of a turn."""

    RUNNING = "running"
    """Saved, not answered yet; stays so when the process dies."""
    COMPLETE = "complete"
    STOPPED = "stopped"
    """The user pressed Stop: what was said till then counts."""
    INTERRUPTED = "interrupted"
    """The provider or a shutdown broke it off: what was said till then counts."""
    FAILED = "failed"
    """Nobody answered: the prompt is kept for Retry, and no model hears of it."""
    SUPERSEDED = "superseded"
    """Another turn took its place."""


ANSWERED = frozenset({TurnStatus.COMPLETE, TurnStatus.STOPPED, TurnStatus.INTERRUPTED})
"""The turns that a model is told again."""


@dataclass(frozen=True, slots=True)
class Thread:
    """One conversation of a chat or topic."""

    id: int
    key: ConversationKey
    name: str | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Turn:
    """One prompt and what became of it.

    Args:
        prompt: the user's message with its files; None where what is stored cannot be read any more.
        replaces_id: the turn whose place this one takes once it is answered.
        answer_ids: the messages on the surface that hold the answer, oldest first.
        origin: the job that it answers, where there is one.
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
