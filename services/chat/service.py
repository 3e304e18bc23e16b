"""The life of a turn: its history is read and its prompt saved, an answer is produced into a reply, and saved."""

import asyncio
import time
from collections import Counter
from collections.abc import Coroutine, Generator, Sequence
from contextlib import contextmanager, nullcontext
from datetime import UTC, tzinfo

import structlog
from cachetools import TTLCache
from opentelemetry.trace import Tracer
from pydantic import BaseModel
from pydantic_ai import Agent
from pydantic_ai.messages import ModelMessage, ModelResponse

from core.clock import Clock
from core.errors import StorageError
from core.i18n import Texts
from core.messages import ChatRef, Surface
from services.chat.answering import AnswerProducer, FindAsked, Footers
from services.chat.failures import classify_failure, replay_outcome
from services.chat.media.file_tools import TextToImage
from services.chat.media.voice import SpeechToText
from services.chat.memory import ConversationMemory, MemoryLimits
from services.chat.prompts import picture_prompt, prompt_text, to_prompt
from services.chat.reply import Reply, ReplyPhase
from services.chat.stand_ins import StandInNotices
from services.chat.store.conversation import TurnStatus
from services.chat.thread_names import Beginning, ThreadNamer
from services.chat.turn import (
    STATUS_OF_PHASE,
    AbilityTools,
    TurnContext,
    TurnMetrics,
    TurnOutcome,
    TurnRequest,
    TurnRun,
)
from services.chat.turn_records import ChatStores, DeferredWrites, TurnRecords
from services.llm.models.factory import LLMModelFactory
from services.llm.models.routed import Provenance, last_provenance

log = structlog.get_logger()

TOLD_S = 60.0
"""Time for which further messages of a person over a budget are dropped, once the person was told so."""
MAX_TOLD = 10_000


