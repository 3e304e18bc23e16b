"""Produces the answer of a turn, by the agent or a picture's provider, and words the lines under it."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial

import structlog
from pydantic import BaseModel
from pydantic_ai import Agent
from pydantic_ai.messages import BaseToolReturnPart, ModelMessage, ModelResponse, TextPart, ToolCallPart

from core.clock import Clock
from core.errors import AllProvidersFailed, StorageError, UnknownProvider
from core.i18n import Texts
from core.messages import ChatKind, Incoming, Surface
from services.chat.activity import describe_calls, find_sources
from services.chat.agent_steps import AgentSteps
from services.chat.media.file_tools import IMAGES, MOST_PICTURES, TextToImage
from services.chat.media.voice import VOICE, SpeechToText, has_recording, quote_transcripts, transcribe
from services.chat.personas import instructions
from services.chat.prompts import find_description, is_plain, mentions_parts, split_parts
from services.chat.reply import AskedCall, ShownPicture
from services.chat.stand_ins import StandInNotices
from services.chat.store.notes import Notes
from services.chat.turn import LIMITS, Ability, AbilityTools, StandIn, TurnContext, TurnOutcome, TurnRun
from services.chat.turn_records import TurnRecords
from services.llm.capabilities.asking import Picture
from services.llm.models.factory import CHAT, LLMModelFactory
from services.llm.models.routed import Provenance, RoutedModel
from services.llm.request import ModelChoice, RequestSpec

log = structlog.get_logger()

FindAsked = Callable[[str], Awaitable[Sequence[AskedCall]]]


class AnswerProducer:
    """Produces answers by the agent, its model, and the providers of speech and of pictures.

    Args:
        tools: tools of abilities that not every turn has.
        asks_consent: whether a chat must agree before its messages go to remote providers.
        transcriber: transcribes voice messages; None where no provider for that is configured.
        image_generator: draws pictures; None where no provider for that is configured.
    """

    def __init__(  # noqa: PLR0913 - the parts of an answer
        self,
        *,
        agent: Agent[TurnContext, str],
        tools: Sequence[AbilityTools],
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
        self._tools = tools
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
        spec = self._spec(run)
        if not is_plain(run.prompt):
            if (description := find_description(run.prompt)) is not None:
                await self._answer_with_picture(run, description)
                return
            await self._listen(run, spec)
        if run.incoming.files:
            await self._records.keep_documents(run)
        if run.recall is not None and run.recall.is_over:
            history = await self._records.fit(run, run.recall, spec)
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
            is_local_only=spec.local_only,
            draw=self._drawing(run),
            persona=self._persona(run),
        )
        messages = [*history, run.prompt]
        steps = AgentSteps(
            self._agent,
            self._model(run, spec),
            context,
            LIMITS,
            partial(self._note_calls, run),
            toolsets=self._offered_tools(context, messages),
        )
        try:
            await steps.run([*messages, *run.prelude])
        finally:
            run.messages = [*run.prelude, *steps.messages]

    def _offered_tools(self, context: TurnContext, messages: Sequence[ModelMessage]) -> Sequence[AbilityTools]:
        """Returns the tools of the abilities that a turn has."""
        has = {
            Ability.READ_WEB: not context.is_local_only,
            Ability.SCHEDULE: context.conversation.surface is Surface.TELEGRAM,
            Ability.READ_DOCUMENTS: any(mentions_parts(each) for each in messages),
            Ability.DRAW: context.draw is not None,
        }
        return [tools for tools in self._tools if has[tools.ability]]

    async def _answer_with_picture(self, run: TurnRun, description: str) -> None:
        if run.reply.is_resumed:
            # An earlier attempt may have been cut off after it was drawn.
            await self._records.restore_pictures(run)
        if not run.reply.pictures:
            picture = await self._draw(run, description)
            run.reply.provider, run.reply.model = picture.provider, picture.model
        run.messages = [ModelResponse([TextPart(f"[A picture of: {description}]")])]

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

    async def _listen(self, run: TurnRun, spec: RequestSpec) -> None:
        """Puts the text of a voice message in its place, also in the stored turn, where a Retry finds it."""
        if has_recording(run.prompt):
            spec = replace(spec, purpose=VOICE, choice=None)
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

    def _model(self, run: TurnRun, spec: RequestSpec) -> RoutedModel:
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


class Footers:
    """Collects the provenance of an answer, its stand-in and the calls to be allowed; words its notice and its footer.

    Args:
        demo_ids: demo providers; their answers say so.
        stand_ins: decides which answer says that a remote provider stands in for a local one; None for no answer.
        find_asked: returns the calls that the answer of a job asks to allow; None where no tool acts.
    """

    def __init__(
        self, texts: Texts, demo_ids: frozenset[str], stand_ins: StandInNotices | None, find_asked: FindAsked | None
    ) -> None:
        self._texts = texts
        self._demo_ids = demo_ids
        self._stand_ins = stand_ins
        self._find_asked = find_asked

    async def collect(self, run: TurnRun, provenances: Sequence[Provenance]) -> None:
        """Notes who answered, the failures before, a limit of length, a stand-in, and the calls to be allowed."""
        reply = run.reply
        if provenances:
            reply.provider, reply.model = provenances[-1].provider, provenances[-1].model
            # Each step of a tool loop is a request of its own and may have had other failures.
            run.stand_in = next(
                (StandIn(each.failed_local, each.provider) for each in provenances if each.failed_local is not None),
                None,
            )
            reply.failed_over = tuple(dict.fromkeys(failed for each in provenances for failed in each.failed))
        answer = next((message for message in reversed(run.messages) if isinstance(message, ModelResponse)), None)
        reply.is_cut = answer is not None and answer.finish_reason == "length"
        if run.stand_in is not None and not await self._is_news(run, run.stand_in):
            run.stand_in = None
        if self._find_asked is not None and run.acts_for is not None:
            try:
                reply.asked_calls = tuple(await self._find_asked(run.acts_for))
            except StorageError as error:
                # They are asked for by no button.
                log.warning("turn.asked_calls_unavailable", error=str(error))

    async def _is_news(self, run: TurnRun, stand_in: StandIn) -> bool:
        """Returns whether this is the first answer of an outage in its chat."""
        if self._stand_ins is None or not run.reply.text:
            return False
        return await self._stand_ins.is_news(run.incoming.key.chat_ref, stand_in, run.origin)

    def notice(self, run: TurnRun, outcome: TurnOutcome) -> str | None:
        """Returns why the answer ended as it did, and the calls that it asks to allow."""
        language = run.incoming.speaker.language
        notice = self._texts.get(outcome.key, language, **outcome.arguments) if outcome.key is not None else None
        if notice is None and run.reply.is_cut:
            notice = self._texts.get("answer-cut", language)
        calls = run.reply.asked_calls
        questions = [
            self._texts.get("call-question", language, what=call.what if len(calls) == 1 else f"{number}. {call.what}")
            for number, call in enumerate(calls, 1)
        ]
        return "\n".join(line for line in (notice, *questions) if line) or None

    def footer(self, run: TurnRun, *, is_blind: bool, is_saved: bool) -> str | None:
        """Returns the footer of an answer, if any."""
        reply, language = run.reply, run.incoming.speaker.language
        if not reply.text:
            return None
        lines = [
            self._name_sources(run) if any(map(_has_tool_results, run.messages)) else None,
            self._texts.get("answered-by", language, provider=reply.provider)
            if run.preference.footers and reply.provider
            else None,
            self._texts.get("answered-remotely", language, failed=stand_in.local, provider=stand_in.remote)
            if (stand_in := run.stand_in) is not None
            else None,
            self._texts.get("demo-footer", language) if reply.provider in self._demo_ids else None,
            self._texts.get("cannot-see-image", language) if is_blind else None,
            *(self._describe_files(run.incoming) if run.incoming.files else ()),
            self._texts.get("memory-compacted", language) if run.is_first_drop else None,
            None if run.has_memory else self._texts.get("degraded-memory-footer", language),
            None if is_saved else self._texts.get("failed-storage-footer", language),
        ]
        return "\n".join(line for line in lines if line) or None

    def _name_sources(self, run: TurnRun) -> str | None:
        sources = [
            f"{number}. {source.title}: {source.url}" if source.title else f"{number}. {source.url}"
            for number, source in enumerate(find_sources(run.messages, run.reply.text), 1)
        ]
        return "\n".join([self._texts.get("sources", run.incoming.speaker.language), *sources]) if sources else None

    def _describe_files(self, incoming: Incoming) -> Sequence[str]:
        """Returns a line for each file that was not read as a whole."""
        language = incoming.speaker.language
        lines: list[str] = []
        for file in incoming.files:
            parts = len(split_parts(file.text)) if file.by_part else 1
            if parts > 1:
                lines.append(self._texts.get("document-by-part", language, name=file.name[:100], parts=parts))
            if file.is_cut:
                count = len(file.text)
                lines.append(self._texts.get("document-cut", language, name=file.name[:100], characters=count))
        return lines


def _has_tool_results(message: ModelMessage) -> bool:
    return any(isinstance(part, BaseToolReturnPart) for part in message.parts)
