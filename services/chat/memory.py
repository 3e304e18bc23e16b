"""Memory of long conversations: fits a history into its budget, and summarises the dropped turns."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import structlog
from pydantic import BaseModel
from pydantic_ai.messages import ModelMessage

from core.errors import ProviderError, StorageError
from services.chat.store.conversation import Thread
from services.chat.store.history import Recall, Remembered, ThreadMemories
from services.llm.models.factory import LLMModelFactory
from services.llm.request import RequestSpec

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class MemoryLimits:
    """Bounds of a history.

    Args:
        history_tokens: estimated tokens of the summary and the turns that are sent.
        summary_s: longest wait of an answer for a summary; without one the drop happens all the same.
    """

    history_tokens: int = 8000
    summary_s: float = 20.0


class Compaction(StrEnum):
    """The result of `/compact`."""

    DONE = "compact-done"
    NOTHING = "compact-nothing"
    FAILED = "compact-failed"


@dataclass(frozen=True, slots=True)
class Fitted:
    """A history within its budget, and whether the thread has just dropped turns for the first time."""

    history: Sequence[ModelMessage]
    is_first_drop: bool


class ConversationMemory:
    """Keeps the histories of threads within their budget.

    Args:
        memories: the starts and the summaries of threads.
        models: create the model that summarises.
    """

    def __init__(
        self, memories: ThreadMemories, models: LLMModelFactory[BaseModel], limits: MemoryLimits | None = None
    ) -> None:
        self._memories = memories
        self._models = models
        self.limits = limits or MemoryLimits()

    async def recall(self, thread: Thread, *, before_turn: int | None = None) -> Recall:
        """Returns the history of a thread.

        Raises:
            StorageError: the database fails.
        """
        return await self._memories.recall(thread, self.limits.history_tokens, before_turn=before_turn)

    async def fit(self, thread: Thread, recall: Recall, spec: RequestSpec) -> Fitted:
        """Drops turns down to half of the budget at once, with a summary where a provider gives one.

        Args:
            recall: exceeds the budget.
            spec: spec of the conversation's requests: the summary goes to the same providers.
        """
        try:
            start_id = await self._memories.plan_drop(thread, recall.remembered, self.limits.history_tokens // 2)
            if start_id is None:
                return Fitted(recall.history, is_first_drop=False)
            summary = await self._summarise(thread, recall.remembered, start_id, spec)
            # An earlier summary is better than none.
            remembered = Remembered(start_id, summary or recall.remembered.summary)
            is_first = await self._memories.move(thread, remembered)
            log.info("memory.compacted", thread_id=thread.id, is_summarised=summary is not None)
            return Fitted((await self.recall(thread)).history, is_first)
        except StorageError as error:
            log.warning("memory.not_compacted", error=str(error))
            return Fitted(recall.history, is_first_drop=False)

    async def compact(self, thread: Thread, spec: RequestSpec) -> Compaction:
        """Summarises all turns but the last one, at a user's request; nothing is dropped without a summary.

        Raises:
            StorageError: the database fails.
        """
        recall = await self.recall(thread)
        start_id = await self._memories.plan_drop(thread, recall.remembered, 0)
        if start_id is None:
            return Compaction.NOTHING
        summary = await self._summarise(thread, recall.remembered, start_id, spec)
        if summary is None:
            return Compaction.FAILED
        await self._memories.move(thread, Remembered(start_id, summary))
        log.info("memory.compacted", thread_id=thread.id, is_summarised=True)
        return Compaction.DONE

    async def _summarise(self, thread: Thread, before: Remembered, start_id: int, spec: RequestSpec) -> str | None:
        """Returns a summary of the dropped turns; None where no provider gives one in time."""
        dropped = await self._memories.dropped(thread, before.start_id, start_id)
        try:
            async with asyncio.timeout(self.limits.summary_s):
                return await self._models.create_summariser(spec).summarise(before.summary, dropped)
        except (ProviderError, TimeoutError) as error:
            log.info("memory.summary_failed", thread_id=thread.id, error=type(error).__name__)
            return None
