"""Names threads in the background; neither an answer nor a shutdown waits for it."""

import asyncio
from dataclasses import dataclass
from typing import Protocol

import structlog

from core.errors import ProviderError, StorageError
from core.messages import ChatRef
from services.chat.store.conversation import Thread
from services.llm.models.name_generator import NameGenerator, first_words

log = structlog.get_logger()

MAX_LENGTH = 40
"""Characters of a name that fit on a button on a phone."""
WORKERS = 3
LIMIT = 200
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


class NameModelFactory(Protocol):
    """Creates the models that generate names."""

    def create_name_generator_model(
        self, language: str | None, max_length: int, *, local_only: bool = False, chat: ChatRef | None = None
    ) -> NameGenerator:
        """Create a model that names conversations."""
        ...


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

    def __init__(self, threads: ThreadNameStore, models: NameModelFactory) -> None:
        self._threads = threads
        self._models = models
        self._wanted: asyncio.Queue[Beginning] = asyncio.Queue(LIMIT)
        self._being_named: set[int] = set()
        self._workers: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Start the background workers."""
        self._workers = [asyncio.create_task(self._work(), name="thread_names") for _ in range(WORKERS)]

    async def close(self) -> None:
        """Cancel pending naming; an unnamed thread is retried after its next answer."""
        for worker in self._workers:
            worker.cancel()
        await asyncio.gather(*self._workers, return_exceptions=True)
        self._workers = []

    def request(self, beginning: Beginning) -> None:
        """Queue a thread for naming. Never blocks."""
        thread_id = beginning.thread.id
        if thread_id in self._being_named or self._wanted.full():
            return
        self._being_named.add(thread_id)
        self._wanted.put_nowait(beginning)

    async def _work(self) -> None:
        while True:
            beginning = await self._wanted.get()
            try:
                await self._name(beginning)
            except Exception:
                # A bug: this thread stays unnamed, the others get their names.
                log.exception("thread.naming_failed", thread_id=beginning.thread.id)
            finally:
                self._being_named.discard(beginning.thread.id)

    async def _name(self, beginning: Beginning) -> None:
        name = await self._generated(beginning) or first_words(beginning.message or beginning.answer, MAX_LENGTH)
        if not name:
            return
        try:
            await self._threads.name_unnamed(beginning.thread.id, name)
        except StorageError as error:
            log.warning("thread.naming_failed", thread_id=beginning.thread.id, error=str(error))

    async def _generated(self, beginning: Beginning) -> str | None:
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
