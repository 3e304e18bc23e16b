"""The names of threads, made aside: no answer waits for one, and neither does a shutdown."""

import asyncio
from dataclasses import dataclass
from typing import Protocol

import structlog

from core.errors import ProviderError, StorageError
from services.chat.store.conversation import Thread
from services.llm.models.name_generator import NameGenerator, first_words

log = structlog.get_logger()

MAX_LENGTH = 40
"""Characters of a name: what fits on a button of a phone."""
WORKERS = 3
LIMIT = 200
"""Threads that wait for their names, at most; one that is turned away gets its chance with its next answer."""


@dataclass(frozen=True, slots=True)
class Beginning:
    """How a thread began, or goes on, while it has no name.

    Args:
        thread: the thread.
        message: what its user wrote; empty where that was only files.
        answer: what they got.
        language: theirs, an IETF tag.
        local_only: nobody agreed to remote providers.
        is_demo: there is no model that could think of a name.
    """

    thread: Thread
    message: str
    answer: str
    language: str | None = None
    local_only: bool = False
    is_demo: bool = False


class NameModelFactory(Protocol):
    """Makes the models that names come from."""

    def create_name_generator_model(
        self, language: str | None, max_length: int, *, local_only: bool = False, chat: str | None = None
    ) -> NameGenerator:
        """A model that names conversations."""
        ...


class ThreadNameStore(Protocol):
    """Where names are kept."""

    async def name_unnamed(self, thread_id: int, name: str) -> None:
        """Give a thread its name, unless it got one meanwhile."""
        ...


class ThreadNamer:
    """Names threads in the background.

    Args:
        threads: where names are kept.
        models: where they come from; where nobody serves, the first words of the message do.
    """

    def __init__(self, threads: ThreadNameStore, models: NameModelFactory) -> None:
        self._threads = threads
        self._models = models
        self._wanted: asyncio.Queue[Beginning] = asyncio.Queue(LIMIT)
        self._being_named: set[int] = set()
        self._workers: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Begin to name what is wanted."""
        self._workers = [asyncio.create_task(self._work(), name="titles") for _ in range(WORKERS)]

    async def close(self) -> None:
        """Leave the rest without a name; each gets one after its next answer."""
        for worker in self._workers:
            worker.cancel()
        await asyncio.gather(*self._workers, return_exceptions=True)
        self._workers = []

    def want(self, beginning: Beginning) -> None:
        """Have a thread named, some time soon; never blocks."""
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
                # A bug of ours: this thread stays without a name, and the others get theirs.
                log.exception("thread.not_named", thread_id=beginning.thread.id)
            finally:
                self._being_named.discard(beginning.thread.id)

    async def _name(self, beginning: Beginning) -> None:
        name = await self._generated(beginning) or first_words(beginning.message or beginning.answer, MAX_LENGTH)
        if not name:
            return
        try:
            await self._threads.name_unnamed(beginning.thread.id, name)
        except StorageError as error:
            log.warning("thread.not_named", thread_id=beginning.thread.id, error=str(error))

    async def _generated(self, beginning: Beginning) -> str | None:
        if beginning.is_demo:
            return None
        model = self._models.create_name_generator_model(
            beginning.language, MAX_LENGTH, local_only=beginning.local_only, chat=beginning.thread.key.chat_ref
        )
        try:
            return await model.name(beginning.message, beginning.answer)
        except ProviderError as error:
            log.info("thread.named_by_its_words", thread_id=beginning.thread.id, error=type(error).__name__)
            return None
