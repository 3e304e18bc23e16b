"""Two cures for SDKs that do not see a response through, as hooks of a provider's client."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Final

import httpx2

_END_MARKER: Final = b"[DONE]"
_REST_WITHIN_S: Final = 0.1
"""How long the end of a response may take after its end marker: both are sent together."""

_noted: ContextVar[list[httpx2.Response] | None] = ContextVar("noted", default=None)


def hook_in(client: httpx2.AsyncClient, hook: Callable[[httpx2.Response], Awaitable[None]]) -> None:
    """Have a client call that for every response, once."""
    hooks = client.event_hooks["response"]
    if hook not in hooks:
        hooks.append(hook)


@contextmanager
def noting() -> Generator[list[httpx2.Response]]:
    """The responses that come in meanwhile through a client with the hook `note`, for whoever must close them."""
    responses: list[httpx2.Response] = []
    token = _noted.set(responses)
    try:
        yield responses
    finally:
        _noted.reset(token)


async def note(response: httpx2.Response) -> None:
    """Tell whoever is `noting` of a response."""
    noted = _noted.get()
    if noted is not None:
        noted.append(response)


async def keep_connection(response: httpx2.Response) -> None:
    """Have a stream that is closed at its end marker read to its end, without which its connection is lost."""
    if isinstance(response.stream, httpx2.AsyncByteStream):
        response.stream = _ReadToTheEnd(response.stream)


class _ReadToTheEnd(httpx2.AsyncByteStream):
    def __init__(self, stream: httpx2.AsyncByteStream) -> None:
        self._stream = stream
        self._pieces = aiter(stream)
        self._last = b""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in self._pieces:
            self._last = (self._last + piece)[-2 * len(_END_MARKER) :]
            yield piece

    async def aclose(self) -> None:
        if _END_MARKER in self._last:
            with suppress(TimeoutError, httpx2.TransportError):
                async with asyncio.timeout(_REST_WITHIN_S):
                    async for _ in self._pieces:
                        pass
        await self._stream.aclose()
