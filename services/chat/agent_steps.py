"""Runs the agent step by step: while a model answers, no run of the agent is open.

An open run is some 100 KiB of the library's generators, tasks and contexts, with nothing to do until the answer is
complete. So a run ends where it would ask the model, and the request that it has prepared is made here. If the answer
calls tools, another run takes it up: it carries them out and prepares the next request.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from typing import Any, Generic, Literal, NamedTuple, TypeVar

from pydantic_ai import Agent, RunContext
from pydantic_ai.capabilities import Instrumentation, WrapModelRequestHandler
from pydantic_ai.exceptions import UnexpectedModelBehavior
from pydantic_ai.messages import (
    ModelMessage,
    ModelRequest,
    ModelResponse,
    RetryFeedbackPart,
    RetryInfo,
    TextPart,
    ToolCallPart,
    ToolReturnPart,
)
from pydantic_ai.models import Model, ModelRequestContext, ModelRequestParameters, StreamedResponse
from pydantic_ai.models.instrumented import InstrumentationSettings, InstrumentedModel
from pydantic_ai.models.wrapper import WrapperModel
from pydantic_ai.settings import ModelSettings
from pydantic_ai.toolsets import AbstractToolset
from pydantic_ai.usage import RunUsage, UsageLimits

from services.llm.models.routed import RoutedModel

DepsT = TypeVar("DepsT")

MOST_CORRECTIONS = 2
"""Times that a model is asked again because its answer has no text."""
MOST_CONTINUATIONS = 10
"""Times that a paused answer is continued."""
NO_TEXT = "Please return text or call a tool."
"""The library's words for an answer without text; it sends them, and no others, as a message of the system."""


class _Request(NamedTuple):
    messages: list[ModelMessage]
    settings: ModelSettings | None
    parameters: ModelRequestParameters


