"""Tools of the agent: the time, and notes about the user."""

from dataclasses import dataclass
from typing import Protocol
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import structlog
from pydantic_ai import Agent, ModelRetry, RunContext

from core.clock import Clock
from core.errors import StorageError
from core.messages import ChatKind, ConversationKey

log = structlog.get_logger()


class NoteStore(Protocol):
    """Notes about a user, separate per chat."""

    async def remember(self, user_id: int, scope: str, text: str) -> None:
        """Store a note."""
        ...

    async def recall(self, user_id: int, scope: str) -> list[str]:
        """Return the notes, oldest first."""
        ...


@dataclass(frozen=True, slots=True)
class TurnContext:
    """Context of a turn for instructions and tools.

    Args:
        notes: keyed by `scope`, so that notes of a private chat stay out of groups.
        scope: the chat, such as `telegram:123`.
        chat_title: the name of a group.
        language: the user's language as an IETF tag, if known.
        origin: id of the job, if any; the same when the job is repeated after a crash.
    """

    clock: Clock
    notes: NoteStore
    user_id: int
    user_name: str
    scope: str
    chat_kind: ChatKind
    conversation: ConversationKey
    chat_title: str | None = None
    language: str | None = None
    origin: str | None = None


async def current_time(context: RunContext[TurnContext], time_zone: str = "UTC") -> str:
    """Tell the current date and time.

    Args:
        context: the turn.
        time_zone: an IANA name such as Europe/Berlin.
    """
    try:
        zone = ZoneInfo(time_zone)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ModelRetry(f"{time_zone!r} is not an IANA time zone; try one such as Europe/Berlin") from error
    return context.deps.clock.now().astimezone(zone).strftime("%A, %Y-%m-%d %H:%M:%S %Z")


async def remember(context: RunContext[TurnContext], note: str) -> str:
    """Keep a short note about this user for later conversations: a name, a preference, a fact they told.

    Args:
        context: the turn.
        note: one fact, in one sentence.
    """
    turn = context.deps
    try:
        await turn.notes.remember(turn.user_id, turn.scope, note)
    except StorageError as error:
        log.warning("note.write_failed", user_id=turn.user_id, error=str(error))
        return "The note could not be kept just now."
    return "Noted."


async def recall(context: RunContext[TurnContext]) -> list[str]:
    """Read all notes about this user.

    Args:
        context: the turn.
    """
    turn = context.deps
    try:
        # The model would receive an empty list as empty text.
        return await turn.notes.recall(turn.user_id, turn.scope) or ["There are no notes yet."]
    except StorageError as error:
        log.warning("note.read_failed", user_id=turn.user_id, error=str(error))
        return ["The notes cannot be read just now."]


def equip(agent: Agent[TurnContext, str]) -> None:
    """Register the tools with an agent."""
    described = agent.tool(docstring_format="google", require_parameter_descriptions=True)
    for tool in (current_time, remember, recall):
        described(tool)
