"""HTTP server: every route requires the bearer token unless it is declared open."""

import asyncio
import hmac
import logging
from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import structlog
from aiohttp import web
from aiohttp.hdrs import AUTHORIZATION, SERVER, WWW_AUTHENTICATE
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.typedefs import Handler
from pydantic import SecretStr

from bot.web.binding import describe_bind_error
from core.errors import StartupError

log = structlog.get_logger()

BODY_LIMIT = 1024 * 1024
"""Largest request body in bytes; a Telegram update is far smaller."""
BACKLOG = 1024
"""Size of the accept queue. The kernel drops further connections, and their clients retry after seconds."""


@dataclass(frozen=True, slots=True)
class WebTiming:
    """Deadlines of connections, in seconds.

    Attributes:
        head_s: timeout for the head of a request, from the connection or the previous response on.
        body_s: timeout for the body, from the end of the head on.
        response_s: timeout for the client to read a response; a streamed one has none.
        linger_s: time to read the rest of a rejected request's body, so that the client receives the response.
        shutdown_s: time for the requests in flight to finish at shutdown.
        client_check_s: pause between two looks whether clients have hung up.
    """

    head_s: float = 20.0
    body_s: float = 20.0
    response_s: float = 20.0
    linger_s: float = 2.0
    shutdown_s: float = 3.0
    client_check_s: float = 0.1


CLOSED = "WEB_TOKEN is not set, so this path is closed. Set it to a long random word and send it as a bearer token.\n"
UNAUTHORIZED = "Send the value of WEB_TOKEN as `Authorization: Bearer ...`.\n"


@dataclass(frozen=True, slots=True)
class HttpRoute:
    """A path and its handler.

    Args:
        method: HTTP method; GET also answers HEAD.
        path: without parameters.
        handler: returns the response.
        is_guarded: whether WEB_TOKEN is required; an open route checks its caller itself, or exposes nothing private.
        ends_with_client: whether the handler is cancelled when its client hangs up.
    """

    method: str
    path: str
    handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    is_guarded: bool = True
    ends_with_client: bool = False


