"""One turn: a message comes in, an answer is written as it streams, and what was said is saved."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

import structlog
from pydantic_ai import Agent, AgentRun, capture_run_messages
from pydantic_ai.exceptions import UsageLimitExceeded
from pydantic_ai.messages import (
    BinaryContent,
    ModelMessage,
    ModelRequest,
    ModelResponse,
    PartDeltaEvent,
    PartStartEvent,
    TextPart,
    TextPartDelta,
    UserContent,
    UserPromptPart,
)

from core.clock import Clock
from core.errors import (
    AnswerInterrupted,
    ContentRefused,
    ContextWindowExceeded,
    ProviderError,
    RequestRejected,
    StorageError,
    UnknownProvider,
)
from core.i18n import Texts
from core.messages import ChatKind, Incoming
from services.chat.agent_factory import LIMITS, AgentFactory
from services.chat.conversation import Thread, Turn, TurnStatus
from services.chat.notes import Notes
from services.chat.preferences import Preference, Preferences
from services.chat.reply import Reply, ReplyPhase
from services.chat.scope import scope_of
from services.chat.threads import Threads
from services.chat.tools import TurnContext
from services.llm.fallback import ModelChoice
from services.llm.routed import RoutedModel
from services.llm.stamp import last_stamp

log = structlog.get_logger()

UNSAVED_KEPT = 1000
"""Turns that wait in memory for a database that does not take them."""
STATUS = {
    ReplyPhase.COMPLETE: TurnStatus.COMPLETE,
    ReplyPhase.STOPPED: TurnStatus.STOPPED,
    ReplyPhase.INTERRUPTED: TurnStatus.INTERRUPTED,
    ReplyPhase.FAILED: TurnStatus.FAILED,
}


@dataclass(frozen=True, slots=True)
class Stores:
    """Where a turn reads and writes."""

    threads: Threads
    notes: Notes
    preferences: Preferences


@dataclass(slots=True)
class _Run:
    """What is known of a turn while it runs."""

    incoming: Incoming
    reply: Reply
    prompt: ModelRequest
    choice: ModelChoice | None
    preference: Preference = field(default_factory=Preference)
    thread: Thread | None = None
    turn: Turn | None = None
    before: int | None = None
    """The turn before which the history ends."""
    messages: Sequence[ModelMessage] = ()
    remembered: bool = True
    """Whether the history could be read."""


@dataclass(frozen=True, slots=True)
class _Ending:
    """How a reply ends: its phase, and the text that says why, with that text's arguments."""

    phase: ReplyPhase
    key: str | None = None
    arguments: Mapping[str, str] = field(default_factory=dict[str, str])


