"""Tests a provider as chat uses it: a streamed answer of a few tokens, with instructions and a tool offered."""

import asyncio
import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus

from pydantic_ai.direct import model_request, model_request_stream
from pydantic_ai.exceptions import (
    ModelAPIError,
    ModelAuthenticationError,
    ModelConnectionError,
    ModelHTTPError,
    ModelQuotaExceededError,
    ModelRateLimitError,
    ModelRequestTimeout,
    UnexpectedModelBehavior,
)
from pydantic_ai.messages import BinaryContent, ModelRequest, ModelResponse, UserPromptPart
from pydantic_ai.models import Model, ModelRequestParameters
from pydantic_ai.settings import ModelSettings
from pydantic_ai.tools import ToolDefinition

from core.clock import Clock
from core.config.providers import ProviderSettings
from services.llm.models.stream_reader import emptiness, is_answer
from services.llm.providers.builder import ModelBuilder
from services.llm.providers.catalog import suggest_version
from services.llm.request import Capability
from services.llm.routing.faults.outcomes import Outcome, classify
from services.llm.routing.faults.reasons import EmptyAnswer
from services.llm.server_words import find_server_words, mask_secrets

INSTRUCTIONS = "You are being tested. Follow the request."
QUESTION = "Reply with the one word OK."
MAX_TOKENS = 16
"""The least that every provider accepts; some refuse a limit of one token."""
TOOL = ToolDefinition(
    name="current_time",
    description="Returns the current time.",
    parameters_json_schema={"type": "object", "properties": {}, "additionalProperties": False},
)

PICTURE = BinaryContent(
    base64.b64decode(
        "iVBORw0KGgoAAAANSUhEUgAAACAAAAAgCAIAAAD8GO2jAAAAJklEQVR42u3NMQ0AAAwDoPo33arYsQQMkB6LQCAQCAQCgUAg+BIMi1X0"
        "ptsIcT0AAAAASUVORK5CYII="
    ),
    media_type="image/png",
)
"""A white square of 32 pixels; some servers refuse smaller ones."""
Features = frozenset[Capability]
TESTED = (Capability.STREAMING, Capability.TOOLS, Capability.SYSTEM_ROLE)
"""Features that chat uses in each request, where the model has them."""
ALL: Features = frozenset(TESTED)
_ORDER: tuple[Features, ...] = (
    ALL,
    ALL - {Capability.TOOLS},
    ALL - {Capability.SYSTEM_ROLE},
    ALL - {Capability.TOOLS, Capability.SYSTEM_ROLE},
    ALL - {Capability.STREAMING},
    ALL - {Capability.STREAMING, Capability.TOOLS},
    ALL - {Capability.STREAMING, Capability.SYSTEM_ROLE},
    frozenset(),
)
"""Features of each request, from all to none; the first that is answered shows the missing ones."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A request of a trial that failed.

    Args:
        outcome: the reason, without keys.
        words: the server's own words, without keys; they may quote the prompt, which is ours.
        hint: a setting that probably mends it.
        error: the exception, for the log where the fault is ours.
    """

    outcome: Outcome
    words: str | None
    hint: str | None
    error: Exception

    def __str__(self) -> str:
        """The failure in one line for operators."""
        words = f": {self.words}" if self.words else ""
        hint = f" ({self.hint})" if self.hint else ""
        return f"{self.outcome.reason}{words}{hint}"


@dataclass(frozen=True, slots=True)
class TrialResult:
    """The result of a test.

    Args:
        model: the model that was asked.
        took_s: duration of the last request.
        refused: the features that the model does without, each with the first refusal.
        failure: why there is no answer; None if there is one.
        first_output_s: of the last request, if it was streamed and answered.
    """

    model: str
    took_s: float
    refused: Mapping[Capability, Failure]
    failure: Failure | None
    first_output_s: float | None = None


