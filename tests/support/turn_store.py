"""Turns for the tests of the store: builders, and readers of a history."""

from collections.abc import Sequence

from pydantic_ai.messages import (
    BinaryContent,
    ModelMessage,
    ModelRequest,
    ModelResponse,
    TextPart,
    UserPromptPart,
)

from core.db.database import Database
from core.messages import ConversationKey, Surface
from services.chat.store.conversation import Thread, TurnStatus
from services.chat.store.history import ThreadMemories
from services.chat.store.turns import TurnStore
from tests.support.clock import ManualClock

KEY = ConversationKey(Surface.TELEGRAM, -1001234567890, 3)
ALICE = 2**40
LARGE_BUDGET = 100_000


def prompt(text: str, *images: bytes) -> ModelRequest:
    """A user's message."""
    files = [BinaryContent(image, media_type="image/jpeg") for image in images]
    return ModelRequest(parts=[UserPromptPart([text, *files] if files else text)])


def answer(text: str) -> ModelResponse:
    """A model's answer."""
    return ModelResponse(parts=[TextPart(text)])


async def add_turn(
    turns: TurnStore,
    thread: Thread,
    text: str,
    status: TurnStatus = TurnStatus.COMPLETE,
    *,
    images: Sequence[bytes] = (),
    replaces_id: int | None = None,
) -> int:
    """Open and close a turn; the answer is the text in capitals. Returns its id."""
    asked = prompt(text, *images)
    turn = await turns.open_turn(thread, ALICE, asked, replaces_id=replaces_id)
    messages = [] if status is TurnStatus.FAILED else [asked, answer(text.upper())]
    await turns.close_turn(turn.id, status, messages)
    return turn.id


async def recalled(
    database: Database, thread: Thread, token_budget: int, *, before_turn: int | None = None
) -> Sequence[ModelMessage]:
    """The history of a thread as a model receives it."""
    recall = await ThreadMemories(database, ManualClock()).recall(thread, token_budget, before_turn=before_turn)
    return recall.history


def texts(messages: Sequence[ModelMessage]) -> list[str]:
    """Return the text of each message."""
    said: list[str] = []
    for message in messages:
        for part in message.parts:
            content = getattr(part, "content", part.part_kind)
            said += [content] if isinstance(content, str) else [str(getattr(i, "content", i)) for i in content]
    return said


def pictures(messages: Sequence[ModelMessage]) -> list[bytes | str]:
    """Return the bytes of each picture, or the text in its place."""
    items = [
        item
        for message in messages
        for part in message.parts
        if isinstance(part, UserPromptPart) and not isinstance(part.content, str)
        for item in part.content
    ]
    return [i.data if isinstance(i, BinaryContent) else i.content for i in items if not isinstance(i, str)]
