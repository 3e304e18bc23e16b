"""The routed model: one pydantic-ai model that asks the fallback service for candidates on every request.

It owns the deadlines (`asyncio.timeout` a candidate), because the library's own reach an inner model as a
cancellation that cannot be told from the user's Stop. A stream is committed at its first output: until then events
are held back and a failure moves on to the next candidate; after that a failure keeps what came and never switches.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

from pydantic_ai import RunContext
from pydantic_ai.messages import BinaryContent, ImageUrl, ModelMessage, ModelRequest, ModelResponse, UserPromptPart
from pydantic_ai.models import Model, ModelRequestParameters, StreamedResponse
from pydantic_ai.models.fallback import FallbackModel
from pydantic_ai.settings import ModelSettings, merge_model_settings

from services.llm.models.candidate_call import request_answer, require_answer
from services.llm.models.provenance import Provenance, with_provenance
from services.llm.models.streams import CommittedStream, Listener, open_stream, refusal
from services.llm.providers.builder import ModelBuilder
from services.llm.request import Candidate, RequestSpec
from services.llm.routing.attempts import Attempts
from services.llm.routing.fallback import LLMProviderFallback
from services.llm.usage.report import used_whole


class RoutedModel(FallbackModel):
    """Serves each request by the first provider that answers, in the order of the fallback service.

    Args:
        fallback: orders the candidates and records outcomes.
        builder: builds the model of a candidate.
        spec: the requests.
        settings: model settings of every request.
        listener: receives the text of streamed answers; the stream's consumer then gets no deltas.
    """

    def __init__(
        self,
        fallback: LLMProviderFallback,
        builder: ModelBuilder,
        spec: RequestSpec,
        settings: ModelSettings | None = None,
        listener: Listener | None = None,
    ) -> None:
        # The library's own chain is not used; it lends its rules for histories from the first model by priority,
        # which is the one that is built anyway.
        first = fallback.providers[0]
        super().__init__(builder.model(first, first.default_model))
        self._defaults = settings
        self._fallback = fallback
        self._builder = builder
        self._spec = spec
        self._listener = listener

    @property
    def model_name(self) -> str:
        """The name in traces; a response carries the name of the model that gave it."""
        return "understudy"

    async def __aenter__(self) -> Self:
        """Nothing to enter: the builder owns the HTTP clients and outlives every run."""
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        """Nothing to leave."""

    async def request(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
    ) -> ModelResponse:
        """Ask the candidates one after the other until one answers.

        Raises:
            ProviderError: nobody answered, or the failure is not one that another candidate could mend.
        """
        settings = merge_model_settings(self._defaults, model_settings)
        has_images = any(map(_has_image, messages))
        attempts = await self._begin(messages, has_images=has_images)
        loop = asyncio.get_running_loop()
        try:
            async for candidate in attempts:
                try:
                    model, prepared = self._prepared(
                        candidate, messages, model_request_parameters, has_images=has_images
                    )
                    async with self._fallback.opening:
                        began = loop.time()
                        response = await request_answer(candidate, model, prepared, settings, model_request_parameters)
                    require_answer(response)
                except Exception as error:  # noqa: BLE001 - `failed` classifies it and re-raises what is ours
                    await attempts.failed(error)
                    continue
                used = used_whole(response.usage, response.parts, messages)
                if response.finish_reason == "content_filter":
                    raise attempts.refused(refusal(response.provider_details), used)
                attempts.succeeded(loop.time() - began, used)
                return replace(response, metadata=self._stamped(response.metadata, candidate, attempts, messages))
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
        """Open the stream of the first candidate that brings output.

        Raises:
            ProviderError: nobody answered, or the failure is not one that another candidate could mend; the stream
                itself raises `AnswerInterrupted` and `ContentRefused`.
        """
        settings = merge_model_settings(self._defaults, model_settings)
        has_images = any(map(_has_image, messages))
        attempts = await self._begin(messages, has_images=has_images)
        loop = asyncio.get_running_loop()
        try:
            async for candidate in attempts:
                async with AsyncExitStack() as stack:
                    try:
                        model, prepared = self._prepared(
                            candidate, messages, model_request_parameters, has_images=has_images
                        )
                        opening = model.request_stream(prepared, settings, model_request_parameters, run_context)
                        async with self._fallback.opening:
                            began = loop.time()
                            opened = await open_stream(stack, opening, candidate)
                    except Exception as error:  # noqa: BLE001 - `failed` classifies it and re-raises what is ours
                        failure = error
                    else:
                        stream = opened.response
                        if not opened.held:
                            used = used_whole(stream.usage, (), messages)
                            raise attempts.refused(refusal(stream.provider_details), used)
                        stream.metadata = self._stamped(stream.metadata, candidate, attempts, messages)
                        # Private, but the library replays what it peeked in the same way; the contract test
                        # (tests/services/llm/models/test_routed_contract.py) fails if that changes.
                        events = CommittedStream(opened, attempts, candidate, messages, began, self._listener)
                        stack.callback(events.leave)
                        stream._event_iterator = events  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
                        yield stream
                        return
                await attempts.failed(failure)
            raise attempts.exhausted()
        finally:
            attempts.close()

    async def _begin(self, messages: Sequence[ModelMessage], *, has_images: bool) -> Attempts:
        fits = self._sees if has_images else None
        return await self._fallback.begin(
            self._spec,
            messages=messages,
            fits=fits,
            window=self._window,
        )

    def _sees(self, candidate: Candidate) -> bool:
        return self._builder.sees_images(candidate.provider, candidate.model)

    def _window(self, candidate: Candidate) -> int | None:
        return self._builder.context_window(candidate.provider, candidate.model)

    def _prepared(
        self,
        candidate: Candidate,
        messages: list[ModelMessage],
        parameters: ModelRequestParameters,
        *,
        has_images: bool,
    ) -> tuple[Model, list[ModelMessage]]:
        model = self._builder.model(candidate.provider, candidate.model)
        if has_images and not self._sees(candidate):
            messages = [_without_images(message) for message in messages]
        return model, model.prepare_messages(messages, parameters)

    def _stamped(
        self,
        metadata: dict[str, Any] | None,
        candidate: Candidate,
        attempts: Attempts,
        messages: Sequence[ModelMessage],
    ) -> dict[str, Any]:
        failed = tuple((failure.provider, failure.reason) for failure in attempts.failures)
        blind = _has_image(messages[-1]) and not self._sees(candidate)
        return with_provenance(
            metadata, Provenance(provider=candidate.provider.id, model=candidate.model, failed=failed, blind=blind)
        )


def _has_image(message: ModelMessage) -> bool:
    return isinstance(message, ModelRequest) and any(
        isinstance(part, UserPromptPart) and not isinstance(part.content, str) and any(map(_is_image, part.content))
        for part in message.parts
    )


def _is_image(content: object) -> bool:
    return isinstance(content, ImageUrl) or (isinstance(content, BinaryContent) and content.is_image)


def _without_images(message: ModelMessage) -> ModelMessage:
    """The message with a remark in place of each image, for a model that does not see."""
    if not isinstance(message, ModelRequest) or not _has_image(message):
        return message
    parts = [
        replace(part, content=["[an image that you cannot see]" if _is_image(item) else item for item in part.content])
        if isinstance(part, UserPromptPart) and not isinstance(part.content, str)
        else part
        for part in message.parts
    ]
    return replace(message, parts=parts)
