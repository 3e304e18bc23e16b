"""Produces the answer of a turn: transcribes speech, draws a picture, or runs the agent."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial
from urllib.parse import urlsplit

import structlog
from pydantic import BaseModel
from pydantic_ai import Agent, AgentRun
from pydantic_ai.messages import ModelMessage, ModelRequest, ModelResponse, TextPart, ToolCallPart

from core.clock import Clock
from core.errors import AllProvidersFailed, UnknownProvider
from core.i18n import Texts
from core.messages import ChatKind
from core.shortening import shorten_line
from services.chat.agent import FETCH_PAGE, LIMITS, TurnContext
from services.chat.media.file_tools import IMAGES, MOST_PICTURES, TextToImage
from services.chat.media.voice import VOICE, SpeechToText, has_recording, quote_transcripts, transcribe
from services.chat.personas import instructions
from services.chat.prompts import find_description, is_plain, mentions_parts, prompt_text
from services.chat.reply import ShownPicture
from services.chat.store.notes import Notes
from services.chat.turn import TurnRun
from services.chat.turn_records import TurnRecords
from services.llm.capabilities.asking import Picture
from services.llm.models.factory import CHAT, LLMModelFactory
from services.llm.models.routed import RoutedModel
from services.llm.request import WEB_SEARCH, ModelChoice, RequestSpec

log = structlog.get_logger()

MAX_DETAIL = 60
"""Characters of a query in the line."""
QUICK_TOOLS = frozenset(
    {"current_time", "remember", "recall", "read_document", "schedule_message", "list_schedules", "cancel_schedule"}
)
"""Tools of the bot's own that take milliseconds; they are not worth a line."""


class AnswerProducer:
    """Produces answers by the agent, its model, and the providers of speech and of pictures.

    Args:
        asks_consent: whether a chat must agree before its messages go to remote providers.
        transcriber: transcribes voice messages; None where no provider for that is configured.
        image_generator: draws pictures; None where no provider for that is configured.
    """

    def __init__(  # noqa: PLR0913 - the parts of an answer
        self,
        *,
        agent: Agent[TurnContext, str],
        models: LLMModelFactory[BaseModel],
        records: TurnRecords,
        notes: Notes,
        texts: Texts,
        clock: Clock,
        asks_consent: bool,
        transcriber: SpeechToText | None,
        image_generator: TextToImage | None,
    ) -> None:
        self._agent = agent
        self._models = models
        self._records = records
        self._notes = notes
        self._texts = texts
        self._clock = clock
        self._asks_consent = asks_consent
        self._transcriber = transcriber
        self._image_generator = image_generator

    async def produce(self, run: TurnRun, history: Sequence[ModelMessage]) -> None:
        """Writes the answer to the turn's reply and its messages to the turn.

        Raises:
            LLMError: no provider answered; see `classify_failure` for the rest.
        """
        if (description := find_description(run.prompt)) is not None:
            if run.reply.is_resumed:
                # An earlier attempt may have been cut off after it was drawn.
                await self._records.restore_pictures(run)
            if not run.reply.pictures:
                picture = await self._draw(run, description)
                run.reply.provider, run.reply.model = picture.provider, picture.model
            run.messages = [ModelResponse([TextPart(f"[A picture of: {description}]")])]
            return
        await self._listen(run)
        await self._records.keep_documents(run)
        history = await self._records.fit(run, history, self._spec(run))
        incoming = run.incoming
        context = TurnContext(
            clock=self._clock,
            notes=self._notes,
            user_id=incoming.speaker.user_id,
            user_name=incoming.speaker.name,
            scope=incoming.key.chat_ref,
            chat_kind=incoming.chat_kind,
            conversation=incoming.key,
            chat_title=incoming.chat_title,
            language=incoming.speaker.language,
            origin=run.acts_for,
            is_local_only=self.is_local_only(run),
            draw=self._drawing(run),
            has_documents=any(
                mentions_parts(prompt_text(each)) for each in (*history, run.prompt) if isinstance(each, ModelRequest)
            ),
            persona=self._persona(run),
        )
        async with self._agent.iter(
            message_history=[*history, run.prompt, *run.prelude],
            model=self._model(run),
            deps=context,
            usage_limits=LIMITS,
        ) as agent_run:
            try:
                await _stream(agent_run, partial(self._note_calls, run))
            finally:
                run.messages = [*run.prelude, *agent_run.new_messages()]

    def _persona(self, run: TurnRun) -> str | None:
        """Returns the instructions of the thread's persona, or of the chat's."""
        stored = run.thread.persona if run.thread is not None else None
        if stored is None:
            stored = run.preference.persona
        if stored is None:
            return None
        # In a group every speaker would change the beginning of the next one's request.
        is_group = run.incoming.chat_kind is ChatKind.GROUP
        return instructions(self._texts, stored, None if is_group else run.incoming.speaker.language)

    def _note_calls(self, run: TurnRun, calls: Sequence[ToolCallPart]) -> None:
        line = describe_calls(calls, self._texts, run.incoming.speaker.language)
        if line is not None:
            run.reply.show_activity(line)

    async def _listen(self, run: TurnRun) -> None:
        """Puts the text of a voice message in its place, also in the stored turn, where a Retry finds it."""
        if is_plain(run.prompt):
            return
        if has_recording(run.prompt):
            spec = replace(self._spec(run), purpose=VOICE, choice=None)
            run.prompt = await transcribe(run.prompt, run.incoming, self._transcriber, spec)
            run.is_heard = True
            await self._records.keep_transcript(run)
        run.reply.heading = quote_transcripts(run.prompt)

    async def _draw(self, run: TurnRun, description: str) -> Picture:
        """Draws a picture for an answer, and stores it, so that it can be sent as a file later.

        Raises:
            ProviderError: it was not drawn.
        """
        if self._image_generator is None:
            raise AllProvidersFailed(())
        spec = replace(self._spec(run), purpose=IMAGES, choice=None)
        picture = await self._image_generator.draw(description, spec)
        number = len(run.reply.pictures)
        run.reply.pictures.append(ShownPicture(picture.data, picture.name))
        await self._records.keep_picture(run, number, picture)
        return picture

    def _drawing(self, run: TurnRun) -> Callable[[str], Awaitable[bool]] | None:
        """Returns the function behind the model's drawing tool; None where no provider draws."""
        if self._image_generator is None:
            return None

        begun = len(run.reply.pictures)

        async def draw(description: str) -> bool:
            nonlocal begun
            # Counted before it is drawn: a model calls the tool several times at once.
            if begun >= MOST_PICTURES:
                return False
            begun += 1
            try:
                await self._draw(run, description)
            except BaseException:
                begun -= 1
                raise
            return True

        return draw

    def _spec(self, run: TurnRun) -> RequestSpec:
        choice = run.choice
        if choice is None and run.preference.provider is not None:
            choice = ModelChoice(run.preference.provider, run.preference.model)
        return RequestSpec(
            CHAT,
            user=run.incoming.user_ref,
            chat=run.incoming.key.chat_ref,
            choice=choice,
            local_only=self.is_local_only(run),
        )

    def _model(self, run: TurnRun) -> RoutedModel:
        spec = self._spec(run)
        try:
            return self._models.create_routed_model(spec, listener=run.reply)
        except UnknownProvider as error:
            # A stored choice may no longer be configured.
            log.info("turn.choice_unavailable", provider=error.provider)
            return self._models.create_routed_model(replace(spec, choice=None), listener=run.reply)

    def is_local_only(self, run: TurnRun) -> bool:
        """Returns whether the chat's messages may go to local providers only."""
        # Also while the database is unavailable: a failure on our side must not send messages out.
        return self._asks_consent and not run.preference.remote_consent


