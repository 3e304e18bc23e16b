"""OpenAI's clients without the two most expensive steps of the SDK, which have no effect on our requests.

With 8,000 tokens of history and an answer of 200 pieces they took a third of a turn's CPU time. Uses private API of
openai 3.52, with contract tests in tests/services/llm/providers/test_openai_clients.py.
"""

from collections.abc import Awaitable, Callable, Iterable
from functools import cached_property
from typing import Any, TypeVar, cast

import httpx2
from openai import AsyncAzureOpenAI, AsyncOpenAI
from openai.resources.chat import AsyncChat, AsyncCompletions
from openai.types.chat import ChatCompletionChunk, ChatCompletionMessageParam
from pydantic import ValidationError

ResponseT = TypeVar("ResponseT")


class _Completions(AsyncCompletions):
    """Chat completions that send messages unchanged.

    The SDK compares each message with every message type to find fields with another name on the wire. There are
    none. It copies `extra_body` into the request unchanged.
    """

    async def create(
        self,
        *,
        messages: Iterable[ChatCompletionMessageParam],
        extra_body: object = None,
        **arguments: Any,  # noqa: ANN401 - see above
    ) -> Any:  # noqa: ANN401 - an answer or a stream, depending on the arguments
        """Requests an answer. Arguments and result are those of the SDK."""
        # The SDK types `extra_body` as object, and merges it as a mapping.
        body = {"messages": list(messages), **cast("dict[str, object]", extra_body or {})}
        create = cast("Callable[..., Awaitable[Any]]", super().create)
        return await create(messages=(), extra_body=body, **arguments)


class _Chat(AsyncChat):
    @cached_property
    def completions(self) -> AsyncCompletions:  # pyright: ignore[reportIncompatibleMethodOverride] - the SDK's is a cached property as well
        return _Completions(self._client)


class LeanOpenAI(AsyncOpenAI):
    """`AsyncOpenAI` with lean messages and chunks, see the module."""

    @cached_property
    def chat(self) -> AsyncChat:  # pyright: ignore[reportIncompatibleMethodOverride] - as above
        """Chat completions."""
        return _Chat(self)

    def _process_response_data(self, *, data: object, cast_to: type[ResponseT], response: httpx2.Response) -> ResponseT:
        """Parses a piece of a stream, or a whole answer.

        The SDK builds objects field by field in Python, so that data of other types passes as well. Valid chunks are
        parsed by Pydantic in a twentieth of the time (in strict mode, so that no value is coerced); the rest is left to
        the SDK.
        """
        if cast_to is ChatCompletionChunk:
            try:
                return cast("ResponseT", ChatCompletionChunk.model_validate(data, strict=True))
            except ValidationError:
                _complete_chunk(data)
        return super()._process_response_data(data=data, cast_to=cast_to, response=response)


def _complete_chunk(data: object) -> None:
    """Adds the choices and deltas that a server left out of a chunk, such as its last one."""
    if not isinstance(data, dict):
        return
    chunk = cast("dict[str, object]", data)
    choices: object = chunk.get("choices") or []
    chunk["choices"] = choices
    for choice in cast("list[object]", choices) if isinstance(choices, list) else ():
        if isinstance(choice, dict):
            fields = cast("dict[str, object]", choice)
            fields["delta"] = fields.get("delta") or {}


class LeanAzureOpenAI(LeanOpenAI, AsyncAzureOpenAI):  # pyright: ignore[reportIncompatibleVariableOverride] - as above
    """`AsyncAzureOpenAI` with the same, see the module."""
