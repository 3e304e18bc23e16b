"""Calls to the Bot API: the HTTP session, and the middlewares that each call passes.

Every unusable answer becomes an error of aiogram's own kinds. Calls wait while the lease of their replica has lapsed,
secrets of the configuration are masked in outgoing texts, and durations and failures are counted and reported to
observers.
"""

import asyncio
import json
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any, Protocol, cast

import structlog
from aiogram import Bot
from aiogram.client.session.aiohttp import AiohttpSession
from aiogram.client.session.middlewares.base import BaseRequestMiddleware, NextRequestMiddlewareType
from aiogram.client.telegram import TelegramAPIServer
from aiogram.exceptions import ClientDecodeError, TelegramAPIError, TelegramNetworkError, TelegramRetryAfter
from aiogram.methods import Response, TelegramMethod
from aiogram.methods.base import TelegramType
from aiogram.types import BufferedInputFile, InputFile
from aiohttp import ClientConnectionError, ClientSession, FormData
from aiohttp.payload import BytesPayload, Payload
from yarl import URL

from bot.telegram.api.errors import ApiFailure, classify_api_error, describe_api_error
from core.bounded_json import parse_json
from core.clock import Clock
from core.observability.metrics import QUICK_SECONDS, Metrics
from core.observability.redaction import SecretMasker
from services.inbox.lease import ReplicaLease

log = structlog.get_logger()


SMALLEST_INTEGER = -(2**63)
LARGEST_INTEGER = 2**63 - 1
_LONGEST_INTEGER = 20
"""Characters of the smallest 64-bit integer. Python refuses to convert one of thousands, and with it the whole body."""


def parse_api_json(body: str | bytes) -> object:
    """Returns the value of a JSON text; an integer beyond 64 bits becomes None.

    Raises:
        ValueError: it is not JSON, or nested too deeply.
    """
    return parse_json(body, parse_int=_parse_integer)


def _parse_integer(digits: str) -> int | None:
    if len(digits) > _LONGEST_INTEGER:
        return None
    number = int(digits)
    return number if SMALLEST_INTEGER <= number <= LARGEST_INTEGER else None


CONNECTIONS = 512
"""Concurrent Bot API calls; aiogram's default of 100 would also limit concurrent sends."""
LONGEST_RETRY_AFTER_S = 24 * 3600


_JSON = json.JSONEncoder(separators=(",", ":"))


class _EncodedForm(FormData):
    """A form without files. yarl encodes it in C."""

    def __init__(self, parameters: Mapping[str, str]) -> None:
        super().__init__()
        self._parameters = parameters

    def __call__(self) -> Payload:
        """Returns the body of the request."""
        encoded = URL.build(query=self._parameters).raw_query_string
        return BytesPayload(encoded.encode(), content_type="application/x-www-form-urlencoded")


