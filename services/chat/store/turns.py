"""Turns of conversations in the database: opened with a prompt, closed with a result."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import structlog
from pydantic_ai.messages import (
    BaseToolReturnPart,
    FilePart,
    ModelMessage,
    ModelMessagesTypeAdapter,
    ModelRequest,
    ModelResponse,
    TextPart,
    UserPromptPart,
)
from pydantic_core import PydanticSerializationError
from sqlalchemy import BigInteger, Connection, and_, bindparam, delete, select, update

from core.clock import Clock
from core.db.database import Database
from core.db.tables import AnswerMessageRow, AttachmentRow, ThreadRow, TurnRow, storable
from core.errors import StorageError
from core.messages import ConversationKey
from services.chat.store import transcript
from services.chat.store.conversation import (
    ANSWERED,
    TURNS,
    Thread,
    Turn,
    TurnStatus,
    key_conditions,
)
from services.chat.store.files import DOCUMENT, DRAWN
from services.chat.store.history import (
    Recall,
    ensure_current,
    parse_messages,
    read_current,
    read_recall,
    starts_with_prompt,
)
from services.chat.store.stored_turns import StoredTurns, read_turn
from services.chat.store.transcript import Transcript
from services.llm.usage import estimate_tokens
from services.preferences import ChatPreferences, read_preferences

log = structlog.get_logger()

_OPENED = (
    select(
        TURNS.c.thread_id,
        TURNS.c.replaces_id,
        TURNS.c.prompt,
        TURNS.c.messages.is_not(None).label("has_messages"),
        TURNS.c.estimated_tokens,
        TURNS.c.attachment_count,
    )
    .where(TURNS.c.id == bindparam("turn"))
    .with_for_update()
)
_CLOSE = update(TURNS).where(TURNS.c.id == bindparam("turn"))


@dataclass(frozen=True, slots=True)
class TurnStart:
    """All that is read and saved before a model is asked."""

    preference: ChatPreferences
    recall: Recall
    turn: Turn


class TurnStore(StoredTurns):
    """Stores turns.

    A turn is opened with its prompt before a model is asked, and closed with its result, so that neither a crash nor a
    failure loses the prompt. Each method raises StorageError where the database fails.
    """

    def __init__(self, database: Database, clock: Clock) -> None:
        super().__init__(database)
        self._clock = clock
        insert = database.insert(TurnRow).on_conflict_do_nothing(index_elements=["origin"])
        self._insert = insert.returning(TurnRow.id)
        of_turn = (
            select(ThreadRow.surface, ThreadRow.chat_id, bindparam("message", type_=BigInteger), TurnRow.id)
            .join(TurnRow, TurnRow.thread_id == ThreadRow.id)
            .where(TurnRow.id == bindparam("turn"))
        )
        columns = ["surface", "chat_id", "message_id", "turn_id"]
        note = database.insert(AnswerMessageRow).from_select(columns, of_turn)
        self._note_answer = note.on_conflict_do_update(
            index_elements=columns[:3], set_={"turn_id": note.excluded.turn_id}
        )

    async def warm(self) -> None:
        """Builds the message serialisers, which would delay the first turn by 0.2 s."""
        messages: list[ModelMessage] = [ModelRequest.user_text_prompt("."), ModelResponse([TextPart(".")])]
        await asyncio.to_thread(lambda: parse_messages(_serialise(messages).json, 0))

    async def current(self, key: ConversationKey) -> Thread:
        """Returns the thread of the next message in this chat or topic, created on first use."""
        thread = await self._database.run(lambda connection: read_current(connection, key), reading=True)
        return thread or await self._database.run(
            lambda connection: ensure_current(connection, self._database, key, self._clock.now())
        )

    async def start_new(self, key: ConversationKey) -> Thread:
        """Starts an empty thread and makes it the current one.

        Concurrent calls may return the same new thread: it is empty either way.
        """
        leave_current = update(ThreadRow).where(*key_conditions(key), ThreadRow.is_current).values(is_current=False)

        def work(connection: Connection) -> Thread:
            connection.execute(leave_current)
            return ensure_current(connection, self._database, key, self._clock.now())

        return await self._database.run(work)

    async def begin(
        self,
        key: ConversationKey,
        speaker_id: int,
        prompt: ModelRequest,
        token_budget: int,
        *,
        origin: str | None,
        question_id: int | None = None,
    ) -> TurnStart:
        """Reads all that a turn needs and saves its prompt, in one transaction.

        Args:
            prompt: the message with its files.
            token_budget: tokens of the history, as `estimate_tokens` counts.
            origin: as for `open_turn`, like `question_id`.
        """
        stored = await _store([prompt])

        def work(connection: Connection) -> TurnStart:
            preference = read_preferences(connection, key.chat_ref)
            thread = ensure_current(connection, self._database, key, self._clock.now())
            recall = read_recall(connection, thread, token_budget, None)
            turn = self._insert_turn(connection, thread, speaker_id, prompt, stored, None, origin, question_id)
            return TurnStart(preference, recall, turn)

        return await self._database.run(work)

    async def open_turn(
        self,
        thread: Thread,
        speaker_id: int,
        prompt: ModelRequest,
        *,
        replaces_id: int | None = None,
        origin: str | None = None,
        question_id: int | None = None,
    ) -> Turn:
        """Saves a prompt before a model is asked. Returns the existing turn if the origin already has one.

        Args:
            prompt: the message with its files.
            replaces_id: the turn that this one retries; it stays until this one is answered.
            origin: id of the job that the turn answers, if that may be retried.
            question_id: the message with the prompt.
        """
        stored = await _store([prompt])
        return await self._database.run(
            lambda connection: self._insert_turn(
                connection, thread, speaker_id, prompt, stored, replaces_id, origin, question_id
            )
        )

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
            input_tokens: tokens as the provider reported them, like `output_tokens`.
        """
        saves_messages = status in ANSWERED or bool(messages)
        stored = await _store(messages) if saves_messages else None
        ending = {
            "status": status,
            "provider": provider,
            "model": model,
            "input_tokens": input_tokens,
            "output_tokens": output_tokens,
        }

        def work(connection: Connection) -> bool:
            row = connection.execute(_OPENED, {"turn": turn_id}).first()
            if row is None:
                return False
            values: dict[str, Any] = dict(ending)  # Any: values of several columns
            if stored is not None:
                whole = stored
                if not starts_with_prompt(messages):
                    prompt = Transcript(row.prompt, row.estimated_tokens, row.attachment_count)
                    # Closed before, a row has the sizes of the whole turn.
                    whole = _join(_measure(prompt, turn_id) if row.has_messages else prompt, stored)
                values |= {"messages": whole.json, **_sizes(whole)}
                self._keep_attachments(connection, turn_id, whole)
            connection.execute(_CLOSE, {"turn": turn_id, **values})
            if status in ANSWERED and row.replaces_id is not None:
                replaced = and_(TURNS.c.id == row.replaces_id, TURNS.c.thread_id == row.thread_id)
                connection.execute(update(TURNS).where(replaced).values(status=TurnStatus.SUPERSEDED))
            return True

        if not await self._database.run(work):
            # Deleted while the answer was being produced: it stays deleted.
            log.info("turn.deleted", turn_id=turn_id)

    async def replace_prompt(self, turn_id: int, prompt: ModelRequest) -> None:
        """Saves another form of a prompt, and deletes the files that it no longer has."""
        stored = await _store([prompt])
        values = {"prompt": stored.json, **_sizes(stored)}
        of_prompt = and_(
            AttachmentRow.turn_id == turn_id,
            AttachmentRow.media_type.not_like(f"{DOCUMENT}%"),
            AttachmentRow.media_type.not_like(f"%{DRAWN}"),
        )
        gone = and_(of_prompt, AttachmentRow.digest.not_in(list(stored.attachments)))

        def work(connection: Connection) -> None:
            connection.execute(update(TURNS).where(TURNS.c.id == turn_id).values(values))
            connection.execute(delete(AttachmentRow).where(gone))

        await self._database.run(work)

    async def note_edit(self, turn_id: int, prompt: ModelRequest) -> None:
        """Notes the prompt of a turn as its author changed it."""
        stored = await _store([prompt])

        def work(connection: Connection) -> None:
            connection.execute(update(TURNS).where(TURNS.c.id == turn_id).values(edited_prompt=stored.json))
            self._keep_attachments(connection, turn_id, stored)

        await self._database.run(work)

    async def note_answer(self, turn_id: int, message_ids: Sequence[int]) -> None:
        """Records which messages hold the answer; a message recorded for another turn moves to this one."""
        notes = [{"turn": turn_id, "message": each} for each in dict.fromkeys(message_ids)]

        def work(connection: Connection) -> None:
            for note in notes:
                connection.execute(self._note_answer, note)

        # Before other writers: a crash before it is written doubles a message.
        await self._database.run(work, urgent=True)

    def _insert_turn(
        self,
        connection: Connection,
        thread: Thread,
        speaker_id: int,
        prompt: ModelRequest,
        stored: Transcript,
        replaces_id: int | None,
        origin: str | None,
        question_id: int | None,
    ) -> Turn:
        now = self._clock.now()
        row = {
            "thread_id": thread.id,
            "replaces_id": replaces_id,
            "created_at": now,
            "status": TurnStatus.RUNNING,
            "speaker_id": speaker_id,
            "prompt": stored.json,
            **_sizes(stored),
            "origin": origin,
            "question_id": question_id,
        }
        turn_id = connection.scalars(self._insert, row).one_or_none()
        if turn_id is None:
            existing = read_turn(connection, select(TURNS).where(TurnRow.origin == origin))
            if existing is None:
                raise StorageError("the database failed: the turn that conflicted is gone")
            return existing
        self._keep_attachments(connection, turn_id, stored)
        return Turn(
            turn_id, thread, TurnStatus.RUNNING, speaker_id, now, prompt,
            replaces_id=replaces_id, origin=origin, question_id=question_id,
        )  # fmt: skip

    def _keep_attachments(self, connection: Connection, turn_id: int, stored: Transcript) -> None:
        if not stored.attachments:
            return
        rows = [
            {"turn_id": turn_id, "digest": digest, "media_type": file.media_type, "data": file.data}
            for digest, file in stored.attachments.items()
        ]
        # The prompt's files already exist when the whole turn is saved.
        connection.execute(self._database.insert(AttachmentRow).values(rows).on_conflict_do_nothing())