class Chat:
    """Answers messages.

    Args:
        agents: the agent and its models.
        stores: conversations, notes, preferences.
        texts: what users are told.
        clock: the time.
        history_tokens: the budget of a conversation's context.
        demos: the ids of the demo providers, whose answers say what they are.
    """

    def __init__(
        self,
        *,
        agents: AgentFactory,
        stores: Stores,
        texts: Texts,
        clock: Clock,
        history_tokens: int,
        demos: frozenset[str] = frozenset(),
    ) -> None:
        self._agents = agents
        self._stores = stores
        self._texts = texts
        self._clock = clock
        self._history_tokens = history_tokens
        self._demos = demos
        self._unsaved: deque[Callable[[], Awaitable[None]]] = deque(maxlen=UNSAVED_KEPT)

    async def respond(
        self,
        incoming: Incoming,
        reply: Reply,
        *,
        retry_of: Turn | None = None,
        choice: ModelChoice | None = None,
    ) -> None:
        """Answer a message, or answer an earlier one again.

        Faults of providers and of the database end the reply, they are not raised. A cancellation ends it as
        interrupted, saves it and is passed on.

        Args:
            incoming: the message; of a Retry, who wants it and where.
            reply: what to write to.
            retry_of: the turn to answer again.
            choice: the provider (and model) to ask first, for this answer only.
        """
        prompt = retry_of.prompt if retry_of is not None and retry_of.prompt is not None else prompt_of(incoming)
        run = _Run(incoming, reply, prompt, choice)
        began = self._clock.monotonic()
        with structlog.contextvars.bound_contextvars(conversation=str(incoming.key)):
            try:
                ending = await self._converse(run, retry_of)
            except asyncio.CancelledError:
                await self._close(run, _Ending(ReplyPhase.INTERRUPTED, "shutting-down"))
                raise
            await self._close(run, ending)
            log.info(
                "turn.ended",
                phase=reply.phase.name.lower(),
                provider=reply.provider,
                model=reply.model,
                seconds=round(self._clock.monotonic() - began, 3),
            )

    async def save_unsaved(self) -> None:
        """Save what the database did not take before, as far as it takes it now."""
        while self._unsaved:
            try:
                await self._unsaved[0]()
            except StorageError:
                return
            self._unsaved.popleft()
            log.info("turn.saved_late")

    async def _converse(self, run: _Run, retry_of: Turn | None) -> _Ending:
        await self.save_unsaved()
        history = await self._open(run, retry_of)
        task = asyncio.create_task(self._answer(run, history), name="turn.answer")
        run.reply.on_stop(task.cancel)
        try:
            await task
        except asyncio.CancelledError:
            this = asyncio.current_task()
            if this is not None and this.cancelling():
                raise
            return _Ending(ReplyPhase.STOPPED, "stopped")
        except Exception as error:  # noqa: BLE001 - every failure has an answer for the user; `_ending` logs the rest
            return _ending(error, run.reply)
        return _Ending(ReplyPhase.COMPLETE)

    async def _open(self, run: _Run, retry_of: Turn | None) -> list[ModelMessage]:
        """Save the prompt and read the history; an answer without memory is better than none."""
        threads, key = self._stores.threads, run.incoming.key
        replaced = retry_of.id if retry_of is not None else None
        try:
            run.preference = await self._stores.preferences.get(scope_of(key))
            run.thread = retry_of.thread if retry_of is not None else await threads.current(key)
            history = await threads.history(run.thread, self._history_tokens, before_turn=replaced)
        except StorageError as error:
            log.error("turn.history_not_read", error=str(error))  # noqa: TRY400 - the reason says it all
            run.remembered = False
            history = []
        await self._save_prompt(run, replaced)
        run.before = replaced if replaced is not None or run.turn is None else run.turn.id
        return history

    async def _save_prompt(self, run: _Run, replaced: int | None) -> None:
        threads = self._stores.threads
        try:
            thread = run.thread or await threads.current(run.incoming.key)
            speaker = run.incoming.speaker.user_id
            run.turn = await threads.open_turn(thread, speaker, run.prompt, replaces_id=replaced)
            run.reply.turn_id = run.turn.id
        except StorageError as error:
            log.error("turn.prompt_not_saved", error=str(error))  # noqa: TRY400 - the reason says it all

    async def _answer(self, run: _Run, history: list[ModelMessage]) -> None:
        try:
            await self._run_agent(run, history)
        except ContextWindowExceeded:
            if not history or run.reply.text:
                raise
            log.info("turn.compacted", messages=len(history))
            await self._run_agent(run, await self._compacted(run))

    async def _compacted(self, run: _Run) -> list[ModelMessage]:
        """The history within half the budget."""
        if run.thread is None:
            return []
        return await self._stores.threads.history(run.thread, self._history_tokens // 2, before_turn=run.before)

    async def _run_agent(self, run: _Run, history: list[ModelMessage]) -> None:
        incoming = run.incoming
        context = TurnContext(
            clock=self._clock,
            notes=self._stores.notes,
            user_id=incoming.speaker.user_id,
            user_name=incoming.speaker.name,
            scope=scope_of(incoming.key),
            chat_kind=incoming.chat_kind,
            chat_title=incoming.chat_title,
            language=incoming.speaker.language,
        )
        told = [*history, run.prompt]
        with capture_run_messages() as messages:
            try:
                async with self._agents.agent.iter(
                    message_history=told, model=self._model(run), deps=context, usage_limits=LIMITS
                ) as agent_run:
                    await _stream(agent_run, run.reply)
            finally:
                run.messages = messages[len(history) :]

    def _model(self, run: _Run) -> RoutedModel:
        choice = run.choice
        if choice is None and run.preference.provider is not None:
            choice = ModelChoice(run.preference.provider, run.preference.model)
        try:
            return self._agents.model(choice)
        except UnknownProvider as error:
            # What was chosen once may not be configured any more.
            log.info("turn.choice_gone", provider=error.provider)
            return self._agents.model(None)

    async def _close(self, run: _Run, ending: _Ending) -> None:
        """Save what came of the turn, and tell the watchers that the reply is final."""
        reply, language = run.reply, run.incoming.speaker.language
        stamp = last_stamp(run.messages)
        if stamp is not None:
            reply.provider, reply.model, reply.failed_over = stamp.provider, stamp.model, stamp.failed
        saved = await self._save(run, ending.phase)
        footers = [
            self._texts.get("answered-by", language, provider=reply.provider)
            if run.preference.footers and reply.provider
            else None,
            self._texts.get("demo-footer", language) if reply.provider in self._demos else None,
            self._texts.get("cannot-see-image", language) if stamp is not None and stamp.blind else None,
            None if run.remembered else self._texts.get("degraded-memory-footer", language),
            None if saved else self._texts.get("failed-storage-footer", language),
        ]
        notice = self._texts.get(ending.key, language, **ending.arguments) if ending.key is not None else None
        reply.end(ending.phase, notice, "\n".join(footer for footer in footers if footer) or None)

    async def _save(self, run: _Run, phase: ReplyPhase) -> bool:
        """Save the turn now or, if the database does not take it, later."""
        failed = phase is ReplyPhase.FAILED
        messages = () if failed else tuple(run.messages)
        usage = [message.usage for message in run.messages if isinstance(message, ModelResponse)]

        async def save() -> None:
            if run.turn is None:
                # The prompt was not taken either: both go in together.
                thread = run.thread or await self._stores.threads.current(run.incoming.key)
                run.turn = await self._stores.threads.open_turn(thread, run.incoming.speaker.user_id, run.prompt)
            await self._stores.threads.close_turn(
                run.turn.id,
                STATUS[phase],
                messages,
                provider=run.reply.provider,
                model=run.reply.model,
                input_tokens=sum(entry.input_tokens for entry in usage) or None,
                output_tokens=sum(entry.output_tokens for entry in usage) or None,
            )

        try:
            await save()
        except StorageError as error:
            log.error("turn.not_saved", error=str(error), waiting=len(self._unsaved) + 1)  # noqa: TRY400 - as above
            self._unsaved.append(save)
            return False
        return True


def _ending(error: Exception, reply: Reply) -> _Ending:
    # What was said before a failure stays: the answer is interrupted then, and not failed.
    phase = ReplyPhase.INTERRUPTED if reply.text.strip() else ReplyPhase.FAILED
    match error:
        case AnswerInterrupted():
            return _Ending(ReplyPhase.INTERRUPTED, "interrupted")
        case ContentRefused():
            return _Ending(phase, "failed-refused", {"reason": error.reason})
        case ContextWindowExceeded():
            return _Ending(phase, "failed-too-long")
        case RequestRejected():
            return _Ending(phase, "failed-rejected")
        case ProviderError():
            return _Ending(phase, "failed-all-providers")
        case UsageLimitExceeded():
            log.warning("turn.limit_reached", steps=LIMITS.request_limit, tools=LIMITS.tool_calls_limit)
            return _Ending(phase, "failed-limit")
        case _:
            log.error("turn.failed", exc_info=error)
            return _Ending(phase, "failed-unexpected")


async def _stream(agent_run: AgentRun[TurnContext, str], reply: Reply) -> None:
    """Drive a run to its end, writing each piece of text as it comes."""
    async for node in agent_run:
        if Agent.is_model_request_node(node):
            async with node.stream(agent_run.ctx) as events:
                async for event in events:
                    match event:
                        case PartDeltaEvent(delta=TextPartDelta(content_delta=piece)):
                            reply.write(piece)
                        case PartStartEvent(part=TextPart(content=piece)):
                            # What is said after a tool was used is a paragraph of its own.
                            reply.write(f"\n\n{piece}" if reply.text else piece)
                        case _:
                            pass


def prompt_of(incoming: Incoming) -> ModelRequest:
    """The message as a model reads it: in a group with its speaker's name, with what it replies to, then its files."""
    text = incoming.text
    if incoming.chat_kind is ChatKind.GROUP:
        text = f"{incoming.speaker.name}: {text}"
    if incoming.quoted:
        text = f"[In reply to this message:]\n{incoming.quoted}\n[The message itself:]\n{text}"
    files = [BinaryContent(file.data, media_type=file.media_type) for file in incoming.attachments]
    content: str | list[UserContent] = [text, *files] if files else text
    return ModelRequest([UserPromptPart(content, timestamp=incoming.sent_at)])
