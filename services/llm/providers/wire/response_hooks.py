"""Hooks of HTTP clients: for SDKs that do not close or fully read responses, or send fields that are refused."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final

import httpx2

_END_MARKER: Final = b"[DONE]"
_DRAIN_TIMEOUT_S: Final = 0.1
"""Longest wait for the end of a response after its end marker; both are sent together."""

_omitted: ContextVar[frozenset[str]] = ContextVar("omitted", default=frozenset())
_pacing: ContextVar["Pacing | None"] = ContextVar("pacing", default=None)
_collected: ContextVar[list[httpx2.Response] | None] = ContextVar("collected", default=None)


def add_response_hook(client: httpx2.AsyncClient, hook: Callable[[httpx2.Response], Awaitable[None]]) -> None:
    """Registers a hook for every response of a client. A second registration is ignored."""
    hooks = client.event_hooks["response"]
    if hook not in hooks:
        hooks.append(hook)


@contextmanager
def omit_fields(names: frozenset[str]) -> Generator[None]:
    """Leaves fields that the SDKs always send out of the requests within the context."""
    token = _omitted.set(names)
    try:
        yield
    finally:
        _omitted.reset(token)


def finish_body(body: bytes) -> bytes:
    """Returns the body of a request as it is sent."""
    omitted = _omitted.get()
    if not omitted or not body.startswith(b"{"):
        return body
    fields = json.loads(body)
    return json.dumps({name: value for name, value in fields.items() if name not in omitted}).encode()


@dataclass(slots=True)
class Pacing:
    """Pace at which a stream is handed on; it may change while the stream is read.

    Args:
        window_s: longest time for which text is held, so that it is handed on together with the text that follows.
            Nothing else is held: no end, error, tool call, usage or finish reason.
        held_s: time between the arrival of the newest text and the end of its window. Deadlines count from the arrival.
        merges_arrivals: whether text that arrives in one read is handed on at once where none is held. It comes
            no later for that, and costs its reader as much as one piece.
    """

    window_s: float = 0.0
    held_s: float = 0.0
    merges_arrivals: bool = False

    @property
    def merges(self) -> bool:
        """True if pieces of text that are at hand are passed on as one."""
        return self.merges_arrivals or self.window_s > 0


@contextmanager
def pace_responses() -> Generator[Pacing]:
    """Sets the pace of the responses to the requests that are made within the context.

    Their reader enforces the deadlines between pieces: the transport has none for them.
    """
    pacing = Pacing()
    token = _pacing.set(pacing)
    try:
        yield pacing
    finally:
        _pacing.reset(token)


def find_pacing() -> Pacing | None:
    """Returns the pace of the surrounding `pace_responses`; without one nothing is held."""
    return _pacing.get()


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


async def release_body(response: httpx2.Response) -> None:
    """Replaces the request of a response by one without a body, which would be held until the response is read."""
    request = response.request
    response.request = httpx2.Request(request.method, request.url, headers=request.headers)


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