class ProviderTrial:
    """Tests providers directly: the fallback service is not involved, and no state changes.

    Args:
        builder: builds the models; its connections are those of chat.
        clock: measures the duration.
        cooldown_s: cooldown of an outcome without one of its own.
    """

    def __init__(self, builder: ModelBuilder, clock: Clock, cooldown_s: float) -> None:
        self._builder = builder
        self._clock = clock
        self._cooldown_s = cooldown_s

    async def run(self, provider: ProviderSettings, model_name: str | None = None) -> TrialResult:
        """Asks with all features, then with fewer of them, until there is an answer.

        A failure that fewer features cannot mend (no connection, a refused key, no output in time) ends the test.

        Args:
            provider: the provider.
            model_name: one of its models; None for the default.
        """
        name = model_name or provider.default_model
        first: Failure | None = None
        took_s = 0.0
        for features in _ORDER:
            began = self._clock.monotonic()
            opened_at: list[float] = []
            error = await self._try(provider, name, features, partial(self._note_time, opened_at))
            took_s = self._clock.monotonic() - began
            if error is None:
                first_output_s = opened_at[0] - began if opened_at else None
                refused = dict.fromkeys(ALL - features, first) if first else {}
                return TrialResult(name, took_s, refused, None, first_output_s)
            failure = self._describe(provider, error)
            first = first or failure
            if not _may_be_a_refusal(error):
                return TrialResult(name, took_s, {}, failure)
        return TrialResult(name, took_s, {}, first)

    async def try_picture(self, provider: ProviderSettings, model_name: str) -> Failure | None:
        """Asks about a picture of a few pixels; returns why there is no answer, None if there is one."""
        error = await self._try(provider, model_name, frozenset(), picture=PICTURE)
        return None if error is None else self._describe(provider, error)

    def _note_time(self, times: list[float]) -> None:
        times.append(self._clock.monotonic())

    async def _try(
        self,
        provider: ProviderSettings,
        name: str,
        features: Features,
        on_output: Callable[[], None] | None = None,
        picture: BinaryContent | None = None,
    ) -> Exception | None:
        try:
            model = self._builder.models[provider, name]
            _require_answer(await _ask(model, provider, name, features, on_output, picture))
        except Exception as error:  # noqa: BLE001 - the failure is the result of the test
            return error
        return None

    def _describe(self, provider: ProviderSettings, error: Exception) -> Failure:
        outcome = classify(error, self._cooldown_s)
        key = provider.api_key
        # The reason may hold a code, and a code may hold the key.
        reason = mask_secrets(outcome.reason, [key.get_secret_value()] if key is not None else [])
        is_unknown_path = isinstance(error, ModelHTTPError) and error.status_code == HTTPStatus.NOT_FOUND
        return Failure(
            outcome=Outcome(outcome.fault, reason, outcome.cooldown_s),
            words=find_server_words(error, key, is_own_prompt=True),
            hint=suggest_version(provider) if is_unknown_path else None,
            error=error,
        )


async def _ask(
    model: Model,
    provider: ProviderSettings,
    name: str,
    features: Features,
    on_output: Callable[[], None] | None,
    picture: BinaryContent | None,
) -> ModelResponse:
    question = QUESTION if picture is None else [QUESTION, picture]
    instructions = INSTRUCTIONS if Capability.SYSTEM_ROLE in features else None
    prompt = [ModelRequest([UserPromptPart(question)], instructions=instructions)]
    settings = ModelSettings(max_tokens=MAX_TOKENS)
    parameters = ModelRequestParameters(function_tools=[TOOL] if Capability.TOOLS in features else [])
    timeout_s = provider.first_token_timeout_s
    try:
        async with asyncio.timeout(timeout_s) as deadline:
            if Capability.STREAMING not in features:
                return await model_request(model, prompt, model_settings=settings, model_request_parameters=parameters)
            async with model_request_stream(
                model, prompt, model_settings=settings, model_request_parameters=parameters
            ) as stream:
                async for _ in stream:
                    if on_output is not None:
                        on_output()
                    timeout_s = provider.stall_timeout_s
                    deadline.reschedule(asyncio.get_running_loop().time() + timeout_s)
                return stream.get()
    except TimeoutError as error:
        raise ModelRequestTimeout(name, timeout_s) from error


def _require_answer(response: ModelResponse) -> None:
    # A model that thinks first may use up the few tokens on that: it works all the same.
    if response.finish_reason != "length" and not any(map(is_answer, response.parts)):
        raise EmptyAnswer(emptiness(response.parts), response.usage)


def _may_be_a_refusal(error: Exception) -> bool:
    """Returns whether the same request without some of its features might be answered."""
    if isinstance(
        error,
        ModelAuthenticationError
        | ModelConnectionError
        | ModelQuotaExceededError
        | ModelRateLimitError
        | ModelRequestTimeout,
    ):
        return False
    if isinstance(error, ModelHTTPError):
        # Servers refuse tools with a 400, a 404 (OpenRouter), a 422, a 500 (llama.cpp) or a 501.
        return error.status_code not in {401, 402, 403, 429, 502, 503, 504}
    return isinstance(error, ModelAPIError | UnexpectedModelBehavior)
