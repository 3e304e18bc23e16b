"""Questions that need no agent: one request, one value, through the fallback service.

An agent's loop costs more than twice the time of this process, and a verdict or a title needs nothing of it.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Generic, Protocol, TypeVar

from pydantic_ai.messages import InstructionPart, ModelMessage, ModelRequest, ModelResponse
from pydantic_ai.models import ModelRequestParameters
from pydantic_ai.settings import ModelSettings

from core.config.providers import ProviderKind
from core.errors import ContentRefused
from services.llm.models.candidate_call import request_answer, require_answer
from services.llm.models.streams import refusal
from services.llm.providers.builder import ModelBuilder
from services.llm.request import Candidate, RequestSpec
from services.llm.routing.attempts import Attempts
from services.llm.routing.fallback import LLMProviderFallback
from services.llm.usage.report import used_whole

MISFITS = 2
"""Answers that are not what was asked for, until the question is given up."""
THINKING_TOKENS = 3000
"""What a model that thinks may use for that beside its answer; it is told to think as little as it can."""

Value_co = TypeVar("Value_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Answer(Generic[Value_co]):
    """A value, who gave it, and what that used."""

    value: Value_co
    provider: str
    model: str
    input_tokens: int
    output_tokens: int


class MalformedAnswer(Exception):
    """An answer that is not what was asked for; the message says why, and quotes nothing of it."""


class OutputShape(Protocol[Value_co]):
    """What an answer has to look like."""

    @property
    def max_tokens(self) -> int:
        """The most that it may be long."""
        ...

    def parameters(self, profile: Mapping[str, object]) -> ModelRequestParameters:
        """How a model of that profile is asked for it."""
        ...

    def read(self, response: ModelResponse) -> Value_co:
        """The value of a response.

        Raises:
            Misfit: it has none.
        """
        ...


class DirectModel(Generic[Value_co]):
    """Asks for values of one shape.

    Args:
        fallback: the provider fallback service.
        builder: gives the model of a candidate.
        spec: the request.
        shape: what the answers have to look like.
    """

    def __init__(
        self, fallback: LLMProviderFallback, builder: ModelBuilder, spec: RequestSpec, shape: OutputShape[Value_co]
    ) -> None:
        self._fallback = fallback
        self._builder = builder
        self._spec = spec
        self._shape = shape

    async def ask(self, instructions: str, prompt: str) -> Answer[Value_co]:
        """Ask the candidates one after the other until one gives a value.

        An answer of another shape is tried once more with the next candidate. So is a refusal: with one other
        candidate, whatever comes of that, and not with a third that lets everything pass.

        Raises:
            AllProvidersFailed: nobody gave one.
            ContentRefused: a candidate's filter refused, and the other one gave no value.
            ProviderError: another failure that a further candidate would not mend.
        """
        messages: list[ModelMessage] = [ModelRequest.user_text_prompt(prompt, instructions=instructions)]
        attempts = await self._begin(messages)
        refused: ContentRefused | None = None
        other: str | None = None
        misfits = 0
        try:
            async for candidate in attempts:
                if candidate.provider.kind is ProviderKind.DEMO:
                    # It has one answer to everything.
                    attempts.pass_over()
                    continue
                if refused is not None:
                    if other not in {None, candidate.provider.id}:
                        attempts.pass_over()
                        break
                    other = candidate.provider.id
                try:
                    answer = await self._try(candidate, attempts, messages, instructions)
                except ContentRefused as error:
                    attempts.pass_over()
                    refused = refused or error
                except MalformedAnswer:
                    misfits += 1
                    if misfits == MISFITS:
                        break
                else:
                    if answer is not None:
                        return answer
            raise refused or attempts.exhausted()
        finally:
            attempts.close()

    async def _begin(self, messages: Sequence[ModelMessage]) -> Attempts:
        return await self._fallback.begin(
            self._spec,
            messages=messages,
            window=lambda candidate: self._builder.context_window(candidate.provider, candidate.model),
        )

    async def _try(
        self, candidate: Candidate, attempts: Attempts, messages: list[ModelMessage], instructions: str
    ) -> Answer[Value_co] | None:
        """The answer of a candidate; None where it failed and the next one is to be asked.

        Raises:
            Misfit: it answered, but not with what was asked for.
            ContentRefused: its filter refused.
            RequestRejected: the request is at fault.
        """
        loop = asyncio.get_running_loop()
        try:
            model = self._builder.model(candidate.provider, candidate.model)
            parameters = replace(
                self._shape.parameters(model.profile), instruction_parts=[InstructionPart(content=instructions)]
            )
            settings = _settings(model.profile, self._shape.max_tokens)
            prepared = model.prepare_messages(messages, parameters)
            async with self._fallback.opening:
                began = loop.time()
                response = await request_answer(candidate, model, prepared, settings, parameters)
            if response.finish_reason != "length":
                # One that thought until its tokens were used up is no worse a provider for that.
                require_answer(response)
        except Exception as error:  # noqa: BLE001 - `failed` classifies it and re-raises what is ours
            await attempts.failed(error)
            return None
        # Nobody reads it.
        used = replace(used_whole(response.usage, response.parts, messages), is_answer=False)
        if response.finish_reason == "content_filter":
            raise attempts.refused(refusal(response.provider_details), used)
        took_s = loop.time() - began
        try:
            value = self._shape.read(response)
        except MalformedAnswer as misfit:
            attempts.misfit(str(misfit), took_s, used)
            raise
        attempts.succeeded(took_s, used)
        usage = used.usage
        return Answer(value, candidate.provider.id, candidate.model, usage.input_tokens, usage.output_tokens)


def _settings(profile: Mapping[str, object], max_tokens: int) -> ModelSettings:
    """Few tokens, little thinking, no imagination; each only where the family accepts it.

    The library leaves out a temperature that a model refuses, but complains of it each time.
    """
    thinks = bool(profile.get("supports_thinking") or profile.get("thinking_always_enabled"))
    settings = ModelSettings(max_tokens=max_tokens + (THINKING_TOKENS if thinks else 0))
    if thinks:
        settings["thinking"] = False
    if not (profile.get("openai_supports_reasoning") or profile.get("anthropic_disallows_sampling_settings")):
        settings["temperature"] = 0.0
    return settings
