"""The list of a chat's threads."""

from dataclasses import dataclass

from sqlalchemy import delete, select, update

from core.db.database import Database
from core.db.tables import ThreadRow, TurnRow
from core.messages import ConversationKey
from services.chat.store.conversation import THREADS, Thread, key_conditions
from services.chat.store.history import to_thread

MAX_NAME = 60
"""Characters of a name given by a user; longer ones are cut."""


@dataclass(frozen=True, slots=True)
class ListedThread:
    """A thread, and whether it is the current one."""

    thread: Thread
    is_current: bool


class ThreadList:
    """Manages threads. Ids come from outside, so each method is limited to the threads of its key.

    Each method raises StorageError where the database fails.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def page(self, key: ConversationKey, limit: int, offset: int = 0) -> list[ListedThread]:
        """Returns threads that have messages, and the current one, newest first."""
        has_turns = select(TurnRow.id).where(TurnRow.thread_id == ThreadRow.id).exists()
        query = (
            select(ThreadRow)
            .where(*key_conditions(key), has_turns | ThreadRow.is_current)
            .order_by(ThreadRow.id.desc())
        )
        async with self._database.reading() as session:
            rows = await session.scalars(query.limit(limit).offset(offset))
            return [ListedThread(to_thread(row), row.is_current) for row in rows]

    async def find(self, key: ConversationKey, thread_id: int) -> ListedThread | None:
        """Returns a thread, or None if it no longer exists."""
        async with self._database.reading() as session:
            row = await session.scalar(select(ThreadRow).where(*key_conditions(key), ThreadRow.id == thread_id))
        return None if row is None else ListedThread(to_thread(row), row.is_current)

    async def switch(self, key: ConversationKey, thread_id: int) -> Thread | None:
        """Makes a thread the current one. Returns None if it no longer exists."""
        async with self._database.session() as session:
            # A concurrent switch waits here for the first row and then sees the result of the first switch.
            all_threads = select(ThreadRow).where(*key_conditions(key)).order_by(ThreadRow.id).with_for_update()
            rows = (await session.scalars(all_threads)).all()
            found = next((row for row in rows if row.id == thread_id), None)
            if found is None:
                return None
            others = update(ThreadRow).where(*key_conditions(key), ThreadRow.is_current, ThreadRow.id != thread_id)
            await session.execute(others.values(is_current=False))
            await session.execute(update(ThreadRow).where(ThreadRow.id == thread_id).values(is_current=True))
            return to_thread(found)

    async def rename(self, key: ConversationKey, thread_id: int, name: str) -> str | None:
        """Renames a thread. Returns the stored name, on one line; None if the thread is gone or the name is empty."""
        line = " ".join(name.split())[:MAX_NAME].rstrip()
        if not line:
            return None
        renaming = update(ThreadRow).where(*key_conditions(key), ThreadRow.id == thread_id).values(name=line)
        async with self._database.session() as session:
            found = await session.scalar(renaming.returning(ThreadRow.id))
        return None if found is None else line

    async def name_unnamed(self, thread_id: int, name: str) -> None:
        """Names a thread that has no name yet."""
        unnamed = update(THREADS).where(THREADS.c.id == thread_id, THREADS.c.name.is_(None))
        await self._database.run(lambda connection: connection.execute(unnamed.values(name=name)) and None)

    async def await_topic_name(self, thread_id: int) -> None:
        """Notes that a topic takes the name of its current thread, once that has one."""
        own = update(THREADS).where(THREADS.c.id == thread_id).values(names_topic=True)
        await self._database.run(lambda connection: connection.execute(own) and None)

    async def set_persona(self, key: ConversationKey, thread_id: int, persona: str | None) -> None:
        """Sets the persona of a thread, in its stored form; None: the chat's own."""
        own = update(ThreadRow).where(*key_conditions(key), ThreadRow.id == thread_id)
        async with self._database.session() as session:
            await session.execute(own.values(persona=persona))

    async def delete(self, key: ConversationKey, thread_id: int) -> bool:
        """Deletes a thread with all its turns. Returns whether it existed.

        After the current thread is deleted, the next message starts a new one.
        """
        deletion = delete(ThreadRow).where(*key_conditions(key), ThreadRow.id == thread_id).returning(ThreadRow.id)
        async with self._database.session() as session:
            return await session.scalar(deletion) is not None
