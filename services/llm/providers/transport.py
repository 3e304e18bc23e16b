"""How requests reach providers: an `httpx2` client, which the SDKs want, over connections of `aiohttp`.

httpx2's own transport parses in Python, and opens a scope with a timer of its own for each piece of a stream. Over
aiohttp an answer of 200 pieces takes 12 ms of CPU less, a sixth of all that the agent needs for it
(`python -m benchmarks.turn`).
"""

from collections.abc import AsyncIterator, Generator
from contextlib import contextmanager
from ssl import SSLContext

import aiohttp
import httpx2
from httpx2._utils import URLPattern, get_environment_proxies  # pyright: ignore[reportPrivateUsage]  # see below
from yarl import URL

LONGEST_HEADER = 65_536
"""Bytes: gateways copy headers from behind them, and aiohttp's own limit is an eighth of that."""

_ERRORS: tuple[tuple[type[Exception], type[httpx2.TransportError]], ...] = (
    # The first that fits counts: most of aiohttp's errors are several of these at once.
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
    """Connections to one provider, as many as there are requests.

    A limit of connections would make requests wait within the provider's deadline to the first output, and a healthy
    provider would cool down for it. `<ID>_MAX_CONCURRENCY` is the limit that knows better.

    Args:
        tls: the certificate authorities.
        keepalive_s: how long an idle connection is kept.
        trust_env: whether the proxies of the environment are used.
    """

    def __init__(self, *, tls: SSLContext, keepalive_s: float, trust_env: bool) -> None:
        self._tls = tls
        self._keepalive_s = keepalive_s
        # As httpx2 reads them, with the patterns of NO_PROXY. aiohttp's own `trust_env` reads ~/.netrc too, and refuses
        # a request that has a key beside what stands there.
        proxies = get_environment_proxies() if trust_env else {}
        self._proxies = sorted((URLPattern(pattern), proxy) for pattern, proxy in proxies.items())
        self._session: aiohttp.ClientSession | None = None

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request; the body of its response is read as it comes.

        Raises:
            httpx2.TransportError: no response came.
        """
        timeout = request.extensions.get("timeout", {})
        # The client has made a header of a name and password in the address, and aiohttp takes either.
        url = request.url.copy_with(userinfo=b"")
        with _as_httpx_errors():
            response = await self._open_session().request(
                request.method,
                URL(str(url), encoded=True),
                headers=request.headers.multi_items(),
                data=await request.aread() or None,
                allow_redirects=False,
                proxy=self._proxy_for(url),
                timeout=aiohttp.ClientTimeout(connect=timeout.get("connect"), sock_read=timeout.get("read")),
            )
        return httpx2.Response(
            response.status,
            headers=response.raw_headers,
            stream=_Body(response),
            extensions={
                "http_version": b"HTTP/1.1",
                "reason_phrase": (response.reason or "").encode("ascii", "ignore"),
            },
        )

    async def aclose(self) -> None:
        """Close every connection."""
        if self._session is not None:
            await self._session.close()

    def _open_session(self) -> aiohttp.ClientSession:
        # With the first request, since it belongs to the event loop that runs.
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, ssl=self._tls, keepalive_timeout=self._keepalive_s),
                # Cookies, compression and redirects are the client's.
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                max_line_size=LONGEST_HEADER,
                max_field_size=LONGEST_HEADER,
                max_headers=1024,
            )
        return self._session

    def _proxy_for(self, url: httpx2.URL) -> str | None:
        proxy = next((proxy for pattern, proxy in self._proxies if pattern.matches(url)), None)
        if proxy is not None and not proxy.lower().startswith(("http://", "https://")):
            raise httpx2.ProxyError("only proxies that speak HTTP are supported")
        return proxy


class _Body(httpx2.AsyncByteStream):
    """The body of a response, piece by piece as it arrives."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response

    async def __aiter__(self) -> AsyncIterator[bytes]:
        content = self._response.content
        with _as_httpx_errors():
            try:
                async for piece in content.iter_any():
                    yield piece
            except aiohttp.ClientError:
                # It tells of the break before it hands out what arrived before that, and then keeps it;
                # tests/services/llm/test_transport.py says when the name changes.
                if rest := content._read_nowait(-1):  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
                    yield rest
                raise
            except RuntimeError as error:
                # What aiohttp says when it could not read on and the connection has gone since.
                raise httpx2.ReadError(str(error)) from error

    async def aclose(self) -> None:
        # Of a response that was not read to its end the connection is closed.
        self._response.release()


@contextmanager
def _as_httpx_errors() -> Generator[None]:
    try:
        yield
    except aiohttp.ClientError as error:
        known = next(known for kind, known in _ERRORS if isinstance(error, kind))
        raise known(str(error)) from error