class ApiSession(AiohttpSession):
    """A session that answers every malformed response with `TelegramAPIError` or `ClientDecodeError`.

    aiogram hands on `"result": null` as a result, and raises plain Python errors for an error without a description or
    a body that is not UTF-8. Callers that handle failed calls would take these for bugs.

    Parameters are encoded in C; aiogram walks through each entity, and urllib looks up each byte.
    """

    def __init__(self, api: TelegramAPIServer) -> None:
        super().__init__(limit=CONNECTIONS, api=api, json_loads=parse_api_json, json_dumps=_JSON.encode)
        self._is_closed = False
        self._kept: dict[type, object] = {}
        """Response types by method: pydantic forgets one that is not in use, and building it takes milliseconds."""

    def build_form_data(self, bot: Bot, method: TelegramMethod[TelegramType]) -> FormData:
        """Returns the parameters of a call as they are sent."""
        files: dict[str, InputFile] = {}
        given = method.model_dump(warnings=False, exclude_none=True)
        encoded = {name: self._encode(value, bot, files) for name, value in given.items()}
        parameters = {name: value for name, value in encoded.items() if value}
        if not files:
            return _EncodedForm(parameters)
        form = FormData(parameters, quote_fields=False)
        for name, file in files.items():
            form.add_field(name, file.read(bot), filename=file.filename or name)
        return form

    def _encode(self, value: object, bot: Bot, files: dict[str, InputFile]) -> str | None:
        """Returns a parameter as it is sent; None for one that is left out. Adds the files in it to `files`."""
        if isinstance(value, list | dict):
            # One with defaults or files of aiogram in it is left to aiogram.
            with suppress(TypeError):
                return _JSON.encode(value)
        return self.prepare_value(value, bot, files)

    async def create_session(self) -> ClientSession:
        """Returns the HTTP session, opened by the first call.

        Raises:
            ClientConnectionError: it was closed for good. aiogram would open another one, which nothing closes.
        """
        if self._is_closed:
            raise ClientConnectionError("Session is closed")
        # aiogram closes the session first if its connector has changed.
        self._should_reset_connector = False
        return await super().create_session()

    async def close(self) -> None:
        """Closes the connections; calls that are made later fail."""
        self._is_closed = True
        await super().close()

    async def make_request(
        self,
        bot: Bot,
        method: TelegramMethod[TelegramType],
        timeout: int | None = None,  # noqa: ASYNC109 - aiogram's signature
    ) -> TelegramType:
        """Makes a call.

        Raises:
            ClientDecodeError: the body is not UTF-8, or holds no result.
            TelegramAPIError: the call failed.
        """
        try:
            return await super().make_request(bot, method, timeout)
        except UnicodeDecodeError as error:
            raise ClientDecodeError("The body is not UTF-8", error, None) from error
        except ClientConnectionError as error:
            raise TelegramNetworkError(method=method, message=str(error)) from error

    def check_response(
        self, bot: Bot, method: TelegramMethod[TelegramType], status_code: int, content: str
    ) -> Response[TelegramType]:
        """Returns the response of a call that succeeded."""
        try:
            response = super().check_response(bot, method, status_code, content)
        except TelegramAPIError as error:
            raise _with_bounds(error) from error.__cause__
        except ClientDecodeError:
            raise
        except Exception as error:
            raise ClientDecodeError("The error has no description", error, content) from error
        if response.result is None:
            data: dict[str, Any] = {"ok": True, "result": None}  # Any: JSON
            raise ClientDecodeError("There is no result", ValueError("null"), data)
        self._kept[type(method)] = type(response)
        return response


def _with_bounds(error: TelegramAPIError) -> TelegramAPIError:
    """Returns an error with a text and a pause that can be waited for."""
    if not isinstance(cast("object", error.message), str):  # aiogram does not check that there is one
        error.message = ""
    if isinstance(error, TelegramRetryAfter):
        error.retry_after = min(max(error.retry_after, 1), LONGEST_RETRY_AFTER_S)
    return error


TEXTS = {"text": "entities", "caption": "caption_entities"}
"""The fields of a method that people read, each with the field of its entities."""


class MaskOutgoingSecrets(BaseRequestMiddleware):
    """Masks secrets of the configuration in the texts and text files of Bot API calls.

    A provider may repeat its key in any of them. Strings that only look like a secret are left alone, since a
    conversation may be about a password.
    """

    def __init__(self, masker: SecretMasker) -> None:
        self._masker = masker

    async def __call__(
        self, make_request: NextRequestMiddlewareType[TelegramType], bot: Bot, method: TelegramMethod[TelegramType]
    ) -> Response[TelegramType]:
        """Makes the call; a masked text goes without its entities, since their offsets no longer hold."""
        changes: dict[str, Any] = {}
        for name, entities in TEXTS.items():
            text = getattr(method, name, None)
            if isinstance(text, str) and (masked := self._mask(text)) != text:
                changes |= {name: masked, entities: None} if hasattr(method, entities) else {name: masked}
        document = getattr(method, "document", None)
        if isinstance(document, BufferedInputFile):
            # A long answer goes as a file of its text.
            written = document.data.decode(errors="surrogateescape")
            if (masked := self._mask(written)) != written:
                data = masked.encode(errors="surrogateescape")
                changes["document"] = BufferedInputFile(data, document.filename or "file")
        if changes:
            log.error("secret.masked", method=method.__api_method__)
            method = method.model_copy(update=changes)
        return await make_request(bot, method)

    def _mask(self, text: str) -> str:
        folded = text.casefold()
        return self._masker.known(text) if any(map(folded.__contains__, self._masker.signs)) else text


