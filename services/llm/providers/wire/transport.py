"""An `httpx2` transport over `aiohttp` connections: the SDKs require httpx2, and aiohttp is faster.

httpx2's own transport parses in Python and opens a cancel scope with a timer for each piece of a stream. Over aiohttp
an answer of 200 pieces takes 12 ms less CPU, a sixth of the agent's total (`python -m benchmarks.turn`).
"""

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator, Generator
from contextlib import aclosing, contextmanager
from http import HTTPStatus
from ssl import SSLContext

import aiohttp
import httpx2
from httpx2._utils import URLPattern, get_environment_proxies
from yarl import URL

from core.transport_errors import ResponseTooLarge
from services.llm.providers.wire.chat_chunks import ChatChunks
from services.llm.providers.wire.event_lines import looks_like_event_stream, read_beginning, strip_mark
from services.llm.providers.wire.event_stream import EVENTS, PACING, EventStream, Pacing, split_bytes
from services.llm.providers.wire.native_events import STREAMING_PATH, NativeEvents, find_protocol
from services.llm.providers.wire.received_bytes import GATHERED_BYTES, NOT_TEXT, Decoder, find_encoding, gather_text
from services.llm.providers.wire.response_hooks import OMITTED, without_fields

MAX_BODY_BYTES = 8 << 20
"""Bytes of a response after decompression."""
_STREAM_TYPES = ("event-stream", "ndjson", "jsonl", "json-lines")
"""Parts of the content types of streams."""
MAX_ERROR_BYTES = 256 << 10
"""Bytes of an error's body; the rest is left unread."""
FREE_STREAM_BYTES = 64 << 10
"""Bytes of an event stream that are read at any pace."""
STREAM_BYTES_PER_S = 256 << 10
"""Bytes of an event stream that are read at once each second beyond those: a thousand tokens with their envelopes."""
FLOOD_PAUSE_S = 0.01
"""Pause before each piece of the streams that send more, of which one is read at a time."""
_STREAMED = re.compile(rb'"stream"\s*:\s*true')
"""Matches the body of a streamed request only: in a prompt the quotation marks are escaped."""
MAX_HEADER_BYTES = 65_536
"""Gateways copy the headers of their upstreams; aiohttp's default is an eighth of this."""

_KEY_HEADERS = ("authorization", "x-api-key", "api-key", "x-goog-api-key")
DECODED_HEADERS = frozenset({b"content-encoding", b"content-length"})
"""Headers that describe the body as received, not as passed on."""

_ERRORS: tuple[tuple[type[Exception], type[httpx2.TransportError]], ...] = (
    # The first match counts: most of aiohttp's errors are instances of several of these.
    (aiohttp.ClientProxyConnectionError, httpx2.ProxyError),
    (aiohttp.ClientHttpProxyError, httpx2.ProxyError),
    (aiohttp.InvalidURL, httpx2.UnsupportedProtocol),
    (aiohttp.NonHttpUrlClientError, httpx2.UnsupportedProtocol),
    (aiohttp.ConnectionTimeoutError, httpx2.ConnectTimeout),
    (aiohttp.ServerTimeoutError, httpx2.ReadTimeout),
    (aiohttp.ClientConnectorError, httpx2.ConnectError),
    (aiohttp.ServerDisconnectedError, httpx2.RemoteProtocolError),
    (aiohttp.ClientResponseError, httpx2.RemoteProtocolError),
    (aiohttp.ClientPayloadError, httpx2.RemoteProtocolError),
    (aiohttp.ClientError, httpx2.ReadError),
)


