"""Runs the agent step by step: while a model answers, no run of the agent is open.

An open run is some 100 KiB of the library's generators, tasks and contexts, with nothing to do until the answer is
complete. So a run ends where it would ask the model, and the request that it has prepared is made here. If the answer
calls tools, another run takes it up: it carries them out and prepares the next request.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

from pydantic_ai import Agent, RunContext
from pydantic_ai.capabilities import Instrumentation, WrapModelRequestHandler
from pydantic_ai.exceptions import UnexpectedModelBehavior
from pydantic_ai.messages import (
    ModelMessage,
    ModelRequest,
    ModelResponse,
    TextPart,
    ToolCallPart,
    ToolReturnPart,
)
from pydantic_ai.models import Model, ModelRequestContext, ModelRequestParameters, StreamedResponse
from pydantic_ai.models.instrumented import InstrumentationSettings, InstrumentedModel
from pydantic_ai.models.wrapper import WrapperModel
from pydantic_ai.settings import ModelSettings
from pydantic_ai.usage import RunUsage, UsageLimits

from services.llm.models.routed import RoutedModel

DepsT = TypeVar("DepsT")

_Opening = AbstractAsyncContextManager[StreamedResponse]
"""A request that is made when it is entered."""


@dataclass(slots=True)
class AgentSteps(Generic[DepsT]):
    """One answer of an agent: its requests to the model, and the tool calls between them.

    Args:
        agent: prepares the requests and carries out tool calls.
        model: is asked in each step, by a streamed request.
        deps: of instructions and tools.
        limits: of all steps together.
        note_calls: called with the tool calls of a response before they are carried out.
    """

    agent: Agent[DepsT, str]
    model: RoutedModel
    deps: DepsT
    limits: UsageLimits
    note_calls: Callable[[list[ToolCallPart]], None]
    messages: list[ModelMessage] = field(default_factory=list[ModelMessage])
    """The new messages, also of steps that failed: an answer that broke off is the last of them."""
    _usage: RunUsage = field(default_factory=RunUsage)
    _wrong_calls: dict[str, int] = field(default_factory=dict[str, int])
    """By tool: steps in a row in which the model was asked to correct a call."""

    async def run(self, history: Sequence[ModelMessage]) -> None:
        """Asks the model until it answers without calling tools.

        Args:
            history: ends with the request that is to be answered.

        Raises:
            UsageLimitExceeded: the answer needs more steps or tool calls than its limits allow.
            UnexpectedModelBehavior: the model calls a tool wrongly in spite of corrections, or answers without text,
                such as with a picture.
        """
        so_far, opening = await self._prepare(history)
        while opening is not None:
            response = await self._ask(opening)
            self.messages.append(response)
            if not response.tool_calls:
                if not response.text:
                    raise UnexpectedModelBehavior("an answer without text")
                return
            self.note_calls(response.tool_calls)
            so_far, opening = await self._prepare([*so_far, response])

    async def _prepare(self, history: Sequence[ModelMessage]) -> tuple[list[ModelMessage], _Opening | None]:
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
        return recorder.without_placeholder(run.all_messages()), self._open(recorder)

    def _open(self, recorder: "_RequestRecorder") -> _Opening | None:
        if recorder.recorded is None:
            return None
        spans = self.agent.instrument
        if isinstance(spans, InstrumentationSettings):
            return InstrumentedModel(self.model, spans).request_stream(*recorder.recorded)
        return self.model.open_stream(*recorder.recorded)

    async def _ask(self, opening: _Opening) -> ModelResponse:
        """Returns the answer to a request; one that breaks off is kept in the messages."""
        async with opening as stream:
            try:
                async for _ in stream:
                    pass
            except BaseException:
                self.messages.append(replace(stream.get(), state="interrupted"))
                raise
            return stream.get()

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


class _RequestRecorder(WrapperModel):
    """Keeps the request of a run in place of making it.

    Args:
        model: answers what the agent asks about its model.
    """

    def __init__(self, model: Model) -> None:
        super().__init__(model)
        self.recorded: tuple[list[ModelMessage], ModelSettings | None, ModelRequestParameters] | None = None
        self._placeholder = ModelResponse([TextPart("-")])

    async def request(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
    ) -> ModelResponse:
        """Records the request; what it returns is not part of the answer."""
        self.recorded = messages, model_settings, model_request_parameters
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
