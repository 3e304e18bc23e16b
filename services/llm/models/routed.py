"""The routed model: a pydantic-ai model that gets its candidates from the fallback service on every request.

It owns the deadlines (`bounds.Deadline`): the library's own deadlines reach an inner model as a cancellation that
looks like the user's Stop. A stream is committed at its first output. Before that, events are held
back and a failure moves on to the next candidate; after it, a failure keeps the text and never switches.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Any, Self

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_ai import RunContext
from pydantic_ai.messages import ModelMessage, ModelResponse
from pydantic_ai.models import Model, ModelRequestParameters, StreamedResponse
from pydantic_ai.models.fallback import FallbackModel
from pydantic_ai.settings import ModelSettings, merge_model_settings

from core.clock import SystemClock
from core.errors import UnknownProvider
from services.llm.models.adapted import AdaptableRequest
from services.llm.models.candidate_call import (
    CommittedStream,
    Listener,
    Prepare,
    PreparedCall,
    build_model,
    fit_web_search,
    has_image,
    known_window,
    open_stream,
    sees_images,
)
from services.llm.models.direct import request_answer
from services.llm.providers.builder import ModelBuilder
from services.llm.providers.demo import DemoModel
from services.llm.request import DEFAULT_MAX_TOKENS, UNCHANGED, Adaptation, Candidate, Capability, RequestSpec
from services.llm.routing.attempts import Attempt, Attempts
from services.llm.routing.fallback import LLMProviderFallback


class RoutedModel(FallbackModel):
    """Serves each request by the first provider that answers, in the order of the fallback service.

    Args:
        fallback: orders the candidates and records outcomes.
        builder: builds the model of a candidate.
        spec: the requests.
        settings: model settings of every request.
        listener: receives the text of streamed answers; the stream's consumer then gets no deltas.

    Raises:
        UnknownProvider: the choice of `spec` is not a configured provider.
    """

    def __init__(
        self,
        fallback: LLMProviderFallback,
        builder: ModelBuilder,
        spec: RequestSpec,
        settings: ModelSettings | None = None,
        listener: Listener | None = None,
    ) -> None:
        usable = fallback.roster.usable
        if spec.choice is not None and spec.choice.provider not in usable:
            raise UnknownProvider(spec.choice.provider, usable)
        # The library's own chain of models is not used. It takes its rules for histories from its first model, which
        # is built anyway.
        super().__init__(_first_model(fallback, builder))
        self._defaults = merge_model_settings(ModelSettings(max_tokens=DEFAULT_MAX_TOKENS), settings)
        self._fallback = fallback
        self._builder = builder
        self._sees = partial(sees_images, builder, fallback.recorder)
        self._window = partial(known_window, builder)
        self._spec = spec
        self._listener = listener

    @property
    def model_name(self) -> str:
        """The name in traces. A response carries the name of the model that produced it."""
        return "understudy"

    async def __aenter__(self) -> Self:
        """Returns the model: the builder owns the HTTP clients and outlives every run."""
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        """Keeps the HTTP clients open."""

    async def request(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
    ) -> ModelResponse:
        """Returns the answer of the first candidate that gives one.

        Raises:
            ProviderError: no candidate answered, or another candidate could not help.
        """
        request = self._adaptable(messages, model_settings, model_request_parameters, Capability.STREAMING)
        has_images = any(map(has_image, messages))
        prepare = self._preparer(request, has_images=has_images)
        attempts = await self._begin(request, has_images=has_images)
        try:
            async for attempt in attempts:
                answer = await request_answer(attempt, prepare, messages)
                if answer is None:
                    continue
                attempt.succeeded(answer.took_s, answer.used)
                response = answer.response
                metadata = self._with_provenance(response.metadata, attempt, attempts, messages)
                return replace(response, metadata=metadata)
            raise attempts.exhausted()
        finally:
            attempts.close()

    @asynccontextmanager
    async def request_stream(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
        run_context: RunContext[Any] | None = None,
    ) -> AsyncGenerator[StreamedResponse]:
        """Opens the stream of the first candidate that produces output, as the library asks for it.

        Raises:
            ProviderError: as `open_stream`.
        """
        async with self.open_stream(messages, model_settings, model_request_parameters, run_context) as stream:
            yield stream

    @asynccontextmanager
    async def open_stream(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
        run_context: RunContext[Any] | None = None,
    ) -> AsyncGenerator[StreamedResponse]:
        """Opens the stream of the first candidate that produces output.

        The library wraps each `request_stream` into generators that are held until the stream's end. The models of
        candidates have them; the router needs them no second time.

        Raises:
            ProviderError: no candidate answered, or another candidate could not help. The stream itself raises
                `AnswerInterrupted` and `ContentRefused`.
        """
        request = self._adaptable(messages, model_settings, model_request_parameters, Capability.STREAMING)
        has_images = any(map(has_image, messages))
        prepare = self._preparer(request, has_images=has_images)
        attempts = await self._begin(request, has_images=has_images)
        try:
            async for attempt in attempts:
                async with AsyncExitStack() as stack:
                    merges = self._spec.merges_arrivals
                    reader = await open_stream(stack, attempt, prepare, messages, run_context, merges_arrivals=merges)
                    if reader is None:
                        continue
                    stream = reader.response
                    stream.metadata = self._with_provenance(stream.metadata, attempt, attempts, messages)
                    events = CommittedStream(reader, attempt, messages, self._listener)
                    stack.callback(events.leave)
                    # Private, but the library replays peeked events the same way. The contract test
                    # tests/services/llm/models/test_routed_contract.py fails if that changes.
                    stream._event_iterator = events  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] - as above
                    yield stream
                    return
            raise attempts.exhausted()
        finally:
            attempts.close()

    def _adaptable(
        self,
        messages: list[ModelMessage],
        settings: ModelSettings | None,
        parameters: ModelRequestParameters,
        *extra: Capability,
    ) -> AdaptableRequest:
        merged = merge_model_settings(self._defaults, settings)
        return AdaptableRequest(messages, merged, parameters, frozenset(extra), self._spec.is_whole)

    async def _begin(self, request: AdaptableRequest, *, has_images: bool) -> Attempts:
        return await self._fallback.begin(
            self._spec,
            messages=request.messages,
            fits=self._sees if has_images else None,
            window=self._window,
            shape=request,
        )

    def _preparer(self, request: AdaptableRequest, *, has_images: bool) -> Prepare:
        def prepare(candidate: Candidate, adaptation: Adaptation) -> PreparedCall:
            model = build_model(self._builder, candidate)
            sees = not has_images or Capability.IMAGES in self._spec.required or self._sees(candidate)
            if request.parameters.output_mode == "native" and not model.profile.get("supports_json_schema_output"):
                adaptation = replace(adaptation, without=adaptation.without | {Capability.STRUCTURED_OUTPUT})
            messages, settings = request.messages, request.settings
            parameters = fit_web_search(request.parameters, model.profile, adaptation)
            if adaptation is not UNCHANGED or not sees:
                fitted = replace(request, parameters=parameters)
                messages, settings, parameters = fitted.apply(adaptation, sees_images=sees)
            return PreparedCall(model, model.prepare_messages(messages, parameters), settings, parameters)

        return prepare

    def _with_provenance(
        self,
        metadata: dict[str, Any] | None,
        attempt: Attempt,
        attempts: Attempts,
        messages: Sequence[ModelMessage],
    ) -> dict[str, Any]:
        candidate = attempt.candidate
        failed = tuple((failure.provider, failure.reason) for failure in attempts.failures)
        blind = has_image(messages[-1]) and (
            Capability.IMAGES in attempt.adaptation.without or not self._sees(candidate)
        )
        return with_provenance(
            metadata,
            Provenance(
                provider=candidate.provider.id,
                model=candidate.model,
                failed=failed,
                blind=blind,
                failed_local=self._fallback.local_failure(candidate, {provider for provider, _ in failed}),
            ),
        )


def _first_model(fallback: LLMProviderFallback, builder: ModelBuilder) -> Model:
    """Returns the first model that can be built; it is not asked, so a stand-in does where none can."""
    for provider in fallback.providers:
        with suppress(Exception):
            return builder.models[provider, provider.models[0]]
    return DemoModel("none", SystemClock())


KEY = "understudy"


class Provenance(BaseModel, frozen=True):
    """The provider and model of a response.

    Args:
        failed: the providers that failed before, each with its reason.
        blind: the request had an image, and the model has no vision.
        failed_local: the local provider that a remote one replaced.
    """

    provider: str
    model: str
    failed: tuple[tuple[str, str], ...] = ()
    blind: bool = False
    failed_local: str | None = None


_PROVENANCE = TypeAdapter(Provenance)


def with_provenance(metadata: dict[str, Any] | None, provenance: Provenance) -> dict[str, Any]:
    """Returns the metadata of a response with its provenance added."""
    return {**(metadata or {}), KEY: provenance.model_dump()}


def last_provenance(messages: Sequence[ModelMessage]) -> Provenance | None:
    """Returns the provenance of the newest response among the messages, if it has one."""
    for message in reversed(messages):
        if isinstance(message, ModelResponse):
            try:
                return _PROVENANCE.validate_python((message.metadata or {}).get(KEY))
            except ValidationError:
                return None
    return None
