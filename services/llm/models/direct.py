"""Requests without an agent, through the fallback service: a whole answer, or one prompt and one parsed value.

An agent's loop costs more than twice the CPU time, and a verdict or a thread name needs none of it.
"""

from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import Generic, Protocol, TypeVar

from pydantic_ai.messages import (
    BinaryContent,
    InstructionPart,
    ModelMessage,
    ModelRequest,
    ModelResponse,
    UserPromptPart,
)
from pydantic_ai.models import ModelRequestParameters
from pydantic_ai.settings import ModelSettings

from core.config.providers import ProviderKind
from core.errors import AllProvidersFailed, ContentRefused, NoUsableAnswer, ProviderError
from core.messages import Attachment
from services.llm.models.adapted import AdaptableRequest
from services.llm.models.candidate_call import (
    Prepare,
    PreparedCall,
    build_model,
    known_window,
    sees_images,
    start_stream,
)
from services.llm.models.stream_reader import StreamReader, refusal
from services.llm.providers.builder import ModelBuilder
from services.llm.request import Adaptation, Candidate, Capability, RequestSpec
from services.llm.routing.attempts import Attempt
from services.llm.routing.fallback import LLMProviderFallback
from services.llm.routing.recourse import TOOL_USE
from services.llm.usage import TokenUse, used_whole

MAX_MALFORMED = 2
"""Malformed answers after which a request fails."""
THINKING_TOKENS = 3000
"""Added to the limit of a thinking model, which is asked to think as little as it can."""
DIRECT_CAPABILITIES = frozenset({Capability.SYSTEM_ROLE, Capability.STREAMING})
"""Capabilities that every direct request needs."""
STRUCTURED_CAPABILITIES = frozenset({*TOOL_USE, Capability.STRUCTURED_OUTPUT})
"""Capabilities that one for a structure may need beyond those: it is asked for by a tool, by a schema, or in words."""

_AT_LENGTH = ("length",)
COLLECTED_WINDOW_S = 2.0
"""Longest time for which the text of a plain request is held: it is read as a whole."""

Value_co = TypeVar("Value_co", covariant=True)


@dataclass(frozen=True, slots=True)
class PlainAnswer:
    """A complete answer before its outcome is recorded."""

    response: ModelResponse
    took_s: float
    used: TokenUse


async def request_answer(
    attempt: Attempt,
    prepare: Prepare,
    messages: Sequence[ModelMessage],
    *,
    is_parsed: bool = False,
) -> PlainAnswer | None:
    """Asks an attempt's candidate for a whole answer; returns None where the next one is to be asked.

    Args:
        attempt: records a failure and a refusal.
        prepare: builds the request.
        messages: the sent messages, to estimate usage that the provider does not report.
        is_parsed: the answer is read by code, not by a user. One that ended at the token limit is passed on, since a
            model that spent its tokens on thinking is no failure of its provider.

    Raises:
        ContentRefused: the candidate's filter refused.
    """
    try:
        async with AsyncExitStack() as stack:
            reader = await start_stream(
                stack, attempt, prepare, None, merges_arrivals=True, may_be_empty_at=_AT_LENGTH if is_parsed else ()
            )
            reader.hold_text(COLLECTED_WINDOW_S)
            response = await _collect(reader)
    except Exception as error:  # noqa: BLE001 - `failed` classifies it and re-raises bugs of ours
        await attempt.failed(error)
        return None
    used = used_whole(response.usage, response.parts, messages)
    if is_parsed:
        used = replace(used, is_answer=False)
    if response.finish_reason == "content_filter":
        raise attempt.refused(refusal(response.provider_details), used)
    return PlainAnswer(response, reader.first_output_s, used)


async def _collect(reader: StreamReader) -> ModelResponse:
    """Reads a stream to its end and returns its whole answer."""
    try:
        while True:
            await reader.read()
    except StopAsyncIteration:
        return reader.response.get()
    finally:
        reader.close()


@dataclass(frozen=True, slots=True)
class Answer(Generic[Value_co]):
    """A parsed value with its provider, model and token usage."""

    value: Value_co
    provider: str
    model: str
    input_tokens: int
    output_tokens: int


class MalformedAnswer(Exception):
    """An answer of the wrong shape. The message states the reason and quotes nothing of the answer."""


class OutputShape(Protocol[Value_co]):
    """The expected shape of an answer: how to request it and how to parse it."""

    @property
    def max_tokens(self) -> int:
        """The token limit of an answer."""
        ...

    def parameters(self, profile: Mapping[str, object]) -> ModelRequestParameters:
        """Returns the request parameters for a model of that profile."""
        ...

    def read(self, response: ModelResponse) -> Value_co:
        """Parses a response.

        Raises:
            MalformedAnswer: it has no such value.
        """
        ...