async def _stream(agent_run: AgentRun[TurnContext, str], note_calls: Callable[[list[ToolCallPart]], None]) -> None:
    """Runs the agent to its end; its model writes text to the reply as it arrives.

    Args:
        note_calls: called with the tool calls of a response before they are carried out.
    """
    async for node in agent_run:
        if Agent.is_model_request_node(node):
            async with node.stream(agent_run.ctx) as events:
                async for _ in events:
                    pass
        elif Agent.is_call_tools_node(node) and (calls := node.model_response.tool_calls):
            note_calls(calls)


def describe_calls(calls: Sequence[ToolCallPart], texts: Texts, language: str | None) -> str | None:
    """Returns a line about the newest of these calls that takes time; None if none does."""
    for call in reversed(calls):
        if call.tool_name not in QUICK_TOOLS:
            return _describe(call, texts, language)
    return None


def _describe(call: ToolCallPart, texts: Texts, language: str | None) -> str:
    match call.tool_name:
        case name if name == WEB_SEARCH:
            return texts.get("activity-search", language, query=_argument(call, "query", _shorten))
        case name if name == FETCH_PAGE:
            return texts.get("activity-page", language, site=_argument(call, "url", _site))
        case name:
            return texts.get("activity-tool", language, name=_shorten(name))


def _argument(call: ToolCallPart, name: str, form: Callable[[str], str]) -> str:
    """Returns an argument of a call, which the model may have written in any way."""
    try:
        value: object = call.args_as_dict().get(name)
    except ValueError:
        return "…"
    return form(value) if isinstance(value, str) else "…"


def _site(url: str) -> str:
    try:
        return _shorten(urlsplit(url if "//" in url else f"//{url}").hostname or "…")
    except ValueError:
        return "…"


def _shorten(text: str) -> str:
    return shorten_line(text, MAX_DETAIL) or "…"