class Transport(httpx2.AsyncBaseTransport):
    """Connections to one provider, without a limit of their number.

    With a limit, requests would wait for a connection within the provider's deadline for the first output, and a
    healthy provider would cool down for it. `<ID>_MAX_CONCURRENCY` limits requests before their deadlines begin.

    Args:
        tls: certificate authorities.
        keepalive_s: how long an idle connection is kept.
        connect_timeout_s: limit of the time to connect, for requests with a longer one too.
        trust_env: whether proxies of the environment are used.
    """

    def __init__(self, *, tls: SSLContext, keepalive_s: float, connect_timeout_s: float, trust_env: bool) -> None:
        self._tls = tls
        self._keepalive_s = keepalive_s
        self._connect_timeout_s = connect_timeout_s
        # httpx2's parser supports the patterns of NO_PROXY (private API of httpx2 2.16). aiohttp's `trust_env` reads
        # ~/.netrc too, and rejects a request with a conflicting key.
        proxies = get_environment_proxies() if trust_env else {}
        self._proxies = sorted((URLPattern(pattern), proxy) for pattern, proxy in proxies.items())
        self._session: aiohttp.ClientSession | None = None
        self._is_closed = False
        self._flood_lock = asyncio.Lock()

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Sends a request and streams the body of its response.

        Raises:
            httpx2.TransportError: the request failed without a response.
        """
        _withhold_keys(request)
        timeout = request.extensions.get("timeout", {})
        connect_s = timeout.get("connect")
        pacing = PACING.get()
        # The client has turned credentials in the URL into a header, and aiohttp rejects both at once.
        url = request.url.copy_with(userinfo=b"") if request.url.userinfo else request.url
        sent = await request.aread()
        if omitted := OMITTED.get():
            sent = without_fields(sent, omitted)
        with _translate_errors():
            response = await self._open_session().request(
                request.method,
                URL(str(url), encoded=True),
                headers=_to_sent_headers(request),
                data=sent or None,
                allow_redirects=False,
                proxy=self._proxy_for(url),
                timeout=aiohttp.ClientTimeout(
                    # SDKs apply one timeout, of a minute, to all phases.
                    connect=self._connect_timeout_s if connect_s is None else min(connect_s, self._connect_timeout_s),
                    # The readers of paced streams have deadlines. aiohttp would set a timer anew with each piece.
                    sock_read=None if pacing else timeout.get("read"),
                ),
            )
        is_streamed = url.path.endswith(STREAMING_PATH) or _STREAMED.search(request.content) is not None
        body = _Body(response, self._flood_lock, url.path, pacing or Pacing(), is_streamed=is_streamed)
        return httpx2.Response(
            response.status,
            headers=_to_shown_headers(response, is_streamed=is_streamed),
            stream=body,
            extensions={
                "http_version": b"HTTP/1.1",
                "reason_phrase": (response.reason or "").encode("ascii", "ignore"),
                EVENTS: body.events,
            },
        )

    async def aclose(self) -> None:
        """Closes every connection; a request that is still on its way to this transport opens no other."""
        self._is_closed = True
        if self._session is not None:
            await self._session.close()

    def _open_session(self) -> aiohttp.ClientSession:
        # Opened by the first request, since a session belongs to the running event loop.
        if self._session is None:
            if self._is_closed:
                raise RuntimeError("the connections of this provider are closed")
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, ssl=self._tls, keepalive_timeout=self._keepalive_s),
                # The client handles cookies, compression and redirects.
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                max_line_size=MAX_HEADER_BYTES,
                max_field_size=MAX_HEADER_BYTES,
                max_headers=1024,
            )
        return self._session

    def _proxy_for(self, url: httpx2.URL) -> str | None:
        proxy = next((proxy for pattern, proxy in self._proxies if pattern.matches(url)), None)
        if proxy is not None and not proxy.lower().startswith(("http://", "https://")):
            raise httpx2.ProxyError("only proxies that speak HTTP are supported")
        return proxy


class _Body(httpx2.AsyncByteStream):
    """Streams the body of a response: decompressed, bounded, in short pieces, event streams in their common form.

    An event stream that is faster than a model writes is read in turn with others of this kind, a piece at a time:
    twenty that send as much as is read would leave the event loop no time for anything else.

    Args:
        response: the response.
        flood_lock: held by the stream among the provider's fast ones whose turn it is.
        path: path of the request, which identifies the protocol of its events.
        pacing: the pace at which the body is read.
        is_streamed: whether the request asked for a stream; an answer that is none is read as one.

    Raises:
        ResponseTooLarge: the body exceeds a bound.
        httpx2.DecodingError: the body is not compressed as its head says.
    """

    def __init__(
        self,
        response: aiohttp.ClientResponse,
        flood_lock: asyncio.Lock,
        path: str,
        pacing: Pacing,
        *,
        is_streamed: bool,
    ) -> None:
        self._response = response
        self._is_streamed = is_streamed
        self._flood_lock = flood_lock
        self._pacing = pacing
        named = response.headers.get("Content-Encoding")
        self._encoding = find_encoding(named) if named else ""
        self._is_error = response.status >= HTTPStatus.BAD_REQUEST
        content_type = response.headers.get("Content-Type", "").lower()
        self._is_event_stream = not self._is_error and any(each in content_type for each in _STREAM_TYPES)
        if path.endswith("/chat/completions"):
            self.events = EventStream(ChatChunks(), pacing=pacing)
        else:
            protocol = find_protocol(path)
            self.events = EventStream(native=NativeEvents(*protocol) if protocol is not None else None)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        # Closed here: the event loop would close generators that are collected as garbage in tasks of their own.
        async with aclosing(self._receive()) as received, aclosing(self._read(received)) as pieces:
            beginning = b""
            if not self._is_event_stream and not self._is_error:
                beginning = await read_beginning(pieces)
                self._is_event_stream = looks_like_event_stream(beginning)
            if self._is_event_stream:
                async with aclosing(self._iter_events(beginning, pieces)) as found:
                    async for events in found:
                        yield events
            elif not self._is_error and strip_mark(beginning).startswith((b"{", b"[")):
                whole = strip_mark(b"".join([beginning, *[piece async for piece in pieces]]))
                async with aclosing(self._iter_whole(whole)) as found:
                    async for part in found:
                        yield part
            else:
                yield beginning
                async for piece in pieces:
                    yield piece

    async def _iter_whole(self, body: bytes) -> AsyncGenerator[bytes]:
        """Yields a body that is no event stream; as events where a stream was asked for, at the pace of a fast one."""
        if not self._is_streamed:
            yield self.events.repair_whole(body)
            return
        for count, events in enumerate(self.events.read_whole(body)):
            if count:
                async with self._flood_lock:
                    await asyncio.sleep(FLOOD_PAUSE_S)
            yield events

    async def _iter_events(self, beginning: bytes, pieces: AsyncIterator[bytes]) -> AsyncGenerator[bytes]:
        """Yields the events of the body, as fast as a model writes."""
        if beginning and (events := self.events.feed(beginning)):
            yield events
        loop, received = asyncio.get_running_loop(), 0
        began = loop.time()
        async for piece in pieces:
            received += len(piece)
            if received > FREE_STREAM_BYTES + STREAM_BYTES_PER_S * (loop.time() - began):
                async with self._flood_lock:
                    await asyncio.sleep(FLOOD_PAUSE_S)
            if events := self.events.feed(piece):
                yield events
            del piece
        is_delimited = "Content-Length" in self._response.headers or "Transfer-Encoding" in self._response.headers
        if events := self.events.finish(is_delimited=is_delimited):
            yield events

    async def _read(self, received: AsyncIterator[bytes]) -> AsyncGenerator[bytes]:
        """Yields the body decompressed and in short pieces, up to its bound."""
        left = MAX_ERROR_BYTES if self._is_error else MAX_BODY_BYTES
        decode = Decoder(self._encoding).decode if self._encoding else split_bytes
        async for raw in received:
            for count, piece in enumerate(decode(raw)):
                if count:
                    # A long piece must not hold the event loop.
                    await asyncio.sleep(0)
                yield piece[:left]
                left -= len(piece)
                if left < 0:
                    if self._is_error:
                        return
                    raise ResponseTooLarge("the answer exceeds 8 MiB")
            # Not held until the next one is there.
            piece = b""
            del raw

    async def _receive(self) -> AsyncGenerator[bytes]:
        content, loop = self._response.content, asyncio.get_running_loop()
        passed_on = loop.time()
        with _translate_errors():
            try:
                while True:
                    piece, held_s = b"", 0.0
                    if (window_s := self._pacing.window_s) and not self._encoding:
                        piece, held_s = await self._gather(passed_on + window_s)
                    if not (piece := piece or await content.readany()):
                        return
                    self._pacing.held_s = held_s
                    yield piece
                    del piece
                    passed_on = loop.time()
            except aiohttp.ClientError:
                # aiohttp raises before it returns the data that arrived ahead of the error. Private API of aiohttp
                # 3.14; tests/services/llm/providers/wire/test_transport.py fails if it moves.
                if rest := content._read_nowait(-1):  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - as above
                    yield rest
                raise
            except RuntimeError as error:
                # Raised by aiohttp if the connection was lost while reading was paused.
                raise httpx2.ReadError(str(error)) from error

    async def _gather(self, until: float) -> tuple[bytes, float]:
        """Returns the text that arrives until an instant as one piece, and the time since its last part arrived."""
        content = self._response.content
        if content.exception():
            # Raised by the next read.
            return b"", 0.0
        piece = content.read_nowait()
        is_over = content.is_eof() or len(piece) >= GATHERED_BYTES
        if is_over or (piece and (NOT_TEXT.search(piece) or asyncio.get_running_loop().time() >= until)):
            return piece, 0.0
        return await gather_text(self._response, piece, until)

    async def aclose(self) -> None:
        # If the response was not read to its end, this closes the connection.
        self._response.release()


def _withhold_keys(request: httpx2.Request) -> None:
    """Removes the key from a request that was redirected to another origin; the client does so for one header only."""
    first: httpx2.URL = request.extensions.setdefault("understudy.url", request.url)
    # As the client does: another port is another server, and the way from http to https is allowed.
    is_same_server = (request.url.host, request.url.port) == (first.host, first.port)
    if not is_same_server or (first.scheme == "https" and request.url.scheme != "https"):
        for name in _KEY_HEADERS:
            request.headers.pop(name, None)


def _to_shown_headers(response: aiohttp.ClientResponse, *, is_streamed: bool) -> list[tuple[bytes, bytes]]:
    """Returns the headers for a decompressed body; the content type is that of events where a stream was requested."""
    hidden, shown = DECODED_HEADERS, list[tuple[bytes, bytes]]()
    if is_streamed and response.ok:
        # Mistral's SDK reads no stream of another type.
        hidden, shown = hidden | {b"content-type"}, [(b"Content-Type", b"text/event-stream")]
    return [*((name, value) for name, value in response.raw_headers if name.lower() not in hidden), *shown]


def _to_sent_headers(request: httpx2.Request) -> list[tuple[str, str]]:
    """Returns the headers of a request with one user agent, the SDK's, and the encodings that `Decoder` knows.

    aiohttp adds the length of the body that is sent.
    """
    single = {"user-agent", "accept-encoding", "content-length"}
    headers = [(name, value) for name, value in request.headers.multi_items() if name.lower() not in single]
    agent = request.headers.get_list("user-agent")[-1:]
    return [*headers, *(("user-agent", value) for value in agent), ("accept-encoding", "gzip, deflate")]


async def release_body(response: httpx2.Response) -> None:
    """Replaces the request of a response by one without a body, which would be held until the response is read."""
    request = response.request
    response.request = httpx2.Request(request.method, request.url, headers=request.headers)


@contextmanager
def _translate_errors() -> Generator[None]:
    try:
        yield
    except aiohttp.ClientError as error:
        error_class = next(translated for kind, translated in _ERRORS if isinstance(error, kind))
        # The reader of a body keeps its error, whose traceback would keep the body.
        raise error_class(str(error)) from error.with_traceback(None)
