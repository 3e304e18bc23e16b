"""Reads stored turns: for a Retry, a repeated job, a button, a reply."""

from typing import Any

from pydantic_ai.messages import ModelMessage, ModelRequest
from sqlalchemy import Connection, Select, and_, select

from core.db.database import Database
from core.db.job_tables import SentMessageRow
from core.db.tables import AnswerMessageRow, ThreadRow, TurnRow
from core.messages import ConversationKey
from services.chat.store import transcript
from services.chat.store.conversation import THREADS, TURNS, Turn, TurnStatus, key_conditions
from services.chat.store.history import parse_messages, to_thread
from services.chat.store.transcript import load_files


class StoredTurns:
    """Reads turns. Each method raises StorageError where the database fails."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def answer(self, turn_id: int) -> list[ModelMessage]:
        """Returns the messages of an answered turn, from its prompt on; empty otherwise."""
        query = select(TurnRow.messages).where(TurnRow.id == turn_id)
        stored = await self._database.run(lambda connection: connection.scalar(query), reading=True)
        return parse_messages(stored, turn_id) if stored else []

    async def find_first_attempt(self, turn: Turn) -> tuple[str | None, list[ModelMessage]]:
        """Returns the origin of the first turn in a chain of Retries, and the messages of the given turn."""

        def work(connection: Connection) -> tuple[str | None, list[ModelMessage]]:
            stored = connection.scalar(select(TURNS.c.messages).where(TURNS.c.id == turn.id))
            origin, replaces_id = turn.origin, turn.replaces_id
            while replaces_id is not None:
                columns = select(TURNS.c.origin, TURNS.c.replaces_id).where(TURNS.c.id == replaces_id)
                if (row := connection.execute(columns).first()) is None:
                    break
                origin, replaces_id = row.origin, row.replaces_id
            return origin, parse_messages(stored, turn.id) if stored else []

        return await self._database.run(work, reading=True)

    async def last_turn(self, key: ConversationKey) -> Turn | None:
        """Returns the newest turn of the current thread that is not superseded."""
        of_thread = TurnRow.thread_id.in_(select(ThreadRow.id).where(*key_conditions(key), ThreadRow.is_current))
        counts = and_(of_thread, TurnRow.status != TurnStatus.SUPERSEDED)
        query = select(TURNS).where(counts).order_by(TurnRow.id.desc()).limit(1)
        return await self._database.run(lambda connection: read_turn(connection, query), reading=True)

    async def turn(self, turn_id: int, *, edited: bool = False) -> Turn | None:
        """Returns a turn by its id. An id from outside may belong to any chat: compare `turn.thread.key`.

        Args:
            edited: with the prompt as its author changed it, where that was noted.
        """
        query = select(TURNS).where(TurnRow.id == turn_id)
        return await self._database.run(lambda connection: read_turn(connection, query, edited=edited), reading=True)

    async def recorded_messages(self, chat_id: int, after: int) -> frozenset[int]:
        """Returns the ids of the bot's messages in a chat that are recorded and newer than an id."""
        answers = select(AnswerMessageRow.message_id).where(
            AnswerMessageRow.chat_id == chat_id, AnswerMessageRow.message_id > after
        )
        others = select(SentMessageRow.message_id).where(
            SentMessageRow.chat_id == chat_id, SentMessageRow.message_id > after
        )
        union = answers.union_all(others)
        return await self._database.run(lambda connection: frozenset(connection.scalars(union)), reading=True)


def read_turn(connection: Connection, query: Select[Any], *, edited: bool = False) -> Turn | None:
    """Reads the first turn of a query of `TURNS`, its prompt with all its files, or the edited one if there is one."""
    row = connection.execute(query).first()
    if row is None:
        return None
    thread = connection.execute(select(THREADS).where(ThreadRow.id == row.thread_id)).one()
    answer = select(AnswerMessageRow.message_id).where(AnswerMessageRow.turn_id == row.id)
    answer_ids = tuple(connection.scalars(answer.order_by(AnswerMessageRow.message_id)))
    prompt = parse_messages((edited and row.edited_prompt) or row.prompt, row.id)
    digests = transcript.digests(prompt)
    if digests:
        files = load_files(connection, [(row.id, digest) for digest in digests])
        prompt = transcript.restore(prompt, files, len(digests))
    return Turn(
        id=row.id,
        thread=to_thread(thread),
        status=TurnStatus(row.status),
        speaker_id=row.speaker_id,
        created_at=row.created_at,
        prompt=prompt[0] if prompt and isinstance(prompt[0], ModelRequest) else None,
        replaces_id=row.replaces_id,
        provider=row.provider,
        model=row.model,
        answer_ids=answer_ids,
        origin=row.origin,
        question_id=row.question_id,
    )
