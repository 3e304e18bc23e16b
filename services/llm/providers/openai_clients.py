"""OpenAI's clients, without the two steps of the SDK that cost the most and change nothing for us.

With 8,000 tokens of history and an answer of 200 pieces, they took a third of a turn's CPU time. What both rely on is
held by tests/services/llm/test_openai_clients.py; should the SDK change, its own way is taken again.
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
    """Chat completions whose messages go out as they are.

    The SDK looks through all the messages, each against every type that a message may have, for fields that are
    called otherwise on the wire: there are none. What is in `extra_body` it puts into the request as it stands.
    """

    async def create(  # pyright: ignore[reportIncompatibleMethodOverride] - its forty arguments are passed on as they came
        self,
        *,
        messages: Iterable[ChatCompletionMessageParam],
        extra_body: object = None,
        **arguments: Any,  # noqa: ANN401 - see above
    ) -> Any:  # noqa: ANN401 - an answer or a stream, as the arguments say
        """Ask for an answer; arguments and result are the SDK's."""
        # The SDK takes any object for `extra_body`, and merges it as a mapping.
        body = {"messages": list(messages), **cast("dict[str, object]", extra_body or {})}
        create = cast("Callable[..., Awaitable[Any]]", super().create)
        return await create(messages=(), extra_body=body, **arguments)


class _Chat(AsyncChat):
    @cached_property
    def completions(self) -> AsyncCompletions:  # pyright: ignore[reportIncompatibleMethodOverride] - the SDK's is a cached property as well
        return _Completions(self._client)


class LeanOpenAI(AsyncOpenAI):
    """`AsyncOpenAI`, as described above."""

    @cached_property
    def chat(self) -> AsyncChat:  # pyright: ignore[reportIncompatibleMethodOverride] - as above
        """Chat completions."""
        return _Chat(self)

    def _process_response_data(self, *, data: object, cast_to: type[ResponseT], response: httpx2.Response) -> ResponseT:
        """Make an object of a piece of a stream, or of a whole answer.

        The SDK builds objects field by field in Python, so that what does not fit its types comes through as well.
        What fits can be validated in a twentieth of the time (strictly, so that no value becomes another); what does
        not is left to the SDK.
        """
        if cast_to is ChatCompletionChunk:
            try:
                return cast("ResponseT", ChatCompletionChunk.model_validate(data, strict=True))
            except ValidationError:
                pass
        return super()._process_response_data(data=data, cast_to=cast_to, response=response)


class LeanAzureOpenAI(LeanOpenAI, AsyncAzureOpenAI):  # pyright: ignore[reportIncompatibleVariableOverride] - as above
    """`AsyncAzureOpenAI`, as described above."""
