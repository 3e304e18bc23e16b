"""Reads and writes of a turn beside the usual ones: its files, an earlier attempt, a database that fails."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import structlog
from pydantic_ai.messages import ModelMessage, ModelRequest, ModelResponse, TextPart, ToolCallPart

from core.errors import StorageError
from core.messages import ConversationKey, Incoming, UserRef
from services.chat.media.voice import has_recording, quote_transcripts
from services.chat.memory import Compaction, ConversationMemory
from services.chat.prompts import find_description, split_parts, to_prompt
from services.chat.reply import ShownPicture
from services.chat.store.conversation import ANSWERED, Turn, TurnStatus
from services.chat.store.files import DocumentStore, PictureStore
from services.chat.store.history import Recall, ThreadMemories
from services.chat.store.notes import Notes
from services.chat.store.turns import TurnStore
from services.chat.turn import TurnRun
from services.llm.capabilities.asking import Picture
from services.llm.models.factory import CHAT
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
        self.pending: deque[Save] = deque()
        """The oldest first; also one that is being saved."""
        self._flush_lock = asyncio.Lock()

    async def save(self, save: Save) -> bool:
        """Saves after all pending writes; queues it where the database rejects it. Returns whether it is saved.

        Raises:
            StorageError: the database will never accept it.
        """
        if await self.flush():
            try:
                await save()
            except StorageError as error:
                self.put_off(save, error)
            else:
                return True
        else:
            self._queue(save)
        return False

    def put_off(self, save: Save, error: StorageError) -> None:
        """Queues a write that the database rejected.

        Raises:
            StorageError: the given one: the database will never accept it.
        """
        if error.permanent:
            raise error
        log.error("turn.not_saved", error=str(error))
        self._queue(save)

    async def flush(self) -> bool:
        """Saves the pending writes, as far as the database accepts them. Returns whether none is left."""
        if self._flush_lock.locked():
            # Each try may take a whole busy timeout; concurrent callers share one.
            async with self._flush_lock:
                return not self.pending
        async with self._flush_lock:
            while self.pending:
                save = self.pending[0]
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
                if self.pending and self.pending[0] is save:
                    self.pending.popleft()
        return True

    def _queue(self, save: Save) -> None:
        if len(self.pending) >= self._limit:
            self.pending.popleft()
            log.error("turn.lost", pending=self._limit)
        self.pending.append(save)


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
    """Reads and writes the stored data of turns; a failure costs memory, and not the answer.

    Args:
        memory: recalls the history.
        deferred: repeats writes that the database rejects.
        asks_consent: whether a chat must agree before its messages go to remote providers.
    """

    def __init__(
        self, stores: ChatStores, memory: ConversationMemory, deferred: DeferredWrites, *, asks_consent: bool
    ) -> None:
        self._stores = stores
        self._memory = memory
        self._deferred = deferred
        self._asks_consent = asks_consent

    async def record(self, incoming: Incoming, text: str, *, origin: str | None = None) -> int:
        """Stores a message of the bot's own as the answer to a prompt, so that people can reply to it.

        Args:
            incoming: the prompt that stands before it in the history.
            origin: id of the job; a repeated job finds the turn of the first.

        Returns:
            The id of the turn.

        Raises:
            StorageError: the database fails.
        """
        turns = self._stores.turns
        thread = await turns.current(incoming.key)
        turn = await turns.open_turn(thread, incoming.speaker.user_id, to_prompt(incoming), origin=origin)
        if turn.status not in ANSWERED:
            await turns.close_turn(turn.id, TurnStatus.COMPLETE, [ModelResponse([TextPart(text)])])
        return turn.id

    async def compact(self, key: ConversationKey, user: UserRef) -> Compaction:
        """Summarises the current thread of a chat at a user's request.

        Raises:
            StorageError: the database fails.
        """
        preference = await self._stores.preferences.get(key.chat_ref)
        thread = await self._stores.turns.current(key)
        is_local_only = self._asks_consent and not preference.remote_consent
        return await self._memory.compact(
            thread, RequestSpec(CHAT, user=user, chat=key.chat_ref, local_only=is_local_only)
        )

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
        """Reads the history and saves the prompt, apart. Without a database the turn goes on without memory."""
        turns, key = self._stores.turns, run.incoming.key
        is_flushed = await self._deferred.flush()
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
                await self.open_turn(run)
            except StorageError as error:
                log.error("turn.prompt_not_saved", error=str(error))
        return history

    async def open_turn(self, run: TurnRun) -> Turn:
        """Saves the prompt."""
        run.thread = run.thread or await self._stores.turns.current(run.incoming.key)
        run.turn = await self._stores.turns.open_turn(
            run.thread, run.incoming.speaker.user_id, run.prompt,
            replaces_id=run.replaces_id, origin=run.origin, question_id=run.question_id,
        )  # fmt: skip
        run.reply.turn_id = run.turn.id
        if run.turn.prompt is not run.prompt:
            await self.resume(run, run.turn)
        return run.turn

    async def resume(self, run: TurnRun, turn: Turn) -> None:
        """Takes up a turn that an earlier attempt has stored, perhaps with its answer."""
        run.reply.earlier_ids = turn.answer_ids
        run.reply.is_resumed = True
        if turn.prompt is not None and has_recording(run.prompt):
            # An earlier attempt may have heard it already.
            run.prompt = turn.prompt
        if turn.status in ANSWERED:
            run.messages = (await self._stores.turns.answer(turn.id))[1:]
            run.is_answered = True

    async def replay(self, run: TurnRun) -> None:
        """Writes the answer of an earlier process to the reply again, since its delivery may be incomplete."""
        run.reply.heading = quote_transcripts(run.prompt)
        await self.restore_pictures(run)
        for message in run.messages if find_description(run.prompt) is None else ():
            for part in message.parts:
                if isinstance(part, TextPart):
                    run.reply.begin_part()
                    run.reply.write(part.content)

    async def fit(self, run: TurnRun, recall: Recall, spec: RequestSpec) -> Sequence[ModelMessage]:
        """Drops turns of a history that exceeds its budget; a Retry keeps the history of the first answer.

        Args:
            spec: spec of the answer, also used to request a summary of the dropped turns.
        """
        if run.thread is None or run.replaces_id is not None:
            return recall.history
        fitted = await self._memory.fit(run.thread, recall, spec)
        run.is_first_drop = fitted.is_first_drop
        return fitted.history

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


def _find_prelude(messages: Sequence[ModelMessage]) -> Sequence[ModelMessage]:
    """Returns the call that was carried out aside and its result, which follow the prompt; no model made them."""
    match messages:
        case [ModelRequest(), ModelResponse(parts=[ToolCallPart()]) as call, ModelRequest() as result, *_] if (
            last_provenance([call]) is None
        ):
            return (call, result)
        case _:
            return ()