class DirectModel(Generic[Value_co]):
    """Requests values of one shape."""

    def __init__(
        self, fallback: LLMProviderFallback, builder: ModelBuilder, spec: RequestSpec, shape: OutputShape[Value_co]
    ) -> None:
        self._fallback = fallback
        self._builder = builder
        self._sees = partial(sees_images, builder, fallback.recorder)
        self._window = partial(known_window, builder)
        self._spec = spec
        self._shape = shape
        is_structured = shape.parameters({}).output_object is not None
        self._capabilities = DIRECT_CAPABILITIES | STRUCTURED_CAPABILITIES if is_structured else DIRECT_CAPABILITIES

    async def ask(self, instructions: str, prompt: str, pictures: tuple[Attachment, ...] = ()) -> Answer[Value_co]:
        """Asks the candidates in order until one gives a value; with pictures, only those with vision.

        A malformed answer is tried once more with the next candidate. So is a refusal: exactly one other candidate is
        asked, so that a request is not passed along until a provider without a filter takes it.

        Raises:
            AllProvidersFailed: no candidate gave a value; `NoUsableAnswer` if one answered in another shape.
            ContentRefused: a candidate's filter refused, and the other candidate gave no value.
            NoUsableAnswer: no candidate sees pictures.
            ProviderError: another failure that a further candidate could not mend.
        """
        messages = _to_messages(instructions, prompt, pictures)
        shape = AdaptableRequest(messages, None, ModelRequestParameters(), self._capabilities)
        spec = replace(self._spec, required=self._spec.required | {Capability.IMAGES}) if pictures else self._spec
        attempts = await self._fallback.begin(
            spec, messages=messages, fits=self._sees if pictures else None, window=self._window, shape=shape
        )
        is_asked = False
        refused: ContentRefused | None = None
        second_opinion: str | None = None
        malformed = 0
        try:
            async for attempt in attempts:
                provider = attempt.candidate.provider
                if provider.kind is ProviderKind.DEMO or (pictures and not self._sees(attempt.candidate)):
                    # The canned answer of the demo has no value in it.
                    attempt.skip()
                    continue
                is_asked = True
                if refused is not None:
                    if second_opinion not in {None, provider.id}:
                        attempt.skip()
                        break
                    second_opinion = provider.id
                try:
                    answer = await self._try(attempt, messages, instructions)
                except ContentRefused as error:
                    attempt.skip()
                    refused = refused or error
                except MalformedAnswer:
                    malformed += 1
                    if malformed == MAX_MALFORMED:
                        break
                else:
                    if answer is not None:
                        return answer
            # A setup without vision models is no outage.
            unseen = NoUsableAnswer(()) if pictures and not is_asked else None
            raise unseen or refused or _final_error(attempts.exhausted(), malformed)
        finally:
            attempts.close()

    async def _try(self, attempt: Attempt, messages: list[ModelMessage], instructions: str) -> Answer[Value_co] | None:
        """Returns a candidate's answer; None where it failed and the next one is to be asked.

        Raises:
            MalformedAnswer: it answered in another shape.
            ContentRefused: its filter refused.
        """

        def prepare(candidate: Candidate, adaptation: Adaptation) -> PreparedCall:
            model = build_model(self._builder, candidate)
            parameters = replace(
                self._shape.parameters(model.profile), instruction_parts=[InstructionPart(content=instructions)]
            )
            request = AdaptableRequest(messages, _settings(model.profile, self._shape.max_tokens), parameters)
            sent, settings, parameters = request.apply(adaptation)
            return PreparedCall(model, model.prepare_messages(sent, parameters), settings, parameters)

        plain = await request_answer(attempt, prepare, messages, is_parsed=True)
        if plain is None:
            return None
        try:
            value = self._shape.read(plain.response)
        except MalformedAnswer as error:
            attempt.malformed(str(error), plain.took_s, plain.used)
            raise
        attempt.succeeded(plain.took_s, plain.used)
        usage, candidate = plain.used.usage, attempt.candidate
        return Answer(value, candidate.provider.id, candidate.model, usage.input_tokens, usage.output_tokens)


def _to_messages(instructions: str, prompt: str, pictures: tuple[Attachment, ...]) -> list[ModelMessage]:
    seen = [BinaryContent(picture.data, media_type=picture.media_type) for picture in pictures]
    return [ModelRequest([UserPromptPart([prompt, *seen] if seen else prompt)], instructions=instructions)]


def _final_error(exhausted: ProviderError, malformed: int) -> ProviderError:
    if malformed and isinstance(exhausted, AllProvidersFailed):
        return NoUsableAnswer(exhausted.attempts)
    return exhausted


def _settings(profile: Mapping[str, object], max_tokens: int) -> ModelSettings:
    """Returns settings for few tokens, little thinking and temperature 0, as far as the model family accepts them.

    The library drops a temperature that a model rejects, but warns each time.
    """
    thinks = bool(profile.get("supports_thinking") or profile.get("thinking_always_enabled"))
    settings = ModelSettings(max_tokens=max_tokens + (THINKING_TOKENS if thinks else 0))
    if thinks:
        settings["thinking"] = False
    if not (profile.get("openai_supports_reasoning") or profile.get("anthropic_disallows_sampling_settings")):
        settings["temperature"] = 0.0
    return settings
