"""What the agent can do besides talking: tell the time, and keep notes about the user."""

from dataclasses import dataclass
from typing import Protocol
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import structlog
from pydantic_ai import Agent, ModelRetry, RunContext

from core.clock import Clock
from core.errors import StorageError
from core.messages import ChatKind

log = structlog.get_logger()


class NoteStore(Protocol):
    """Notes about a user, kept apart by chat."""

    async def remember(self, user_id: int, scope: str, text: str) -> None:
        """Keep a note."""
        ...

    async def recall(self, user_id: int, scope: str) -> list[str]:
        """The notes, oldest first."""
        ...


@dataclass(frozen=True, slots=True)
class TurnContext:
    """What instructions and tools know about a turn.

    Args:
        clock: the time.
        notes: the notes; `scope` keeps those of a private chat out of groups.
        user_id: who is asking.
        user_name: the same, for people.
        scope: the chat, such as `telegram:123`.
        chat_kind: whom the bot is talking to.
        chat_title: the name of a group.
        language: the user's language as an IETF tag, where known.
    """

    clock: Clock
    notes: NoteStore
    user_id: int
    user_name: str
    scope: str
    chat_kind: ChatKind
    chat_title: str | None = None
    language: str | None = None


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
        log.warning("note.not_kept", user_id=turn.user_id, error=str(error))
        return "The note could not be kept just now."
    return "Noted."


async def recall(context: RunContext[TurnContext]) -> list[str]:
    """Read all notes about this user.

    Args:
        context: the turn.
    """
    turn = context.deps
    try:
        # An empty list would reach the model as an empty text, which tells it nothing.
        return await turn.notes.recall(turn.user_id, turn.scope) or ["There are no notes yet."]
    except StorageError as error:
        log.warning("note.not_read", user_id=turn.user_id, error=str(error))
        return ["The notes cannot be read just now."]


def equip(agent: Agent[TurnContext, str]) -> None:
    """Give an agent these tools."""
    described = agent.tool(docstring_format="google", require_parameter_descriptions=True)
    for tool in (current_time, remember, recall):
        described(tool)
