"""The demo provider: streams a fixed answer that explains how to configure a real one.

It works without any configuration.
"""

import re
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from pydantic_ai import RunContext
from pydantic_ai.messages import (
    ModelMessage,
    ModelRequest,
    ModelResponse,
    ModelResponseStreamEvent,
    TextPart,
    UserPromptPart,
)
from pydantic_ai.models import Model, ModelRequestParameters, StreamedResponse
from pydantic_ai.settings import ModelSettings
from pydantic_ai.usage import RequestUsage
from typing_extensions import override

from core.clock import Clock

PAUSE_S: Final = 0.02
"""Pause between two words: slow enough to be seen as a stream, without a long wait."""

_ECHO_LENGTH = 120

_ANSWER = """\
This is the built-in demo. There is no language model behind it; it explains how to connect one.

{echo}To use a real model, put one of these into `.env` and restart:

- **OpenAI**: `OPENAI_API_KEY=sk-...`
- **Ollama** on this machine: run `ollama pull llama3.2` and set `AVAILABLE_PROVIDERS={{"ollama": ["llama3.2"]}}`; if \
it runs elsewhere, set `OLLAMA_BASE_URL`
- **any server with OpenAI's protocol**: `AVAILABLE_PROVIDERS={{"mine": ["its-model"]}}` and \
`MINE_BASE_URL=http://localhost:1234/v1`

Providers are asked in the order of `AVAILABLE_PROVIDERS`; `/provider` shows their state.
"""


def build_demo_answer(messages: Sequence[ModelMessage]) -> str:
    """Returns the answer, which depends on the last question only."""
    question = " ".join(_find_last_question(messages).split())
    if len(question) > _ECHO_LENGTH:
        question = question[:_ECHO_LENGTH].rstrip() + "…"
    return _ANSWER.format(echo=f"You wrote “{question}”; a real model would answer that.\n\n" if question else "")


def _find_last_question(messages: Sequence[ModelMessage]) -> str:
    for message in reversed(messages):
        if not isinstance(message, ModelRequest):
            continue
        for part in reversed(message.parts):
            if isinstance(part, UserPromptPart):
                content = [part.content] if isinstance(part.content, str) else part.content
                return " ".join(piece for piece in content if isinstance(piece, str))
    return ""


def _estimate_usage(messages: Sequence[ModelMessage], answer: str) -> RequestUsage:
    return RequestUsage(input_tokens=len(_find_last_question(messages).split()), output_tokens=len(answer.split()))


class DemoModel(Model[None]):
    """A pydantic-ai model with a fixed answer.

    Args:
        model_name: name in AVAILABLE_PROVIDERS.
        clock: paces the stream.
        pause_s: pause between two words.
    """

    def __init__(self, model_name: str, clock: Clock, pause_s: float = PAUSE_S) -> None:
        super().__init__()
        self._name = model_name
        self._clock = clock
        self._pause_s = pause_s

    @property
    def model_name(self) -> str:
        """The name in AVAILABLE_PROVIDERS."""
        return self._name

    @property
    def system(self) -> str:
        """The provider name that is recorded with its answers."""
        return "demo"

    @override
    async def request(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
    ) -> ModelResponse:
        """Returns the whole answer."""
        answer = build_demo_answer(messages)
        return ModelResponse(
            parts=[TextPart(answer)],
            usage=_estimate_usage(messages, answer),
            model_name=self._name,
            provider_name=self.system,
            finish_reason="stop",
        )

    @override
    @asynccontextmanager
    async def request_stream(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
        run_context: RunContext[Any] | None = None,
    ) -> AsyncGenerator[StreamedResponse]:
        """Streams the answer word by word."""
        answer = build_demo_answer(messages)
        yield _DemoStream(
            model_request_parameters=model_request_parameters,
            _name=self._name,
            _answer=answer,
            _final_usage=_estimate_usage(messages, answer),
            _clock=self._clock,
            _pause_s=self._pause_s,
        )


@dataclass
class _DemoStream(StreamedResponse):
    _name: str
    _answer: str
    _final_usage: RequestUsage
    _clock: Clock
    _pause_s: float
    _started: datetime = field(init=False)

    def __post_init__(self) -> None:
        self._started = self._clock.now()

    async def _get_event_iterator(self) -> AsyncIterator[ModelResponseStreamEvent]:
        for number, word in enumerate(re.findall(r"\S+\s*", self._answer)):
            if number:
                await self._clock.sleep(self._pause_s)
            for event in self._parts_manager.handle_text_delta(vendor_part_id="answer", content=word):
                yield event
        self._usage = self._final_usage
        self.finish_reason = "stop"

    async def close_stream(self) -> None:
        """Does nothing: there is no connection."""

    @property
    def model_name(self) -> str:
        return self._name

    @property
    def provider_name(self) -> str:
        return "demo"

    @property
    def provider_url(self) -> None:
        return None

    @property
    def timestamp(self) -> datetime:
        return self._started
