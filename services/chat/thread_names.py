"""Names threads in the background; neither an answer, a question nor a shutdown waits for it.

A name is asked for once its chat is quiet, at a provider with a free slot, and not again and again: a question in the
chat or for that slot cancels it, and it is asked later.
"""

import asyncio
import heapq
import itertools
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol

import structlog
from pydantic import BaseModel

from core.background import BackgroundTasks
from core.errors import AllProvidersFailed, ProviderError, StorageError
from core.messages import ChatRef, ConversationKey
from services.chat.store.conversation import Thread
from services.llm.models.factory import LLMModelFactory
from services.llm.models.name_generator import first_words
from services.llm.routing.request_failures import BUSY

log = structlog.get_logger()

MAX_LENGTH = 40
"""Characters of a name that fit on a button on a phone."""
WORKERS = 3
QUEUE_LIMIT = 200
"""Threads that may wait for a name. A thread beyond that is considered again after its next answer."""


@dataclass(frozen=True, slots=True)
class NamingTiming:
    """Waits of a thread for its name, in seconds.

    Args:
        quiet_s: how long no turn may have run in the chat.
        retry_s: pause after a name was cancelled or found no free slot; it doubles each time.
        longest_retry_s: longest pause of those.
        tries: how often a name is asked for; after that the first words of the message are the name.
    """

    quiet_s: float = 2.0
    retry_s: float = 5.0
    longest_retry_s: float = 300.0
    tries: int = 8


@dataclass(frozen=True, slots=True)
class Beginning:
    """Text from which a thread gets its name.

    Args:
        message: the user's text; empty for attachments only.
        answer: the model's text.
        language: IETF tag of the user's language.
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
        """Names a thread that has no name yet."""
        ...


OnNamed = Callable[[ConversationKey, str], Awaitable[None]]


@dataclass(slots=True, eq=False)
class _Pending:
    """A thread that waits for a name."""

    beginning: Beginning
    due_at: float = 0.0
    """The event loop's time from which it may be named."""
    is_in_work: bool = False
    tries: int = 0
    naming: asyncio.Task[str | None] | None = None
    chat: ChatRef = field(init=False)

    def __post_init__(self) -> None:
        self.chat = self.beginning.thread.key.chat_ref


