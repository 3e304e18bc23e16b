"""Hooks of HTTP clients: for SDKs that do not close or fully read responses, or send fields that are refused."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Final

import httpx2

_END_MARKER: Final = b"[DONE]"
_DRAIN_TIMEOUT_S: Final = 0.1
"""Longest wait for the end of a response after its end marker; both are sent together."""

OMITTED: ContextVar[frozenset[str]] = ContextVar("omitted", default=frozenset())
"""The fields that are left out of requests, see `omit_fields`."""
_collected: ContextVar[list[httpx2.Response] | None] = ContextVar("collected", default=None)


def add_response_hook(client: httpx2.AsyncClient, hook: Callable[[httpx2.Response], Awaitable[None]]) -> None:
    """Registers a hook for every response of a client. A second registration is ignored."""
    hooks = client.event_hooks["response"]
    if hook not in hooks:
        hooks.append(hook)


@contextmanager
def omit_fields(names: frozenset[str]) -> Generator[None]:
    """Leaves fields that the SDKs always send out of the requests within the context."""
    token = OMITTED.set(names)
    try:
        yield
    finally:
        OMITTED.reset(token)


def without_fields(body: bytes, names: frozenset[str]) -> bytes:
    """Returns the body of a request without some fields."""
    if not body.startswith(b"{"):
        return body
    fields = json.loads(body)
    return json.dumps({name: value for name, value in fields.items() if name not in names}).encode()


@contextmanager
def collect_responses() -> Generator[list[httpx2.Response]]:
    """Collects the responses that arrive within the context, through clients with the hook `record_response`."""
    responses: list[httpx2.Response] = []
    token = _collected.set(responses)
    try:
        yield responses
    finally:
        _collected.reset(token)


async def record_response(response: httpx2.Response) -> None:
    """Adds a response to the surrounding `collect_responses`."""
    collected = _collected.get()
    if collected is not None:
        collected.append(response)


async def keep_connection(response: httpx2.Response) -> None:
    """Drains a stream that is closed at its end marker, so that its connection can be reused."""
    if isinstance(response.stream, httpx2.AsyncByteStream):
        response.stream = _DrainedStream(response.stream)


class _DrainedStream(httpx2.AsyncByteStream):
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
                async with asyncio.timeout(_DRAIN_TIMEOUT_S):
                    async for _ in self._pieces:
                        pass
        await self._stream.aclose()
