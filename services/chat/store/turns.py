"""Conversations in the database: threads, turns, and the history for a model."""

import asyncio
from collections.abc import Sequence

import structlog
from pydantic_ai.messages import ModelMessage, ModelRequest, ModelResponse, TextPart
from sqlalchemy import BigInteger, and_, literal, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from core.clock import Clock
from core.db.database import Database
from core.db.queues import GroupCommit
from core.db.tables import AnswerMessageRow, AttachmentRow, SentMessageRow, ThreadRow, TurnRow
from core.errors import StorageError
from core.messages import ConversationKey
from services.chat.store import transcript
from services.chat.store.conversation import (
    ANSWERED,
    Thread,
    Turn,
    TurnStatus,
    key_conditions,
    parse_messages,
    read_history,
    read_turn,
    select_current,
    to_thread,
)
from services.chat.store.history import starts_with_prompt
from services.chat.store.transcript import Transcript
from services.llm.usage import estimate_tokens

log = structlog.get_logger()


class TurnStore:
    """Stores turns.

    A turn is opened with its prompt before a model is asked, and closed with its result, so that neither a crash nor a
    failure loses the prompt. Each method raises StorageError where the database fails.
    """

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._answer_writes = GroupCommit(database)

    async def warm(self) -> None:
        """Builds the message serialisers, which would delay the first turn by 0.2 s."""
        messages: list[ModelMessage] = [ModelRequest.user_text_prompt("."), ModelResponse([TextPart(".")])]
        await asyncio.to_thread(lambda: transcript.load(transcript.store(messages).json))

    async def current(self, key: ConversationKey) -> Thread:
        """Returns the thread of the next message in this chat or topic, created on first use."""
        async with self._database.reading() as session:
            row = await session.scalar(select_current(key))
        if row is None:
            async with self._database.session() as session:
                row = await self._ensure_current(session, key)
        return to_thread(row)

    async def start_new(self, key: ConversationKey) -> Thread:
        """Starts an empty thread and makes it the current one.

        Concurrent calls may return the same new thread: it is empty either way.
        """
        async with self._database.session() as session:
            leave_current = update(ThreadRow).where(*key_conditions(key), ThreadRow.is_current).values(is_current=False)
            await session.execute(leave_current)
            return to_thread(await self._ensure_current(session, key))

    async def name_unnamed(self, thread_id: int, name: str) -> None:
        """Names a thread that has no name yet."""
        unnamed = update(ThreadRow).where(ThreadRow.id == thread_id, ThreadRow.name.is_(None))
        async with self._database.session() as session:
            await session.execute(unnamed.values(name=name))

    async def open_turn(
        self,
        thread: Thread,
        speaker_id: int,
        prompt: ModelRequest,
        *,
        replaces_id: int | None = None,
        origin: str | None = None,
    ) -> Turn:
        """Saves a prompt before a model is asked. Returns the existing turn if the origin already has one.

        Args:
            prompt: the message with its files.
            replaces_id: the turn that this one retries; it stays until this one is answered.
            origin: id of the job that the turn answers, if that may be retried.
        """
        stored = await _store([prompt])
        now = self._clock.now()
        row = {
            "thread_id": thread.id,
            "replaces_id": replaces_id,
            "created_at": now,
            "status": TurnStatus.RUNNING,
            "speaker_id": speaker_id,
            "prompt": stored.json,
            "estimated_tokens": estimate_tokens(stored.messages),
            "attachment_count": len(transcript.digests(stored.messages)),
            "origin": origin,
        }
        insert = self._database.insert(TurnRow).values(row).on_conflict_do_nothing(index_elements=["origin"])
        async with self._database.session() as session:
            turn_id = (await session.scalars(insert.returning(TurnRow.id))).one_or_none()
            if turn_id is None:
                existing = await read_turn(session, select(TurnRow).where(TurnRow.origin == origin))
                if existing is None:
                    raise StorageError("the database failed: the turn that conflicted is gone")
                return existing
            await self._keep_attachments(session, turn_id, stored)
        return Turn(
            turn_id, thread, TurnStatus.RUNNING, speaker_id, now, prompt, replaces_id=replaces_id, origin=origin
        )

    async def answer(self, turn_id: int) -> list[ModelMessage]:
        """Returns the messages of an answered turn, from its prompt on; empty otherwise."""
        async with self._database.reading() as session:
            stored = await session.scalar(select(TurnRow.messages).where(TurnRow.id == turn_id))
        return parse_messages(stored, turn_id) if stored else []

    async def close_turn(
        self,
        turn_id: int,
        status: TurnStatus,
        messages: Sequence[ModelMessage] = (),
        *,
        provider: str | None = None,
        model: str | None = None,
        input_tokens: int | None = None,
        output_tokens: int | None = None,
    ) -> None:
        """Saves the result of a turn. If it was answered, the turn that it replaces is superseded.

        Args:
            messages: all new messages of the run; the prompt is prepended if missing.
            provider: the provider that answered, with `model`.
            input_tokens: as the provider reported them, like `output_tokens`.
        """
        async with self._database.session() as session:
            row = await session.get(TurnRow, turn_id, with_for_update=True)
            if row is None:
                # Deleted while the answer was being produced: it stays deleted.
                log.info("turn.deleted", turn_id=turn_id)
                return
            if status in ANSWERED or messages:
                if not starts_with_prompt(messages):
                    messages = [*parse_messages(row.prompt, turn_id), *messages]
                stored = await _store(messages)
                row.messages = stored.json
                row.estimated_tokens = estimate_tokens(stored.messages)
                row.attachment_count = len(transcript.digests(stored.messages))
                await self._keep_attachments(session, turn_id, stored)
            row.status = status
            row.provider, row.model = provider, model
            row.input_tokens, row.output_tokens = input_tokens, output_tokens
            if status in ANSWERED and row.replaces_id is not None:
                replaced = and_(TurnRow.id == row.replaces_id, TurnRow.thread_id == row.thread_id)
                await session.execute(update(TurnRow).where(replaced).values(status=TurnStatus.SUPERSEDED))

    async def history(self, thread: Thread, token_budget: int, *, before_turn: int | None = None) -> list[ModelMessage]:
        """Returns the newest whole turns that fit the budget.

        If the newest turn alone exceeds the budget, it is shortened. Only the returned turns are read, so the cost does
        not grow with the conversation. The history begins with a user's prompt, or is empty.

        Args:
            token_budget: as `estimate_tokens` counts.
            before_turn: exclude this turn and all later ones, as a Retry needs.
        """
        async with self._database.reading() as session:
            return await read_history(session, thread, token_budget, before_turn)

    async def last_turn(self, key: ConversationKey) -> Turn | None:
        """Returns the newest turn of the current thread that is not superseded."""
        async with self._database.reading() as session:
            of_thread = TurnRow.thread_id.in_(select(ThreadRow.id).where(*key_conditions(key), ThreadRow.is_current))
            counts = and_(of_thread, TurnRow.status != TurnStatus.SUPERSEDED)
            return await read_turn(session, select(TurnRow).where(counts).order_by(TurnRow.id.desc()).limit(1))

    async def turn(self, turn_id: int) -> Turn | None:
        """Returns a turn by its id. An id from outside may belong to any chat: compare `turn.thread.key`."""
        async with self._database.reading() as session:
            return await read_turn(session, select(TurnRow).where(TurnRow.id == turn_id))

    async def note_answer(self, turn_id: int, message_ids: Sequence[int]) -> None:
        """Records which messages hold the answer; a message recorded for another turn moves to this one."""
        await asyncio.gather(*(self._note_answer(turn_id, each) for each in dict.fromkeys(message_ids)))

    async def recorded_messages(self, chat_id: int, after: int) -> frozenset[int]:
        """Returns the ids of the bot's messages in a chat that are recorded and newer than an id."""
        answers = select(AnswerMessageRow.message_id).where(
            AnswerMessageRow.chat_id == chat_id, AnswerMessageRow.message_id > after
        )
        others = select(SentMessageRow.message_id).where(
            SentMessageRow.chat_id == chat_id, SentMessageRow.message_id > after
        )
        async with self._database.reading() as session:
            return frozenset(await session.scalars(answers.union_all(others)))

    async def _note_answer(self, turn_id: int, message_id: int) -> None:
        # One statement, so that it can share a transaction: a crash before it is written doubles a message.
        found = (
            select(ThreadRow.surface, ThreadRow.chat_id, literal(message_id, BigInteger), TurnRow.id)
            .join(TurnRow, TurnRow.thread_id == ThreadRow.id)
            .where(TurnRow.id == turn_id)
        )
        columns = ["surface", "chat_id", "message_id", "turn_id"]
        insert = self._database.insert(AnswerMessageRow).from_select(columns, found)
        await self._answer_writes.execute(
            insert.on_conflict_do_update(index_elements=columns[:3], set_={"turn_id": turn_id})
        )

    async def _ensure_current(self, session: AsyncSession, key: ConversationKey) -> ThreadRow:
        # Another replica may do the same at this moment: the unique index admits one row, and both then read it.
        insert = self._database.insert(ThreadRow).values(
            surface=key.surface,
            chat_id=key.chat_id,
            topic_id=key.topic_id,
            is_current=True,
            created_at=self._clock.now(),
        )
        await session.execute(insert.on_conflict_do_nothing())
        return (await session.scalars(select_current(key))).one()

    async def _keep_attachments(self, session: AsyncSession, turn_id: int, stored: Transcript) -> None:
        rows = [
            {"turn_id": turn_id, "digest": digest, "media_type": file.media_type, "data": file.data}
            for digest, file in stored.attachments.items()
        ]
        if rows:
            # The prompt's files already exist when the whole turn is saved.
            await session.execute(self._database.insert(AttachmentRow).values(rows).on_conflict_do_nothing())


async def _store(messages: Sequence[ModelMessage]) -> Transcript:
    if not transcript.has_files(messages):
        return transcript.store(messages)
    # Off the event loop: hashing some megabytes takes as many milliseconds.
    return await asyncio.to_thread(transcript.store, messages)
