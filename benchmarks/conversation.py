"""An earlier conversation: the same for the bot, in its database, and for the contestants, in memory."""

from collections.abc import Iterator
from pathlib import Path

from pydantic_ai.messages import ModelMessage, ModelRequest, ModelResponse, TextPart

from benchmarks.llm import text_of
from core.clock import SystemClock
from core.db.database import FILE_NAME, Database
from core.messages import ConversationKey, Surface
from services.chat.store.conversation import TurnStatus
from services.chat.store.turns import TurnStore
from services.llm.usage import estimate_tokens

QUESTION = "And what would you say to somebody who has never heard of any of this, in a few plain sentences?"
ANSWER_PIECES = 200
"""Pieces per answer, about one token each."""


def _turns(tokens: int) -> Iterator[tuple[ModelRequest, ModelResponse]]:
    while True:
        prompt = ModelRequest.user_text_prompt(QUESTION)
        answer = ModelResponse([TextPart(text_of(ANSWER_PIECES))], finish_reason="stop")
        tokens -= estimate_tokens([prompt, answer])
        if tokens < 0:
            return
        yield prompt, answer


def messages(tokens: int) -> list[ModelMessage]:
    """Return a history of at most this many tokens."""
    return [message for turn in _turns(tokens) for message in turn]


async def seed(directory: Path, chats: range, tokens: int) -> None:
    """Write that history to the database of each chat; the bot must not be running."""
    database = Database(f"sqlite:///{directory / FILE_NAME}")
    await database.start()
    threads = TurnStore(database, SystemClock())
    try:
        for chat in chats:
            thread = await threads.current(ConversationKey(Surface.TELEGRAM, chat))
            for prompt, answer in _turns(tokens):
                turn = await threads.open_turn(thread, chat, prompt)
                await threads.close_turn(turn.id, TurnStatus.COMPLETE, [prompt, answer], provider="a", model="m")
    finally:
        await database.close()
