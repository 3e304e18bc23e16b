"""Produces the answer of a turn, by the agent or a picture's provider, and words the lines under it."""

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

import structlog
from pydantic import BaseModel
from pydantic_ai import Agent
from pydantic_ai.messages import BaseToolReturnPart, ModelMessage, ModelRequest, ModelResponse, TextPart, ToolCallPart

from core.clock import Clock
from core.errors import AllProvidersFailed, UnknownProvider
from core.i18n import Texts
from core.messages import ChatKind, Incoming
from services.chat.activity import describe_calls
from services.chat.agent_steps import AgentSteps
from services.chat.media.file_tools import IMAGES, MOST_PICTURES, TextToImage
from services.chat.media.voice import VOICE, SpeechToText, has_recording, quote_transcripts, transcribe
from services.chat.personas import instructions
from services.chat.prompts import find_description, is_plain, mentions_parts, prompt_text, split_parts
from services.chat.reply import ShownPicture
from services.chat.store.notes import Notes
from services.chat.turn import FETCH_PAGE, LIMITS, TurnContext, TurnOutcome, TurnRun
from services.chat.turn_records import TurnRecords
from services.llm.capabilities.asking import Picture
from services.llm.models.factory import CHAT, LLMModelFactory
from services.llm.models.routed import RoutedModel
from services.llm.request import WEB_SEARCH, ModelChoice, RequestSpec

log = structlog.get_logger()

LONGEST_URL = 300
"""Characters of an address that is shown on a line."""
MOST_SOURCES = 5
UNCITED_SOURCES = 3
"""Results of a search that are named where the answer cites none of them."""


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
        steps = AgentSteps(self._agent, self._model(run), context, LIMITS, partial(self._note_calls, run))
        try:
            await steps.run([*history, run.prompt, *run.prelude])
        finally:
            run.messages = [*run.prelude, *steps.messages]

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


class Footers:
    """Words the notice and the footer of an answer.

    Args:
        demo_ids: demo providers; their answers say so.
    """

    def __init__(self, texts: Texts, demo_ids: frozenset[str]) -> None:
        self._texts = texts
        self._demo_ids = demo_ids

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
        sources = [
            f"{number}. {source.title}: {source.url}" if source.title else f"{number}. {source.url}"
            for number, source in enumerate(find_sources(run.messages, reply.text), 1)
        ]
        lines = [
            "\n".join([self._texts.get("sources", language), *sources]) if sources else None,
            self._texts.get("answered-by", language, provider=reply.provider)
            if run.preference.footers and reply.provider
            else None,
            self._texts.get("answered-remotely", language, failed=stand_in.local, provider=stand_in.remote)
            if (stand_in := run.stand_in) is not None
            else None,
            self._texts.get("demo-footer", language) if reply.provider in self._demo_ids else None,
            self._texts.get("cannot-see-image", language) if is_blind else None,
            *self._describe_files(run.incoming),
            self._texts.get("memory-compacted", language) if run.is_first_drop else None,
            None if run.has_memory else self._texts.get("degraded-memory-footer", language),
            None if is_saved else self._texts.get("failed-storage-footer", language),
        ]
        return "\n".join(line for line in lines if line) or None

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


@dataclass(frozen=True, slots=True)
class CitedPage:
    """A web page that an answer rests on."""

    url: str
    title: str


def find_sources(messages: Sequence[ModelMessage], answer: str) -> list[CitedPage]:
    """Returns the pages that were read, and the results of searches that the answer cites, or the first if none."""
    read: dict[str, CitedPage] = {}
    found: dict[str, CitedPage] = {}
    for message in messages:
        for part in message.parts:
            if isinstance(part, BaseToolReturnPart) and part.tool_name in {FETCH_PAGE, WEB_SEARCH}:
                into = read if part.tool_name == FETCH_PAGE else found
                into.update({source.url: source for source in _pages(part.content, 4)})
    cited = [source for source in found.values() if source.url in answer]
    chosen = {source.url: source for source in (*read.values(), *cited)}
    if not chosen:
        chosen = dict(list(found.items())[:UNCITED_SOURCES])
    return list(chosen.values())[:MOST_SOURCES]


def _is_link(url: str) -> bool:
    return url.startswith(("http://", "https://")) and url.isprintable() and len(url) <= LONGEST_URL


def _pages(content: object, depth: int) -> Iterator[CitedPage]:
    """Yields every page in a tool's result: of our own tools, or of a provider's own search."""
    if isinstance(content, list) and depth:
        for each in cast("list[object]", content):
            yield from _pages(each, depth - 1)
    elif isinstance(content, dict) and depth:
        fields = cast("Mapping[str, Any]", content)  # Any: JSON
        url = fields.get("url") or fields.get("uri")
        if isinstance(url, str) and _is_link(url):
            title = fields.get("title")
            yield CitedPage(url, " ".join(title.split())[:80] if isinstance(title, str) else "")
        else:
            for each in fields.values():
                yield from _pages(each, depth - 1)