class WebServer:
    """The web server.

    Args:
        host: the address to listen on.
        port: the port; 0 picks a free one, which `port` holds after `start`.
        token: bearer token of the guarded routes; without one they answer 403.
        routes: all routes.
        timing: deadlines.
    """

    def __init__(
        self,
        *,
        host: str,
        port: int,
        token: SecretStr | None,
        routes: Sequence[HttpRoute],
        timing: WebTiming | None = None,
    ) -> None:
        self._timing = timing or WebTiming()
        self._host = host
        self.port = port
        self._token = token.get_secret_value().encode() if token is not None else None
        app = web.Application(client_max_size=BODY_LIMIT, middlewares=[self._check_token])
        self._open: set[tuple[str, str]] = set()
        self._ending: set[str] = set()
        self._clients = ClientWatch(self._timing.client_check_s)
        for route in routes:
            self._add(app, route)
        app.on_response_prepare.append(self._prepare_response)
        self._runner = web.AppRunner(
            app,
            access_log=None,
            logger=_protocol_logger(),
            shutdown_timeout=self._timing.shutdown_s,
            lingering_time=self._timing.linger_s,
            # Also closes a connection that has sent no complete request by then.
            keepalive_timeout=self._timing.head_s,
        )

    def _add(self, app: web.Application, route: HttpRoute) -> None:
        added = app.router.add_route(route.method, route.path, route.handler)
        methods = [route.method]
        if route.method == "GET":
            app.router.add_route("HEAD", route.path, route.handler)
            methods.append("HEAD")
        # Paths with variables have another form there.
        path = added.resource.canonical if added.resource is not None else route.path
        if not route.is_guarded:
            self._open.update((method, path) for method in methods)
        if route.ends_with_client:
            self._ending.add(path)

    async def start(self) -> None:
        """Starts listening.

        Raises:
            StartupError: the port is in use or not permitted, or the host is not an address of this machine.
        """
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, self._host, self.port, backlog=BACKLOG).start()
        except (OSError, OverflowError) as error:
            await self._runner.cleanup()
            raise StartupError(describe_bind_error(error, self._host, self.port)) from error
        except BaseException:
            await self._runner.cleanup()
            raise
        self.port = self._runner.addresses[0][1]
        log.info("web.listening", host=self._host, port=self.port, guarded=self._token is not None)

    async def close(self) -> None:
        """Stops listening and closes every connection, after `shutdown_s` at the latest."""
        try:
            await self._runner.cleanup()
        finally:
            await self._clients.close()
        log.info("web.closed")

    @web.middleware
    async def _check_token(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        # The route decides on the token as well as on the handler: no spelling of a path can part the two.
        resource = request.match_info.route.resource
        path = resource.canonical if resource is not None else ""
        if (request.method, path) in self._open or ("*", path) in self._open:
            if path in self._ending:
                with self._clients.watch(request):
                    return await self._answer(request, handler)
            return await self._answer(request, handler)
        if self._token is None:
            return web.Response(status=403, text=CLOSED)
        scheme, _, shown = request.headers.get(AUTHORIZATION, "").partition(" ")
        if (
            not hmac.compare_digest(shown.strip().encode(errors="surrogateescape"), self._token)
            or scheme.lower() != "bearer"
        ):
            log.info("web.unauthorized", method=request.method, path=request.path[:100])
            return web.Response(status=401, text=UNAUTHORIZED, headers={WWW_AUTHENTICATE: "Bearer"})
        return await self._answer(request, handler)

    async def _answer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        is_late = False

        def give_up() -> None:
            nonlocal is_late
            is_late = True
            request.content.set_exception(TimeoutError("the body is late"))

        deadline = None
        if not request.content.at_eof():
            deadline = asyncio.get_running_loop().call_later(self._timing.body_s, give_up)
        try:
            return await handler(request)
        except web.HTTPException:
            raise
        except (asyncio.CancelledError, ConnectionError):
            raise
        except web.RequestPayloadError:
            log.info("web.bad_request", error="RequestPayloadError")
            return web.Response(status=400, text="The body cannot be read.\n")
        except Exception as error:
            if is_late and isinstance(error, TimeoutError):
                log.info("web.slow_body", method=request.method, path=request.path[:100])
                return web.Response(status=408, text="The body did not arrive in time.\n")
            log.exception("web.failed", method=request.method, path=request.path[:100])
            return web.Response(status=500, text="Internal error; see the log.\n")
        finally:
            if deadline is not None:
                deadline.cancel()

    async def _prepare_response(self, request: web.Request, response: web.StreamResponse) -> None:
        response.headers.popall(SERVER, None)
        transport = request.transport
        if transport is not None and isinstance(response, web.Response):
            asyncio.get_running_loop().call_later(self._timing.response_s, _abort_unread, transport)


class ClientWatch:
    """Cancels handlers after their clients have hung up, so that no provider goes on answering for them.

    aiohttp can do so for all handlers only, and a webhook that has begun to store an update has to finish.
    """

    def __init__(self, check_s: float) -> None:
        self._check_s = check_s
        self._watched: dict[asyncio.Task[object], web.Request] = {}
        self._task: asyncio.Task[None] | None = None

    @contextmanager
    def watch(self, request: web.Request) -> Generator[None]:
        """Watches the client of a request while the context lasts."""
        task = asyncio.current_task()
        if task is None:
            yield
            return
        self._watched[task] = request
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="web.clients")
        try:
            yield
        finally:
            self._watched.pop(task, None)

    async def close(self) -> None:
        """Stops watching."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while self._watched:
            for task, request in list(self._watched.items()):
                if request.transport is None or request.transport.is_closing():
                    del self._watched[task]
                    log.info("web.client_gone", path=request.path[:100])
                    task.cancel()
            await asyncio.sleep(self._check_s)
        self._task = None


def _abort_unread(transport: asyncio.Transport) -> None:
    """Aborts a connection if its client has not read a response in time."""
    if transport.get_write_buffer_size() > 0:
        log.info("web.slow_reader")
        transport.abort()


def _protocol_logger() -> logging.Logger:
    """Returns aiohttp's logger: malformed requests and clients that hang up get one line, and no traceback."""
    logger = logging.getLogger("bot.web.protocol")
    logger.addFilter(_log_without_quoting)
    return logger


def _log_without_quoting(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, ConnectionError):
        log.info("web.client_gone")
        return False
    # After the response aiohttp reads the rest of the body, which may break off.
    if not isinstance(error, HttpProcessingError | web.RequestPayloadError):
        return True
    log.info("web.bad_request", error=type(error).__name__)
    return False
