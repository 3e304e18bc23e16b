"""The way of every request of the endpoint: its token, its body, its limits, its error, its log line."""

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import cast

import structlog
from aiohttp import web
from aiohttp.hdrs import AUTHORIZATION, WWW_AUTHENTICATE

from bot.web.api.errors import ApiError, invalid, quota_exceeded, rate_limited, to_api_error
from bot.web.server import HttpRoute
from core.bounded_json import parse_json
from core.clock import Clock
from core.errors import BudgetExhausted, UnderstudyError
from services.api.admission import ApiAdmission, RateExceeded, TooManyWaiting
from services.api.tokens import ApiToken, TokenStore
from services.llm.openai_messages import InvalidRequest
from services.llm.routing.fallback import LLMProviderFallback
from services.llm.routing.status import ProviderState

log = structlog.get_logger()

SOON_S = 5.0
"""`Retry-After` if no cooldown determines when a provider is tried again."""


@dataclass(frozen=True, slots=True)
class BodyLimits:
    """Bounds of request bodies, in bytes after decompression.

    Args:
        one: a single body; a few photos as base64.
        together: all bodies in memory; beyond it further requests are told to come back.
    """

    one: int = 32 * 1024 * 1024
    together: int = 256 * 1024 * 1024


@dataclass(slots=True)
class ApiCall:
    """One admitted request.

    Args:
        facts: fields of the log event, filled by the handler: the model that answered, tokens.
    """

    token: ApiToken
    id: str
    content_type: str
    raw: bytes
    facts: dict[str, object] = field(default_factory=dict[str, object])

    @property
    def body(self) -> Mapping[str, object]:
        """The JSON object of the body.

        Raises:
            ApiError: it is none.
        """
        if self.content_type not in {"application/json", "application/octet-stream"}:
            message = "Send JSON with the header Content-Type: application/json."
            raise ApiError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, message)
        try:
            value: object = parse_json(self.raw)
            # As an escape, or as bytes: Python's parser admits halves of pairs in every encoding.
            if b"\\u" in self.raw or b"\0" in self.raw or not self.raw.isascii():
                _require_text(value)
        except ValueError:
            raise invalid("The body is not JSON, or is nested too deeply.") from None
        if not isinstance(value, dict):
            raise invalid("The body is not a JSON object.")
        return cast("dict[str, object]", value)


ApiHandler = Callable[[web.Request, ApiCall], Awaitable[web.StreamResponse]]