def _sizes(stored: Transcript) -> dict[str, int]:
    return {"estimated_tokens": stored.tokens, "attachment_count": stored.file_count}


def _measure(prompt: Transcript, turn_id: int) -> Transcript:
    """Returns a stored prompt with its own sizes."""
    messages = parse_messages(prompt.json, turn_id)
    return replace(prompt, tokens=estimate_tokens(messages), file_count=len(transcript.digests(messages)))


def _join(prompt: Transcript, answer: Transcript) -> Transcript:
    """Returns the messages of a turn. The prompt is not parsed: its array gets further elements."""
    joined = prompt.json if answer.json == "[]" else f"{prompt.json[:-1]},{answer.json[1:]}"
    return replace(
        answer,
        json=joined,
        tokens=prompt.tokens + answer.tokens,
        file_count=prompt.file_count + answer.file_count,
    )


async def _store(messages: Sequence[ModelMessage]) -> Transcript:
    if all(map(_has_no_files, messages)):
        return _serialise(messages)
    if transcript.has_files(messages):
        # Off the event loop: hashing some megabytes takes as many milliseconds.
        return await asyncio.to_thread(_detach, messages)
    return _detach(messages)


def _detach(messages: Sequence[ModelMessage]) -> Transcript:
    detached, attachments = transcript.detach_files(messages)
    return replace(_serialise(detached), file_count=len(transcript.digests(detached)), attachments=attachments)


def _serialise(messages: Sequence[ModelMessage]) -> Transcript:
    """Converts messages without files to their stored form. Every message can be stored."""
    # Instructions are created for each turn; past ones are never sent again.
    stored = [
        replace(each, instructions=None) if isinstance(each, ModelRequest) and each.instructions is not None else each
        for each in messages
    ]
    try:
        # A tool may attach arbitrary objects to its result as metadata: they are stored as text.
        text = ModelMessagesTypeAdapter.dump_json(stored, fallback=str).decode()
    except PydanticSerializationError:
        # Half of a surrogate pair, as a stream cut into chunks may contain.
        tree = ModelMessagesTypeAdapter.dump_python(stored, mode="json", fallback=str)
        text = storable(json.dumps(tree, ensure_ascii=False))
    return Transcript(text, estimate_tokens(stored))


def _has_no_files(message: ModelMessage) -> bool:
    """Returns whether a message has text and calls only, in which no file can be."""
    for part in message.parts:
        if isinstance(part, BaseToolReturnPart | FilePart):
            return False
        if isinstance(part, UserPromptPart) and not isinstance(part.content, str):
            return False
    return True
