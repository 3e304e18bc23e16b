"""Sends a request of a capability to its providers in order, until one answers."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from pydantic_ai.exceptions import ModelRequestTimeout
from pydantic_ai.messages import ModelMessage
from pydantic_ai.usage import RequestUsage

from services.llm.request import Adaptation, Candidate, RequestSpec
from services.llm.routing.fallback import LLMProviderFallback
from services.llm.routing.recourse import Indivisible
from services.llm.usage import TokenUse

ValueT = TypeVar("ValueT")
ValueT_co = TypeVar("ValueT_co", covariant=True)

Call = Callable[[Candidate], Awaitable[tuple[ValueT, RequestUsage]]]
"""Sends the request to one candidate; its errors are classified like those of a chat request."""
Convert = Callable[[bytes], Awaitable[bytes | None]]
"""Converts a sound; returns None where that is impossible."""
Prepare = Callable[[Adaptation], Awaitable[None]]
"""Changes the request for a candidate before it is asked; the time that this takes is not the candidate's."""


@dataclass(frozen=True, slots=True)
class Served(Generic[ValueT_co]):
    """A value with the candidate that gave it."""

    value: ValueT_co
    candidate: Candidate
    usage: RequestUsage


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture, and the provider and model that drew it."""

    data: bytes
    media_type: str
    provider: str
    model: str

    @property
    def name(self) -> str:
        """File name for an upload."""
        return f"picture.{self.media_type.rpartition('/')[2]}"


class SizedRequest(Indivisible):
    """Size of a request that cannot be estimated from its messages, such as a recording.

    Args:
        input_tokens: estimated tokens of the request, for budgets.
        output_tokens: upper limit of the answer.
    """

    def __init__(self, input_tokens: int, output_tokens: int) -> None:
        self._size = (input_tokens, output_tokens)

    def size(self) -> tuple[int, int]:
        """Returns the input and output tokens."""
        return self._size


async def ask_first(
    fallback: LLMProviderFallback,
    spec: RequestSpec,
    sent: Sequence[ModelMessage],
    call: Call[ValueT],
    shape: SizedRequest | None = None,
    prepare: Prepare | None = None,
) -> Served[ValueT]:
    """Asks the candidates in order until one answers; its whole answer is due within its timeout.

    Args:
        fallback: fallback service of the capability.
        spec: the request.
        sent: text of the request, to estimate tokens and to mask quotes of it in servers' messages.
        call: asks one candidate.
        shape: size of the request if `sent` does not determine it.
        prepare: called before `call`.

    Raises:
        ProviderError: no candidate answered, or another candidate could not help.
    """
    loop = asyncio.get_running_loop()
    attempts = await fallback.begin(spec, messages=sent, shape=shape)
    try:
        async for attempt in attempts:
            candidate = attempt.candidate
            timeout_s = candidate.provider.timeout_s
            if prepare is not None:
                await prepare(attempt.adaptation)
            began = loop.time()
            try:
                async with asyncio.timeout(timeout_s):
                    value, usage = await call(candidate)
            except TimeoutError:
                await attempt.failed(ModelRequestTimeout(candidate.model, timeout_s))
                continue
            except Exception as error:  # noqa: BLE001 - `failed` classifies it and re-raises bugs of ours
                await attempt.failed(error)
                continue
            attempt.opened()
            attempt.succeeded(loop.time() - began, TokenUse(usage))
            return Served(value, candidate, usage)
        raise attempts.exhausted()
    finally:
        attempts.close()
