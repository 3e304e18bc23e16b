"""Reads and writes a turn in the database; a failed write is repeated in the background."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import structlog
from pydantic_ai.messages import ModelMessage, ModelRequest, ModelResponse, ToolCallPart

from core.errors import StorageError
from services.chat.media.voice import has_recording
from services.chat.memory import ConversationMemory
from services.chat.prompts import split_parts
from services.chat.reply import ShownPicture
from services.chat.store.conversation import ANSWERED, Turn, TurnStatus
from services.chat.store.files import DocumentStore, PictureStore
from services.chat.store.history import ThreadMemories
from services.chat.store.notes import Notes
from services.chat.store.turns import TurnStore
from services.chat.turn import TurnOutcome, TurnRun
from services.llm.capabilities.asking import Picture
from services.llm.models.routed import last_provenance
from services.llm.request import RequestSpec
from services.preferences import PreferenceStore

log = structlog.get_logger()


Save = Callable[[], Awaitable[None]]


class DeferredWrites:
    """Saves at once, or later while the database is unavailable.

    Args:
        limit: pending writes; beyond it the oldest is dropped.
    """

    def __init__(self, limit: int = 1000) -> None:
        self._limit = limit
        self._pending: deque[Save] = deque()
        self._flush_lock = asyncio.Lock()

    def __len__(self) -> int:
        return len(self._pending)

    async def save(self, save: Save) -> bool:
        """Saves after all pending writes; queues it where the database rejects it. Returns whether it is saved.

        Raises:
            StorageError: the database will never accept it.
        """
        if await self.flush():
            try:
                await save()
            except StorageError as error:
                if error.permanent:
                    raise
                log.error("turn.not_saved", error=str(error))
            else:
                return True
        self._queue(save)
        return False

    async def flush(self) -> bool:
        """Saves the pending writes, as far as the database accepts them. Returns whether none is left."""
        if self._flush_lock.locked():
            # Each try may take a whole busy timeout; concurrent callers share one.
            async with self._flush_lock:
                return not self._pending
        async with self._flush_lock:
            while self._pending:
                save = self._pending[0]
                try:
                    await save()
                    log.info("turn.backlog_flushed")
                except StorageError as error:
                    if not error.permanent:
                        return False
                    log.warning("turn.write_rejected", error=str(error))
                except Exception:
                    # A bug in one write must not block the others.
                    log.exception("turn.lost")
                # It may have been dropped for a newer one while it was being saved.
                if self._pending and self._pending[0] is save:
                    self._pending.popleft()
        return True

    def _queue(self, save: Save) -> None:
        if len(self._pending) >= self._limit:
            self._pending.popleft()
            log.error("turn.lost", pending=self._limit)
        self._pending.append(save)


@dataclass(frozen=True, slots=True)
class ChatStores:
    """Storage that a turn reads and writes."""

    turns: TurnStore
    notes: Notes
    preferences: PreferenceStore
    memories: ThreadMemories
    documents: DocumentStore
    pictures: PictureStore


class TurnRecords:
    """Reads and writes the stored data of a turn; a failure costs memory, and not the answer.

    Args:
        memory: recalls the history.
        deferred: repeats writes that the database rejects.
    """

    def __init__(self, stores: ChatStores, memory: ConversationMemory, deferred: DeferredWrites) -> None:
        self._stores = stores
        self._memory = memory
        self._deferred = deferred

    async def recall_acts(self, run: TurnRun, retry_of: Turn) -> None:
        """Lets a Retry find the acts of the first attempt, and the result of a call that was carried out aside."""
        try:
            run.acts_for, messages = await self._stores.turns.find_first_attempt(retry_of)
        except StorageError as error:
            log.warning("turn.acts_unavailable", error=str(error))
            run.acts_for = None
            return
        run.prelude = _find_prelude(messages)

    async def open(self, run: TurnRun) -> Sequence[ModelMessage]:
        """Reads the history and saves the prompt. Without a database the turn goes on without memory."""
        turns, key = self._stores.turns, run.incoming.key
        is_flushed = await self._deferred.flush()
        if is_flushed and run.thread is None and (begun := await self._begin(run)) is not None:
            return begun
        history: Sequence[ModelMessage] = ()
        try:
            run.preference = await self._stores.preferences.get(key.chat_ref)
            run.reply.stream_mode = run.preference.stream_mode
            run.thread = run.thread or await turns.current(key)
            run.recall = await self._memory.recall(run.thread, before_turn=run.replaces_id)
            history = run.recall.history
        except StorageError as error:
            log.error("turn.history_unavailable", error=str(error))
            run.has_memory = False
        # While earlier turns wait for the database, this one waits too: their order counts.
        if is_flushed:
            try:
                await self._open_turn(run)
            except StorageError as error:
                log.error("turn.prompt_not_saved", error=str(error))
        return history

    async def fit(self, run: TurnRun, history: Sequence[ModelMessage], spec: RequestSpec) -> Sequence[ModelMessage]:
        """Drops turns where the history has outgrown its budget; a Retry keeps the history of the first answer.

        Args:
            spec: spec of the answer, also used to request a summary of the dropped turns.
        """
        if run.thread is None or run.recall is None or not run.recall.is_over or run.replaces_id is not None:
            return history
        fitted = await self._memory.fit(run.thread, run.recall, spec)
        run.is_first_drop = fitted.is_first_drop
        return fitted.history

    async def _begin(self, run: TurnRun) -> Sequence[ModelMessage] | None:
        """Reads the history and saves the prompt together. Returns None where the database accepts only one of them."""
        incoming = run.incoming
        try:
            beginning = await self._stores.turns.begin(
                incoming.key, incoming.speaker.user_id, run.prompt, self._memory.limits.history_tokens,
                origin=run.origin, question_id=run.question_id,
            )  # fmt: skip
        except StorageError:
            return None
        run.preference, run.thread = beginning.preference, beginning.turn.thread
        run.reply.stream_mode = run.preference.stream_mode
        run.recall = beginning.recall
        await self._continue_turn(run, beginning.turn)
        return beginning.recall.history

    async def _open_turn(self, run: TurnRun) -> Turn:
        """Saves the prompt unless it is saved already."""
        if run.turn is None:
            run.thread = run.thread or await self._stores.turns.current(run.incoming.key)
            speaker = run.incoming.speaker.user_id
            turn = await self._stores.turns.open_turn(
                run.thread, speaker, run.prompt,
                replaces_id=run.replaces_id, origin=run.origin, question_id=run.question_id,
            )  # fmt: skip
            await self._continue_turn(run, turn)
            return turn
        return run.turn

    async def _continue_turn(self, run: TurnRun, turn: Turn) -> None:
        run.turn = turn
        run.reply.turn_id = turn.id
        run.reply.earlier_ids = turn.answer_ids
        # A turn that is stored now has its given prompt.
        run.reply.is_resumed = turn.prompt is not run.prompt
        if run.reply.is_resumed and turn.prompt is not None and has_recording(run.prompt):
            # An earlier attempt may have heard it already.
            run.prompt = turn.prompt
        if turn.status in ANSWERED:
            run.messages = (await self._stores.turns.answer(turn.id))[1:]
            run.is_answered = True

    async def keep_transcript(self, run: TurnRun) -> None:
        """Puts the text of a voice message into the stored prompt, where a Retry finds it."""
        if run.turn is None:
            return
        try:
            await self._stores.turns.replace_prompt(run.turn.id, run.prompt)
        except StorageError as error:
            # The whole turn is saved at its end, with the text.
            log.warning("turn.transcript_not_saved", error=str(error))

    async def keep_documents(self, run: TurnRun) -> None:
        """Stores long documents, of which the prompt has the first part only."""
        texts = [
            (file.name, file.text) for file in run.incoming.files if file.by_part and len(split_parts(file.text)) > 1
        ]
        if not texts or run.turn is None:
            return
        try:
            await self._stores.documents.keep(run.turn.id, texts)
        except StorageError as error:
            log.warning("turn.documents_not_saved", error=str(error))

    async def keep_picture(self, run: TurnRun, number: int, picture: Picture) -> None:
        """Stores a picture, so that it can be sent as a file later."""
        if run.turn is None:
            return
        try:
            await self._stores.pictures.keep(run.incoming.key, run.turn.id, number, picture.data, picture.media_type)
        except StorageError as error:
            log.warning("turn.picture_not_saved", error=str(error))

    async def restore_pictures(self, run: TurnRun) -> None:
        """Puts the pictures of an earlier attempt back under the answer."""
        if run.turn is None:
            return
        try:
            found = await self._stores.pictures.of_turn(run.turn.id)
        except StorageError as error:
            log.warning("turn.pictures_unavailable", error=str(error))
            return
        run.reply.pictures += [ShownPicture(data, f"picture.{kind.rpartition('/')[2]}") for data, kind in found]

    async def save(self, run: TurnRun, outcome: TurnOutcome) -> bool:
        """Saves the turn now, or later if the database rejects it."""
        status = outcome.status
        if run.replaces_id is not None and not run.reply.text and not run.reply.pictures:
            # A Retry without an answer replaces nothing.
            status = TurnStatus.FAILED
        # A Retry of a failed answer to a permission needs the result of the call.
        messages = tuple(run.prelude) if status is TurnStatus.FAILED else run.messages
        if messages and run.is_heard:
            messages = (run.prompt, *messages)
        usage = [message.usage for message in run.messages if isinstance(message, ModelResponse)]

        async def write() -> None:
            turn = await self._open_turn(run)
            await self._stores.turns.close_turn(
                turn.id,
                status,
                messages,
                provider=run.reply.provider,
                model=run.reply.model,
                input_tokens=sum(entry.input_tokens for entry in usage) or None,
                output_tokens=sum(entry.output_tokens for entry in usage) or None,
            )

        return await self._deferred.save(write)


def _find_prelude(messages: Sequence[ModelMessage]) -> Sequence[ModelMessage]:
    """Returns the call that was carried out aside and its result, which follow the prompt; no model made them."""
    match messages:
        case [ModelRequest(), ModelResponse(parts=[ToolCallPart()]) as call, ModelRequest() as result, *_] if (
            last_provenance([call]) is None
        ):
            return (call, result)
        case _:
            return ()