@dataclass(slots=True)
class AgentSteps(Generic[DepsT]):
    """One answer of an agent: its requests to the model, and the tool calls between them.

    Args:
        agent: prepares the requests and carries out tool calls.
        model: is asked in each step, by a streamed request.
        deps: dependencies of instructions and tools.
        limits: limits of all steps together.
        note_calls: called with the tool calls of a response before they are carried out.
        toolsets: tools of this answer beside those of the agent.
    """

    agent: Agent[DepsT, str]
    model: RoutedModel
    deps: DepsT
    limits: UsageLimits
    note_calls: Callable[[list[ToolCallPart]], None]
    messages: list[ModelMessage] = field(default_factory=list[ModelMessage])
    """The new messages, also of steps that failed: an answer that broke off is the last of them."""
    toolsets: Sequence[AbstractToolset[DepsT]] = ()
    _usage: RunUsage = field(default_factory=RunUsage)
    _wrong_calls: dict[str, int] = field(default_factory=dict[str, int])
    """By tool: steps in a row in which the model was asked to correct a call."""
    _corrections: int = 0
    """Answers without text so far."""

    async def run(self, history: Sequence[ModelMessage]) -> None:
        """Asks the model until it answers without calling tools.

        Args:
            history: ends with the request that is to be answered.

        Raises:
            UsageLimitExceeded: the answer needs more steps or tool calls than its limits allow.
            UnexpectedModelBehavior: the model calls a tool wrongly in spite of corrections, or answers without text,
                such as with a picture, or its provider pauses the answer again and again.
        """
        so_far, request = await self._prepare(history)
        while request is not None:
            response = await self._ask(request)
            self.messages.append(response)
            so_far = [*so_far, response]
            if response.tool_calls:
                self.note_calls(response.tool_calls)
            elif _has_text(response):
                return
            else:
                so_far.append(self._correct(response))
            so_far, request = await self._prepare(so_far)

    def _correct(self, response: ModelResponse) -> ModelRequest:
        """Returns the request for an answer with text, as the library words it within a run.

        Raises:
            UnexpectedModelBehavior: the answer ended at its length limit, or it is one too many.
        """
        self._corrections += 1
        if response.finish_reason == "length" or self._corrections > MOST_CORRECTIONS:
            raise UnexpectedModelBehavior("an answer without text")
        retry = RetryInfo[Literal["no_output"]]("no_output", attempt=self._corrections, max_retries=MOST_CORRECTIONS)
        correction = ModelRequest([RetryFeedbackPart(NO_TEXT, retry=retry)])
        self.messages.append(correction)
        return correction

    async def _prepare(self, history: Sequence[ModelMessage]) -> tuple[list[ModelMessage], _Request | None]:
        """Carries out the tool calls at the end of a history.

        Returns:
            The history with their results, and the next request; None if there is none.
        """
        recorder = _RequestRecorder(self.model)
        spans = self.agent.instrument
        async with self.agent.iter(
            message_history=history,
            model=recorder,
            deps=self.deps,
            usage=self._usage,
            usage_limits=self.limits,
            toolsets=self.toolsets,
            infer_name=False,
            capabilities=[_RunSpans(spans)] if isinstance(spans, InstrumentationSettings) else None,
        ) as run:
            try:
                async for _ in run:
                    if recorder.recorded:
                        break
            finally:
                results = recorder.without_placeholder(run.new_messages())
                self.messages += results
        for message in results:
            if isinstance(message, ModelRequest):
                self._count_wrong_calls(message)
        return recorder.without_placeholder(run.all_messages()), recorder.recorded

    async def _ask(self, request: _Request) -> ModelResponse:
        """Returns the answer to a request.

        An answer that its provider pauses, as Anthropic does with long searches, is continued until it is whole.
        """
        response = await self._receive(request)
        for _ in range(MOST_CONTINUATIONS):
            if response.state != "suspended":
                return response
            response = await self._receive(request, response)
        self.messages.append(replace(response, state="interrupted"))
        raise UnexpectedModelBehavior("an answer that is paused again and again")

    async def _receive(self, request: _Request, begun: ModelResponse | None = None) -> ModelResponse:
        """Returns an answer, or what was begun of it and its continuation; one that breaks off is in the messages."""
        response = begun
        messages = request.messages if begun is None else [*request.messages, begun]
        try:
            async with self._open(request._replace(messages=messages)) as stream:
                try:
                    async for _ in stream:
                        pass
                finally:
                    response = _continued(begun, stream.get(), request.messages[-1])
        except BaseException:
            if response is not None:
                self.messages.append(replace(response, state="interrupted"))
            raise
        return response

    def _open(self, request: _Request) -> AbstractAsyncContextManager[StreamedResponse]:
        """Returns a stream whose request is made when it is entered."""
        spans = self.agent.instrument
        if isinstance(spans, InstrumentationSettings):
            return InstrumentedModel(self.model, spans).request_stream(*request)
        return self.model.open_stream(*request)

    def _count_wrong_calls(self, results: ModelRequest) -> None:
        """Counts the calls that a model is to correct, as the library does within a run.

        Raises:
            UnexpectedModelBehavior: a tool was called wrongly too often.
        """
        returned = [part for part in results.parts if isinstance(part, ToolReturnPart)]
        wrong = {
            part.tool_name: part.retry.max_retries
            for part in returned
            if part.retry is not None and part.retry.max_retries is not None
        }
        counts = {name: self._wrong_calls.get(name, 0) + 1 for name in wrong}
        right = {part.tool_name for part in returned}
        self._wrong_calls = {name: count for name, count in self._wrong_calls.items() if name not in right} | counts
        if any(counts[name] > most for name, most in wrong.items()):
            raise UnexpectedModelBehavior("a tool was called wrongly too often")


def _has_text(response: ModelResponse) -> bool:
    return any(isinstance(part, TextPart) and part.content for part in response.parts)


def _continued(begun: ModelResponse | None, rest: ModelResponse, asked: ModelMessage) -> ModelResponse:
    """Returns an answer with what was received before its pause, and with the ids of what it answers."""
    whole = replace(rest, run_id=asked.run_id, conversation_id=asked.conversation_id)
    if begun is not None:
        whole.parts, whole.usage = [*begun.parts, *rest.parts], begun.usage + rest.usage
    return whole


class _RequestRecorder(WrapperModel):
    """Keeps the request of a run in place of making it.

    Args:
        model: answers what the agent asks about its model.
    """

    def __init__(self, model: Model) -> None:
        super().__init__(model)
        self.recorded: _Request | None = None
        self._placeholder = ModelResponse([TextPart("-")])

    async def request(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
    ) -> ModelResponse:
        """Records the request; what it returns is not part of the answer."""
        self.recorded = _Request(messages, model_settings, model_request_parameters)
        return self._placeholder

    def without_placeholder(self, messages: Sequence[ModelMessage]) -> list[ModelMessage]:
        """Returns the messages of the run without what this model returned."""
        return [message for message in messages if message is not self._placeholder]


class _RunSpans(Instrumentation):
    """Spans of runs and tool calls; a request has its span where it is made."""

    async def wrap_model_request(
        self,
        ctx: RunContext[Any],  # Any: as in the library
        *,
        request_context: ModelRequestContext,
        handler: WrapModelRequestHandler,
    ) -> ModelResponse:
        """Records the request without a span."""
        del ctx
        return await handler(request_context)
