"""The life of a turn: it recalls the history, has the answer produced into a reply, and is recorded."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, tzinfo

import structlog
from cachetools import TTLCache
from pydantic import BaseModel
from pydantic_ai import Agent
from pydantic_ai.messages import ModelRequest, ModelResponse, TextPart

from core.clock import Clock
from core.errors import StorageError
from core.i18n import Texts
from core.messages import ConversationKey, Incoming, Surface, UserRef
from services.chat.answering import AnswerProducer, Footers
from services.chat.failures import classify_failure, replay_outcome
from services.chat.media.file_tools import TextToImage
from services.chat.media.voice import SpeechToText, quote_transcripts
from services.chat.memory import Compaction, ConversationMemory, MemoryLimits
from services.chat.prompts import find_description, picture_prompt, prompt_text, to_prompt
from services.chat.reply import AskedCall, Reply, ReplyPhase
from services.chat.stand_ins import StandInNotices
from services.chat.store.conversation import ANSWERED, TurnStatus
from services.chat.thread_names import Beginning, ThreadNamer
from services.chat.turn import TurnContext, TurnObserver, TurnOutcome, TurnRequest, TurnRun
from services.chat.turn_records import ChatStores, DeferredWrites, TurnRecords
from services.llm.models.factory import CHAT, LLMModelFactory
from services.llm.request import RequestSpec

log = structlog.get_logger()

TOLD_S = 60.0
"""Time for which further messages of a person over a budget are dropped, once the person was told so."""
MAX_TOLD = 10_000


class ChatService:
    """Answers messages.

    Args:
        history_tokens: token budget of the history.
        demo_ids: demo providers; their answers carry a footer.
        asks_consent: whether a chat must agree before its messages go to remote providers.
        namer: names threads after their first answer.
        zone: time zone of displayed times.
        stand_ins: decides which answer says that a remote provider stands in for a local one; None for no answer.
        transcriber: transcribes voice messages; None where no provider for that is configured.
        image_generator: draws pictures; None where no provider for that is configured.
        find_asked: returns the calls that the answer of a job asks to allow; None where no tool acts.
    """

    def __init__(  # noqa: PLR0913 - the services and the settings of a turn
        self,
        *,
        agent: Agent[TurnContext, str],
        models: LLMModelFactory[BaseModel],
        stores: ChatStores,
        texts: Texts,
        clock: Clock,
        history_tokens: int,
        demo_ids: frozenset[str] = frozenset(),
        asks_consent: bool = False,
        observer: TurnObserver | None = None,
        namer: ThreadNamer | None = None,
        stand_ins: StandInNotices | None = None,
        zone: tzinfo = UTC,
        transcriber: SpeechToText | None = None,
        image_generator: TextToImage | None = None,
        find_asked: Callable[[str], Awaitable[Sequence[AskedCall]]] | None = None,
    ) -> None:
        self._find_asked = find_asked
        self._draws = image_generator is not None
        self._stores = stores
        self._texts = texts
        self._clock = clock
        self._memory = ConversationMemory(stores.memories, models, MemoryLimits(history_tokens))
        self._demo_ids = demo_ids
        self._asks_consent = asks_consent
        self._namer = namer
        self._stand_ins = stand_ins
        self._zone = zone
        self._told: TTLCache[tuple[str, str], bool] = TTLCache(MAX_TOLD, TOLD_S, timer=clock.monotonic)
        self.deferred = DeferredWrites()
        """Turns that wait for the database."""
        self._records = TurnRecords(stores, self._memory, self.deferred)
        self._producer = AnswerProducer(
            agent=agent, models=models, records=self._records, notes=stores.notes, texts=texts,
            clock=clock, asks_consent=asks_consent, transcriber=transcriber, image_generator=image_generator,
        )  # fmt: skip
        self._footers = Footers(texts, demo_ids)
        self._observer = observer or TurnObserver()

    async def respond(self, request: TurnRequest, reply: Reply) -> None:
        """Answers a message, or answers an earlier turn again.

        Failures of providers and of the database end the reply; they are not raised. A cancellation ends the reply as
        interrupted, saves it and propagates; with an origin it is not saved, because the job is retried.

        Args:
            reply: receives the answer.
        """
        incoming, retry_of = request.incoming, request.retry_of
        if retry_of is None and (incoming.user_ref, incoming.key.chat_ref) in self._told:
            # Over a budget, and told so: the surplus costs neither a request nor a message.
            reply.is_silent = True
            reply.end(ReplyPhase.FAILED)
            log.info("turn.surplus_dropped", conversation=str(incoming.key))
            return
        run = await self._create_run(request, reply)
        with (
            structlog.contextvars.bound_contextvars(conversation=str(incoming.key)),
            self._observer.turn(reply),
            self._naming_pause(incoming),
        ):
            try:
                outcome = await self._converse(run)
            except asyncio.CancelledError:
                await self._leave(run)
                raise
            if run.is_answered:
                await self._replay(run)
                return
            # Text that the user has read is saved even if a shutdown comes at this moment.
            await _finish(self._close(run, outcome))

    async def _create_run(self, request: TurnRequest, reply: Reply) -> TurnRun:
        incoming, retry_of = request.incoming, request.retry_of
        prompt = retry_of.prompt if retry_of is not None and retry_of.prompt is not None else _prompt(incoming)
        run = TurnRun(incoming, reply, prompt, request.choice, request.origin, self._clock.monotonic(), request.prelude)
        run.question_id, run.acts_for = incoming.message_id, request.origin
        if retry_of is not None:
            run.thread, run.replaces_id = retry_of.thread, retry_of.id_to_replace
            run.question_id = retry_of.question_id
            await self._records.recall_acts(run, retry_of)
        return run

    async def _leave(self, run: TurnRun) -> None:
        """Ends a turn that was cancelled."""
        if run.origin is None:
            await self._close(run, TurnOutcome(ReplyPhase.INTERRUPTED, "shutting-down"))
            return
        # Not saved: the job is retried, and the answer is produced again in the same message.
        run.reply.is_handed_back = True
        notice = self._texts.get("handed-back", run.incoming.speaker.language)
        run.reply.end(ReplyPhase.INTERRUPTED, notice)
        log.info("turn.handed_back")

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

    async def _converse(self, run: TurnRun) -> TurnOutcome:
        try:
            history = await self._records.open(run)
            if run.is_answered:
                return TurnOutcome(ReplyPhase.COMPLETE)
            task = asyncio.create_task(self._producer.produce(run, history), name="turn.answer")
            run.reply.on_stop(task.cancel)
            await task
        except asyncio.CancelledError:
            this = asyncio.current_task()
            if this is not None and this.cancelling():
                raise
            return TurnOutcome(ReplyPhase.STOPPED, "stopped")
        except Exception as error:  # noqa: BLE001 - every failure has an answer for the user; `classify_failure` logs the rest
            return self._note_failure(run, classify_failure(error, run.reply, self._zone))
        return TurnOutcome(ReplyPhase.COMPLETE)

    def _note_failure(self, run: TurnRun, outcome: TurnOutcome) -> TurnOutcome:
        incoming = run.incoming
        if (
            outcome.key is not None
            and outcome.key.startswith("failed-budget")
            and incoming.key.surface is not Surface.CONSOLE
        ):
            self._told[incoming.user_ref, incoming.key.chat_ref] = True
        return outcome

    async def _replay(self, run: TurnRun) -> None:
        """Writes the answer of an earlier process to the reply again, since its delivery may be incomplete."""
        run.reply.heading = quote_transcripts(run.prompt)
        if self._draws:
            await self._records.restore_pictures(run)
        for message in run.messages if find_description(run.prompt) is None else ():
            for part in message.parts:
                if isinstance(part, TextPart):
                    run.reply.begin_part()
                    run.reply.write(part.content)
        status = run.turn.status if run.turn is not None else TurnStatus.COMPLETE
        log.info("turn.replayed", status=status)
        is_blind = run.record_provenance()
        await self._announce_stand_in(run)
        await self._note_asked(run)
        self._end(run, replay_outcome(status), is_blind=is_blind, is_saved=True)

    async def compact(self, key: ConversationKey, user: UserRef) -> Compaction:
        """Summarises the current thread of a chat at a user's request.

        Raises:
            StorageError: the database fails.
        """
        preference = await self._stores.preferences.get(key.chat_ref)
        thread = await self._stores.turns.current(key)
        is_local_only = self._asks_consent and not preference.remote_consent
        spec = RequestSpec(CHAT, user=user, chat=key.chat_ref, local_only=is_local_only)
        return await self._memory.compact(thread, spec)

    async def _close(self, run: TurnRun, outcome: TurnOutcome) -> None:
        """Saves the result of the turn and ends the reply, also when saving fails."""
        self._observer.count_tokens(run.messages)
        is_blind = run.record_provenance()
        saved = False
        try:
            await self._announce_stand_in(run)
            await self._note_asked(run)
            saved = await self._records.save(run, outcome)
        except Exception:
            # The answer exists all the same.
            log.exception("turn.lost")
        finally:
            self._end(run, outcome, is_blind=is_blind, is_saved=saved)
        if saved and outcome.phase is ReplyPhase.COMPLETE:
            self._request_name(run)
        log.info(
            "turn.ended",
            phase=run.reply.phase.name.lower(),
            provider=run.reply.provider,
            model=run.reply.model,
            seconds=round(self._clock.monotonic() - run.began, 3),
        )

    def _end(self, run: TurnRun, outcome: TurnOutcome, *, is_blind: bool, is_saved: bool) -> None:
        footer = self._footers.footer(run, is_blind=is_blind, is_saved=is_saved)
        run.reply.end(outcome.phase, self._footers.notice(run, outcome), footer)

    async def _note_asked(self, run: TurnRun) -> None:
        """Notes the calls that wait for the user; without the database they are asked for by no button."""
        if self._find_asked is None or run.acts_for is None:
            return
        try:
            run.reply.asked_calls = tuple(await self._find_asked(run.acts_for))
        except StorageError as error:
            log.warning("turn.asked_calls_unavailable", error=str(error))

    async def _announce_stand_in(self, run: TurnRun) -> None:
        """Leaves the line about a remote provider to the first answer of an outage in this chat."""
        stand_in = run.stand_in if run.reply.text else None
        if stand_in is None or self._stand_ins is None:
            run.stand_in = None
            return
        is_news = await self._stand_ins.is_news(run.incoming.key.chat_ref, stand_in, run.origin)
        run.stand_in = stand_in if is_news else None

    def _naming_pause(self, incoming: Incoming) -> AbstractContextManager[None]:
        """Keeps our own requests for names out of the way of a turn."""
        return nullcontext() if self._namer is None else self._namer.turn(incoming.key.chat_ref)

    def _request_name(self, run: TurnRun) -> None:
        """Queues the thread for a name if it has none."""
        if self._namer is None or run.thread is None or run.thread.name is not None or not run.reply.text:
            return
        self._namer.request(
            Beginning(
                thread=run.thread,
                message=run.incoming.text or prompt_text(run.prompt),
                answer=run.reply.text,
                language=run.incoming.speaker.language,
                local_only=self._producer.is_local_only(run),
                is_demo=run.reply.provider in self._demo_ids,
            )
        )


def _prompt(incoming: Incoming) -> ModelRequest:
    return picture_prompt(incoming) if incoming.draws else to_prompt(incoming)


async def _finish(work: Coroutine[object, object, None]) -> None:
    """Finishes a coroutine despite a cancellation, then propagates it; a second one propagates at once."""
    task = asyncio.create_task(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        try:
            await asyncio.wait({task})
        finally:
            task.cancel()
        raise