class ChatService:
    """Answers messages.

    Args:
        history_tokens: token budget of the history.
        tools: tools of abilities that not every turn has.
        demo_ids: demo providers; their answers carry a footer.
        asks_consent: whether a chat must agree before its messages go to remote providers.
        tracer: creates a span per turn; None where tracing is off.
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
        tools: Sequence[AbilityTools] = (),
        demo_ids: frozenset[str] = frozenset(),
        asks_consent: bool = False,
        tracer: Tracer | None = None,
        metrics: TurnMetrics | None = None,
        namer: ThreadNamer | None = None,
        stand_ins: StandInNotices | None = None,
        zone: tzinfo = UTC,
        transcriber: SpeechToText | None = None,
        image_generator: TextToImage | None = None,
        find_asked: FindAsked | None = None,
    ) -> None:
        self._turns = stores.turns
        self._texts = texts
        self._clock = clock
        self._history_tokens = history_tokens
        self._demo_ids = demo_ids
        self._tracer = tracer
        self._metrics = metrics
        self._namer = namer
        self._zone = zone
        self._told: TTLCache[tuple[str, str], bool] = TTLCache(MAX_TOLD, TOLD_S, timer=clock.monotonic)
        self.running: Counter[ChatRef] = namer.running if namer is not None else Counter()
        """Turns in progress, by chat."""
        self.deferred = DeferredWrites()
        """Turns that wait for the database."""
        memory = ConversationMemory(stores.memories, models, MemoryLimits(history_tokens))
        self.records = TurnRecords(stores, memory, self.deferred, asks_consent=asks_consent)
        """Stored turns, for other acts than answering a message."""
        self._producer = AnswerProducer(
            agent=agent, tools=tools, models=models, records=self.records, notes=stores.notes, texts=texts,
            clock=clock, asks_consent=asks_consent, transcriber=transcriber, image_generator=image_generator,
        )  # fmt: skip
        self._footers = Footers(texts, demo_ids, stand_ins, find_asked)

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
            self._observe(reply, incoming.key.chat_ref),
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
        if retry_of is not None and retry_of.prompt is not None:
            prompt = retry_of.prompt
        else:
            prompt = picture_prompt(incoming) if incoming.draws else to_prompt(incoming)
        run = TurnRun(incoming, reply, prompt, request.choice, request.origin, self._clock.monotonic(), request.prelude)
        run.question_id, run.acts_for = incoming.message_id, request.origin
        if retry_of is not None:
            run.thread, run.replaces_id = retry_of.thread, retry_of.id_to_replace
            run.question_id = retry_of.question_id
            await self.records.recall_acts(run, retry_of)
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

    @contextmanager
    def _observe(self, reply: Reply, chat: ChatRef) -> Generator[None]:
        """Counts and measures a turn. No thread of its chat is named meanwhile."""
        namer, metrics, began = self._namer, self._metrics, time.perf_counter()
        self.running[chat] += 1
        if namer is not None and chat in namer.waiting:
            namer.pause(chat)
        try:
            with (
                nullcontext()
                if self._tracer is None
                else self._tracer.start_as_current_span("turn", record_exception=False)
            ) as span:
                try:
                    yield
                finally:
                    if span is not None:
                        span.set_attributes(_span_attributes(reply))
        finally:
            self.running[chat] -= 1
            if not self.running[chat]:
                del self.running[chat]
                if namer is not None and chat in namer.waiting:
                    namer.resume(chat)
            if metrics is not None:
                metrics.turns.labels(reply.phase.name.lower()).inc()
                metrics.seconds.observe(time.perf_counter() - began)

    async def _converse(self, run: TurnRun) -> TurnOutcome:
        try:
            history = await self._open(run)
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

    async def _open(self, run: TurnRun) -> Sequence[ModelMessage]:
        """Reads the history and saves the prompt, in one transaction where that is possible."""
        if run.thread is not None or self.deferred.pending:
            return await self.records.open(run)
        incoming = run.incoming
        try:
            beginning = await self._turns.begin(
                incoming.key, incoming.speaker.user_id, run.prompt, self._history_tokens,
                origin=run.origin, question_id=run.question_id,
            )  # fmt: skip
        except StorageError:
            # The database may accept one of both.
            return await self.records.open(run)
        turn = beginning.turn
        run.turn, run.thread, run.preference, run.recall = turn, turn.thread, beginning.preference, beginning.recall
        run.reply.turn_id, run.reply.stream_mode = turn.id, run.preference.stream_mode
        # A turn that is stored now has its given prompt.
        if turn.prompt is not run.prompt:
            await self.records.resume(run, turn)
        return beginning.recall.history

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
        """Ends a turn that an earlier process has answered."""
        await self.records.replay(run)
        status = run.turn.status if run.turn is not None else TurnStatus.COMPLETE
        log.info("turn.replayed", status=status)
        provenances = [provenance for _, provenance in _responses(run)]
        await self._footers.collect(run, provenances)
        self._end(run, replay_outcome(status), provenances, is_saved=True)

    async def _close(self, run: TurnRun, outcome: TurnOutcome) -> None:
        """Saves the result of the turn and ends the reply, also when saving fails."""
        responses = _responses(run)
        provenances = [provenance for _, provenance in responses]
        if self._metrics is not None:
            for response, provenance in responses:
                tokens_in, tokens_out = self._metrics.tokens[provenance.provider, provenance.model]
                tokens_in.inc(response.usage.input_tokens)
                tokens_out.inc(response.usage.output_tokens)
        saved = False
        try:
            await self._footers.collect(run, provenances)
            saved = await self._save(run, outcome)
        except Exception:
            # The answer exists all the same.
            log.exception("turn.lost")
        finally:
            self._end(run, outcome, provenances, is_saved=saved)
        if saved and outcome.phase is ReplyPhase.COMPLETE:
            self._request_name(run)
        log.info(
            "turn.ended",
            phase=run.reply.phase.name.lower(),
            provider=run.reply.provider,
            model=run.reply.model,
            seconds=round(self._clock.monotonic() - run.began, 3),
        )

    async def _save(self, run: TurnRun, outcome: TurnOutcome) -> bool:
        """Saves the turn now, or later if the database rejects it."""
        status = STATUS_OF_PHASE[outcome.phase]
        if run.replaces_id is not None and not run.reply.text and not run.reply.pictures:
            # A Retry without an answer replaces nothing.
            status = TurnStatus.FAILED
        # A Retry of a failed answer to a permission needs the result of the call.
        messages = tuple(run.prelude) if status is TurnStatus.FAILED else run.messages
        if messages and run.is_heard:
            messages = (run.prompt, *messages)
        usage = [message.usage for message in run.messages if isinstance(message, ModelResponse)]

        async def write() -> None:
            turn = run.turn or await self.records.open_turn(run)
            await self._turns.close_turn(
                turn.id,
                status,
                messages,
                provider=run.reply.provider,
                model=run.reply.model,
                input_tokens=sum(entry.input_tokens for entry in usage) or None,
                output_tokens=sum(entry.output_tokens for entry in usage) or None,
            )

        if self.deferred.pending:
            return await self.deferred.save(write)
        try:
            await write()
        except StorageError as error:
            self.deferred.put_off(write, error)
            return False
        return True

    def _end(self, run: TurnRun, outcome: TurnOutcome, provenances: Sequence[Provenance], *, is_saved: bool) -> None:
        is_blind = any(provenance.blind for provenance in provenances)
        footer = self._footers.footer(run, is_blind=is_blind, is_saved=is_saved)
        run.reply.end(outcome.phase, self._footers.notice(run, outcome), footer)

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


def _responses(run: TurnRun) -> list[tuple[ModelResponse, Provenance]]:
    """Returns the responses of a turn that a provider gave."""
    return [
        (message, provenance)
        for message in run.messages
        if isinstance(message, ModelResponse) and (provenance := last_provenance([message])) is not None
    ]


def _span_attributes(reply: Reply) -> dict[str, str]:
    facts = {"phase": reply.phase.name.lower(), "provider": reply.provider, "model": reply.model}
    return {f"understudy.{name}": value for name, value in facts.items() if value is not None}


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
