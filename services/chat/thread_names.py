"""Names threads in the background; neither an answer nor a shutdown waits for it."""

import asyncio
from dataclasses import dataclass
from typing import Protocol

import structlog
from pydantic import BaseModel

from core.background import BackgroundTasks
from core.errors import ProviderError, StorageError
from services.chat.store.conversation import Thread
from services.llm.models.factory import LLMModelFactory
from services.llm.models.name_generator import first_words

log = structlog.get_logger()

MAX_LENGTH = 40
"""Characters of a name that fit on a button on a phone."""
WORKERS = 3
QUEUE_LIMIT = 200
"""Threads that may wait for a name. A thread beyond that is considered again after its next answer."""


@dataclass(frozen=True, slots=True)
class Beginning:
    """Text from which a thread gets its name.

    Args:
        message: the user's text; empty for attachments only.
        answer: the model's text.
        language: of the user, an IETF tag.
        local_only: whether remote providers are excluded for lack of consent.
        is_demo: whether only the demo answered, which cannot name anything.
    """

    thread: Thread
    message: str
    answer: str
    language: str | None = None
    local_only: bool = False
    is_demo: bool = False


class ThreadNameStore(Protocol):
    """Stores names."""

    async def name_unnamed(self, thread_id: int, name: str) -> None:
        """Name a thread that has no name yet."""
        ...


class ThreadNamer:
    """Names threads in the background.

    Args:
        models: generate names; while no provider is available, the first words of the message are used.
    """

    def __init__(self, threads: ThreadNameStore, models: LLMModelFactory[BaseModel]) -> None:
        self._threads = threads
        self._models = models
        self._queue: asyncio.Queue[Beginning] = asyncio.Queue(QUEUE_LIMIT)
        self._queued_ids: set[int] = set()
        self._tasks = BackgroundTasks()

    async def start(self) -> None:
        """Start the background workers."""
        for _ in range(WORKERS):
            self._tasks.start(self._name_queued(), "thread_names")

    async def close(self) -> None:
        """Cancel pending naming; an unnamed thread is retried after its next answer."""
        await self._tasks.close()

    def request(self, beginning: Beginning) -> None:
        """Queue a thread for naming. Never blocks."""
        thread_id = beginning.thread.id
        if thread_id in self._queued_ids or self._queue.full():
            return
        self._queued_ids.add(thread_id)
        self._queue.put_nowait(beginning)

    async def _name_queued(self) -> None:
        while True:
            beginning = await self._queue.get()
            try:
                await self._name(beginning)
            except Exception:
                # A bug: this thread stays unnamed, the others get their names.
                log.exception("thread.naming_failed", thread_id=beginning.thread.id)
            finally:
                self._queued_ids.discard(beginning.thread.id)

    async def _name(self, beginning: Beginning) -> None:
        name = await self._generate(beginning) or first_words(beginning.message or beginning.answer, MAX_LENGTH)
        if not name:
            return
        try:
            await self._threads.name_unnamed(beginning.thread.id, name)
        except StorageError as error:
            log.warning("thread.naming_failed", thread_id=beginning.thread.id, error=str(error))

    async def _generate(self, beginning: Beginning) -> str | None:
        if beginning.is_demo:
            return None
        model = self._models.create_name_generator_model(
            beginning.language, MAX_LENGTH, local_only=beginning.local_only, chat=beginning.thread.key.chat_ref
        )
        try:
            return await model.name(beginning.message, beginning.answer)
        except ProviderError as error:
            log.info("thread.name_fallback", thread_id=beginning.thread.id, error=type(error).__name__)
            return None