class ThreadNamer:
    """Names threads in the background.

    Args:
        models: generate names; while no provider is available, the first words of the message are used.
    """

    def __init__(
        self, threads: ThreadNameStore, models: LLMModelFactory[BaseModel], timing: NamingTiming | None = None
    ) -> None:
        self._threads = threads
        self._models = models
        self._timing = timing or NamingTiming()
        self._pending: dict[int, _Pending] = {}
        """By thread."""
        self._due: list[tuple[float, int, _Pending]] = []
        """Heap of due times; a thread whose time changes gets a further entry, and the older one is skipped."""
        self._numbers = itertools.count()
        self.running: Counter[ChatRef] = Counter()
        """Turns that are running, by chat; the service of the turns counts them."""
        self.waiting: Counter[ChatRef] = Counter()
        """Threads that wait for a name, by chat."""
        self._changed = asyncio.Event()
        self._tasks = BackgroundTasks()
        self._on_named: OnNamed | None = None

    def listen(self, on_named: OnNamed) -> None:
        """Registers the callback that gives a topic the name of its thread."""
        self._on_named = on_named

    async def start(self) -> None:
        """Starts the background workers."""
        for _ in range(WORKERS):
            self._tasks.start(self._name_pending(), "thread_names")

    async def close(self) -> None:
        """Cancels pending naming; an unnamed thread is retried after its next answer."""
        await self._tasks.close()

    def request(self, beginning: Beginning) -> None:
        """Queues a thread for naming. Never blocks."""
        thread_id = beginning.thread.id
        if thread_id in self._pending or len(self._pending) >= QUEUE_LIMIT:
            return
        self._pending[thread_id] = pending = _Pending(beginning)
        self.waiting[pending.chat] += 1
        self._schedule(pending, self._now() + self._timing.quiet_s)

    def pause(self, chat: ChatRef) -> None:
        """Cancels the names in progress of a chat, in which a turn begins."""
        for pending in self._pending_of(chat):
            if pending.naming is not None:
                pending.naming.cancel()

    def resume(self, chat: ChatRef) -> None:
        """Schedules the threads of a chat, in which the last turn has ended."""
        quiet_at = self._now() + self._timing.quiet_s
        for pending in self._pending_of(chat):
            if pending.due_at < quiet_at:
                self._schedule(pending, quiet_at)

    def _pending_of(self, chat: ChatRef) -> list[_Pending]:
        return [each for each in self._pending.values() if each.chat == chat]

    def _schedule(self, pending: _Pending, due_at: float) -> None:
        pending.due_at = due_at
        if pending.is_in_work:
            return
        heapq.heappush(self._due, (due_at, next(self._numbers), pending))
        if self._due[0][2] is pending:
            self._changed.set()

    async def _name_pending(self) -> None:
        while True:
            pending = await self._next()
            thread_id = pending.beginning.thread.id
            pending.is_in_work = is_done = True
            try:
                is_done = await self._try(pending)
            except Exception:
                # A bug: this thread stays unnamed, the others get their names.
                log.exception("thread.naming_failed", thread_id=thread_id)
            finally:
                pending.is_in_work = False
                if is_done:
                    self._forget(pending)
                else:
                    self._schedule(pending, pending.due_at)

    def _forget(self, pending: _Pending) -> None:
        del self._pending[pending.beginning.thread.id]
        self.waiting[pending.chat] -= 1
        if not self.waiting[pending.chat]:
            del self.waiting[pending.chat]

    async def _next(self) -> _Pending:
        """Waits for a thread in a quiet chat."""
        while True:
            self._changed.clear()
            now = self._now()
            while self._due and self._due[0][0] <= now:
                due_at, _, pending = heapq.heappop(self._due)
                # The end of a turn schedules the threads of its chat again.
                if due_at == pending.due_at and pending.chat not in self.running:
                    return pending
            try:
                async with asyncio.timeout(self._due[0][0] - now if self._due else None):
                    await self._changed.wait()
            except TimeoutError:
                continue

    async def _try(self, pending: _Pending) -> bool:
        """Names a thread; returns False if it is to be tried again later."""
        beginning, name = pending.beginning, None
        pending.tries += 1
        if not beginning.is_demo and pending.tries <= self._timing.tries:
            pending.naming = asyncio.create_task(self._generate(beginning), name="thread_names.generate")
            try:
                await asyncio.wait({pending.naming})
                if pending.naming.cancelled():
                    self._put_off(pending, "cancelled")
                    return False
                name = pending.naming.result()
            except AllProvidersFailed as error:
                if any(attempt.reason == BUSY for attempt in error.attempts):
                    self._put_off(pending, BUSY)
                    return False
                log.info("thread.name_fallback", thread_id=beginning.thread.id, error=type(error).__name__)
            finally:
                pending.naming.cancel()
                pending.naming = None
        await self._name(beginning, name)
        return True

    def _put_off(self, pending: _Pending, reason: str) -> None:
        pause_s = min(self._timing.retry_s * 2 ** (pending.tries - 1), self._timing.longest_retry_s)
        pending.due_at = self._now() + pause_s
        log.info("thread.naming_put_off", thread_id=pending.beginning.thread.id, reason=reason, seconds=pause_s)

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()

    async def _name(self, beginning: Beginning, generated: str | None) -> None:
        name = generated or first_words(beginning.message or beginning.answer, MAX_LENGTH)
        if not name:
            return
        try:
            await self._threads.name_unnamed(beginning.thread.id, name)
            if beginning.thread.names_topic and self._on_named is not None:
                await self._on_named(beginning.thread.key, name)
        except StorageError as error:
            log.warning("thread.naming_failed", thread_id=beginning.thread.id, error=str(error))

    async def _generate(self, beginning: Beginning) -> str | None:
        """Asks for a name; None where the first words serve.

        Raises:
            AllProvidersFailed: no provider could be asked, or none answered.
        """
        model = self._models.create_name_generator_model(
            beginning.language,
            MAX_LENGTH,
            local_only=beginning.local_only,
            chat=beginning.thread.key.chat_ref,
            stands_back=True,
        )
        try:
            return await model.name(beginning.message, beginning.answer)
        except AllProvidersFailed:
            raise
        except ProviderError as error:
            log.info("thread.name_fallback", thread_id=beginning.thread.id, error=type(error).__name__)
            return None
