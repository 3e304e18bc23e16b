"""RETENTION_DAYS: older data is deleted, newer data stays."""

from datetime import timedelta

import pytest
from pydantic_ai.messages import ModelRequest, ModelResponse, TextPart
from sqlalchemy import func, select

from core.db.database import Database
from core.db.tables import NoteRow, ThreadRow, TurnRow
from core.messages import ConversationKey, Surface
from services.chat.store.conversation import TurnStatus
from services.chat.store.history import Remembered, ThreadMemories
from services.chat.store.notes import Notes
from services.chat.store.turns import TurnStore
from services.privacy.rows import RetentionSweep
from tests.support.clock import ManualClock

pytestmark = pytest.mark.integration

OLD, NEW = ConversationKey(Surface.TELEGRAM, 7), ConversationKey(Surface.TELEGRAM, 8)


async def say(turns: TurnStore, key: ConversationKey, text: str) -> None:
    turn = await turns.open_turn(await turns.current(key), 7, ModelRequest.user_text_prompt(text))
    await turns.close_turn(turn.id, TurnStatus.COMPLETE, [ModelResponse([TextPart("answer")])])


async def count(database: Database, table: type[TurnRow | ThreadRow | NoteRow]) -> int:
    async with database.reading() as session:
        return await session.scalar(select(func.count()).select_from(table)) or 0


async def test_sweep_deletes_what_is_older(file: Database, clock: ManualClock) -> None:
    turns, notes, memories = TurnStore(file, clock), Notes(file, clock), ThreadMemories(file, clock)
    await say(turns, OLD, "old")
    await say(turns, NEW, "old as well")
    await memories.move(await turns.current(NEW), Remembered(1, "what was said"))
    await notes.remember(7, OLD.chat_ref, "likes tea")
    await clock.advance(timedelta(days=9).total_seconds())
    await say(turns, NEW, "new")
    await notes.remember(7, OLD.chat_ref, "likes coffee")
    await clock.advance(timedelta(days=2).total_seconds())
    assert await RetentionSweep(file, clock, None).sweep() == 0
    assert await RetentionSweep(file, clock, 10).sweep() == 2
    assert await count(file, TurnRow) == 1
    assert await count(file, ThreadRow) == 1, "an empty conversation is gone"
    assert await notes.recall(7, OLD.chat_ref) == ["likes coffee"]
    recall = await memories.recall(await turns.current(NEW), 1000)
    assert recall.remembered.summary is None
    assert len(recall.history) == 2


async def test_run_returns_where_everything_is_kept(file: Database, clock: ManualClock) -> None:
    await RetentionSweep(file, clock, None).run()