class LeaseGate(BaseRequestMiddleware):
    """Delays each call until the lease is held; after a takeover for ever, until the caller is cancelled.

    Waiting rather than raising: an outage of the database without a takeover costs a pause and no job.
    """

    def __init__(self, lease: ReplicaLease) -> None:
        self._lease = lease

    async def __call__(
        self, make_request: NextRequestMiddlewareType[TelegramType], bot: Bot, method: TelegramMethod[TelegramType]
    ) -> Response[TelegramType]:
        """Makes the call while the lease is held."""
        await self._lease.wait_until_held()
        return await make_request(bot, method)


class TelegramMetrics:
    """Counts calls, and the updates and messages that they bring and take."""

    def __init__(self, metrics: Metrics) -> None:
        self._updates = metrics.counter("updates", "Updates taken, by kind", ("kind",))
        self._calls = metrics.histogram("telegram_call_seconds", "Time of Bot API calls", ("method",), QUICK_SECONDS)
        self._refusals = metrics.counter(
            "telegram_refusals", "Bot API calls that did not end well, by kind of fault", ("method", "kind")
        )
        self._retries = metrics.counter("telegram_retries", "Calls made once more, by kind of fault", ("kind",))
        self._lost = metrics.counter("telegram_lost", "Messages that were given up, by what was to be done", ("act",))
        self._retries.labels(ApiFailure.FLOOD.name.lower())
        for act in ("send", "edit"):
            self._lost.labels(act)

    def count_updates(self, kinds: Iterable[str]) -> None:
        """Counts stored updates."""
        for kind in kinds:
            self._updates.labels(kind).inc()

    def record_call(self, method: str, began_ns: int, seconds: float, failure: ApiFailure | None) -> None:
        """Counts a finished call. The instant of its beginning is for spans."""
        del began_ns
        self._calls.labels(method).observe(seconds)
        if failure is not None:
            self._refusals.labels(method, failure.name.lower()).inc()

    def count_retry(self, failure: ApiFailure) -> None:
        """Counts a retried call."""
        self._retries.labels(failure.name.lower()).inc()

    def count_lost(self, act: str) -> None:
        """Counts a message that was given up."""
        self._lost.labels(act).inc()


RECENT_S = 15.0
"""Time for which an answer counts as proof that Telegram is reachable, so that probes cause no calls."""
PROBE_TIMEOUT_S = 2
ANSWERS = frozenset({ApiFailure.DONE, ApiFailure.UNCHANGED, ApiFailure.FLOOD})
"""Failures that prove that Telegram answers."""


class ApiCallObserver(Protocol):
    """Receives each finished call."""

    def record_call(self, method: str, began_ns: int, seconds: float, failure: ApiFailure | None) -> None:
        """Records a call; `failure` is None if it succeeded."""
        ...


class ApiCallMiddleware:
    """Session middleware that passes each call to its observers and remembers when Telegram last answered."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._observers: list[ApiCallObserver] = []
        self._answered_at: float | None = None

    def watch(self, observer: ApiCallObserver) -> None:
        """Adds an observer of every call except `getUpdates`, which lasts as long as there are no updates."""
        self._observers.append(observer)

    async def __call__(
        self, make_request: NextRequestMiddlewareType[TelegramType], bot: Bot, method: TelegramMethod[TelegramType]
    ) -> Response[TelegramType]:
        """Makes a call."""
        began_ns, began = time.time_ns(), time.perf_counter()
        failure: ApiFailure | None = None
        try:
            response = await make_request(bot, method)
            self._answered_at = self._clock.monotonic()
        except (TelegramAPIError, ClientDecodeError) as error:
            failure = classify_api_error(error)
            if failure in ANSWERS:
                self._answered_at = self._clock.monotonic()
            raise
        else:
            return response
        finally:
            name = method.__api_method__
            if name != "getUpdates":
                for observer in self._observers:
                    observer.record_call(name, began_ns, time.perf_counter() - began, failure)

    async def check(self, bot: Bot) -> str | None:
        """Returns why Telegram is unreachable, or None. Calls `getMe` only if no call succeeded recently."""
        if self._answered_at is not None and self._clock.monotonic() - self._answered_at < RECENT_S:
            return None
        try:
            async with asyncio.timeout(PROBE_TIMEOUT_S):
                await bot.get_me(request_timeout=PROBE_TIMEOUT_S)
        except TimeoutError:
            return f"no answer within {PROBE_TIMEOUT_S} s"
        except (TelegramAPIError, ClientDecodeError) as error:
            return None if classify_api_error(error) in ANSWERS else describe_api_error(error)
        return None