class ApiGateway:
    """Wraps the handlers of the endpoint.

    Args:
        count: counts a finished request by path and status, for metrics.
    """

    def __init__(
        self,
        tokens: TokenStore,
        admission: ApiAdmission,
        fallback: LLMProviderFallback,
        clock: Clock,
        count: Callable[[str, int], None],
        limits: BodyLimits | None = None,
    ) -> None:
        self._tokens = tokens
        self._admission = admission
        self._fallback = fallback
        self._clock = clock
        self._count = count
        self._limits = limits or BodyLimits()
        self._held = 0
        """Bytes of the bodies in memory."""

    def route(self, method: str, path: str, handler: ApiHandler, *, is_limited: bool = True) -> HttpRoute:
        """Returns the route of a handler.

        Args:
            method: HTTP method, `*` for any.
            path: the path.
            handler: gets admitted requests only.
            is_limited: False for lists, which ask no model: they count in no limit and wait for no place.
        """

        async def serve(request: web.Request) -> web.StreamResponse:
            return await self._serve(request, path, handler, is_limited=is_limited)

        return HttpRoute(method, path, serve, is_guarded=False, ends_with_client=True)

    def unknown(self, paths: Sequence[str]) -> Sequence[HttpRoute]:
        """Returns the routes of everything else below these prefixes, so that clients read an error that they know."""

        async def refuse(request: web.Request, _call: ApiCall) -> web.StreamResponse:
            message = f"Unknown request: {request.method} {request.path[:100]}. docs/endpoint.md lists those served."
            raise ApiError(HTTPStatus.NOT_FOUND, message, "unknown_url")

        return [self.route("*", path, refuse, is_limited=False) for path in paths]

    def to_error(self, error: Exception) -> ApiError:
        """Returns an error in OpenAI's shape; one that is no error of a provider is logged as a bug."""
        match error:
            case ApiError():
                return error
            case InvalidRequest():
                return invalid(str(error), error.param, error.code)
            case RateExceeded():
                return rate_limited(error.renewal_s)
            case BudgetExhausted():
                return quota_exceeded(error.renews_at - self._clock.time())
            case TooManyWaiting():
                return rate_limited(SOON_S)
            case UnderstudyError():
                return to_api_error(error, self._cooldown_s())
            case _:
                log.error("api.failed", error=type(error).__name__, exc_info=error)
                return to_api_error(UnderstudyError(), 0)

    async def _serve(
        self, request: web.Request, path: str, handler: ApiHandler, *, is_limited: bool
    ) -> web.StreamResponse:
        began, id_ = time.monotonic(), uuid.uuid4().hex
        call: ApiCall | None = None
        status = 499  # the client hung up, as nginx names it
        try:
            token = await self._authenticate(request)
            with self._hold() as hold:
                raw = await self._read(request, hold) if request.can_read_body else b""
                call = ApiCall(token, id_, request.content_type, raw)
                response = await self._admit(request, call, handler, is_limited=is_limited)
            status = response.status
        except (asyncio.CancelledError, ConnectionError):
            raise
        except Exception as error:  # noqa: BLE001 - worded as the protocol wants it; a bug is logged
            answer = self.to_error(error)
            status = answer.status
            response = answer.response()
            if status == HTTPStatus.UNAUTHORIZED:
                response.headers[WWW_AUTHENTICATE] = "Bearer"
        finally:
            self._count(path, status)
            log.info(
                "api.request",
                id=id_,
                client=call.token.name if call is not None else None,
                path=path,
                status=int(status),
                seconds=round(time.monotonic() - began, 3),
                **(call.facts if call is not None else {}),
            )
        if not response.prepared:
            response.headers["x-request-id"] = id_
        return response

    async def _admit(
        self, request: web.Request, call: ApiCall, handler: ApiHandler, *, is_limited: bool
    ) -> web.StreamResponse:
        if not is_limited:
            return await handler(request, call)
        await self._admission.count(call.token, call.id)
        async with self._admission.place(call.token):
            return await handler(request, call)

    async def _authenticate(self, request: web.Request) -> ApiToken:
        # With two headers, a proxy in front may have checked the other one.
        sent = request.headers.getall(AUTHORIZATION, ())
        scheme, _, shown = (sent[0] if len(sent) == 1 else "").partition(" ")
        token = await self._tokens.find(shown.strip()) if scheme.lower() == "bearer" and shown else None
        if token is None:
            log.info("api.unauthorized", method=request.method, path=request.path[:100])
            message = "Send a token of API_TOKENS as `Authorization: Bearer ...`."
            raise ApiError(HTTPStatus.UNAUTHORIZED, message, "invalid_api_key", kind="authentication_error")
        return token

    async def _read(self, request: web.Request, hold: Callable[[int], None]) -> bytes:
        """Returns the body, which is counted while it arrives: its length may be unknown, or a lie.

        Raises:
            ApiError: it is too large, too late, or too many others are in memory.
        """
        size, pieces = 0, list[bytes]()
        if (request.content_length or 0) > self._limits.one:
            raise self._too_large()
        try:
            async for piece in request.content.iter_any():
                size += len(piece)
                if size > self._limits.one:
                    raise self._too_large()
                hold(len(piece))
                pieces.append(piece)
        except TimeoutError:
            message = "The body did not arrive in time."
            raise ApiError(HTTPStatus.REQUEST_TIMEOUT, message, is_retryable=True) from None
        except web.RequestPayloadError:
            raise invalid("The body cannot be read: it is broken, or not in its Content-Encoding.") from None
        except web.HTTPException as error:
            raise ApiError(error.status, error.reason) from None
        return b"".join(pieces)

    @contextmanager
    def _hold(self) -> Generator[Callable[[int], None]]:
        """Counts the bytes that a request holds in memory while the context lasts."""
        held = 0

        def hold(size: int) -> None:
            nonlocal held
            if self._held + size > self._limits.together:
                raise ApiError(
                    HTTPStatus.SERVICE_UNAVAILABLE,
                    "Too many large requests at once. Please try again.",
                    kind="server_error",
                    headers={"Retry-After": str(int(SOON_S))},
                    is_retryable=True,
                )
            held += size
            self._held += size

        try:
            yield hold
        finally:
            self._held -= held

    def _too_large(self) -> ApiError:
        message = f"The body is larger than {self._limits.one >> 20} MiB."
        return ApiError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, message, "request_too_large")

    def _cooldown_s(self) -> float:
        """Returns the seconds until the first of the failing providers is asked again."""
        now = self._clock.time()
        statuses = self._fallback.get_provider_status().providers
        ends = [each.until - now for each in statuses if each.state is ProviderState.COOLING and each.until]
        return max(min(ends, default=SOON_S), 1.0)


def _require_text(value: object) -> None:
    """Checks that no text of a JSON value holds half of a surrogate pair, which no provider can be sent.

    Raises:
        ValueError: one does.
    """
    match value:
        case str():
            value.encode()
        case dict():
            for key, inner in cast("dict[str, object]", value).items():
                key.encode()
                _require_text(inner)
        case list():
            for inner in cast("list[object]", value):
                _require_text(inner)
        case _:
            pass
