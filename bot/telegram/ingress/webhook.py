"""Updates come in by webhook: stored, and only then answered with 200. Every replica serves it."""

import asyncio
import hmac
import json
from typing import Any
from urllib.parse import urlsplit

import structlog
from aiogram import Bot
from aiogram.exceptions import (
    ClientDecodeError,
    TelegramAPIError,
    TelegramBadRequest,
    TelegramRetryAfter,
    TelegramUnauthorizedError,
)
from aiohttp import web
from pydantic import TypeAdapter

from bot.telegram.api.errors import describe_api_error
from bot.telegram.api.updates import UPDATE_TYPES
from bot.telegram.ingress.polling import Sink
from bot.web.server import Route
from core.clock import Clock
from core.errors import StartupError, StorageError

log = structlog.get_logger()

SECRET_HEADER = "X-Telegram-Bot-Api-Secret-Token"  # noqa: S105 - a header's name
CONNECTIONS = 100
"""Deliveries that Telegram may have open at the same time, the most it allows."""
RETRY_AFTER_S = 5
CALL_TIMEOUT_S = 10
_OBJECT = TypeAdapter(dict[str, Any])
FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 30.0


class Webhook:
    """What Telegram delivers to.

    Args:
        url: the public address, as TELEGRAM_WEBHOOK_URL says; its path is served.
        secret: what Telegram shows with each delivery.
    """

    def __init__(self, url: str, secret: str) -> None:
        self._url = url
        self._secret = secret
        self._sink: Sink | None = None

    @property
    def route(self) -> Route:
        """What the web side serves. It keeps its own door."""
        return Route("POST", urlsplit(self._url).path or "/", self._deliver, guarded=False)

    async def receive(self, bot: Bot, clock: Clock, sink: Sink) -> None:
        """Register the webhook and pass deliveries to `sink` until cancelled.

        Raises:
            StartupError: Telegram refuses the token or the URL.
        """
        self.open(sink)
        try:
            await self.announce(bot, clock)
            await asyncio.Event().wait()
        finally:
            self.close()

    def open(self, sink: Sink) -> None:
        """Hand over to `sink` what comes from now on; it returns when that is stored, and raises StorageError else."""
        self._sink = sink

    def close(self) -> None:
        """Take nothing more: Telegram tries again, at this replica or another one."""
        self._sink = None

    async def announce(self, bot: Bot, clock: Clock) -> None:
        """Tell Telegram where to deliver, until it has taken note.

        Raises:
            StartupError: the token is refused, or the address is one that Telegram does not deliver to.
        """
        pause = FIRST_PAUSE_S
        while True:
            try:
                await bot.set_webhook(
                    self._url,
                    secret_token=self._secret,
                    allowed_updates=list(UPDATE_TYPES),
                    max_connections=CONNECTIONS,
                    drop_pending_updates=False,
                    request_timeout=CALL_TIMEOUT_S,
                )
            except TelegramUnauthorizedError as error:
                raise StartupError("TELEGRAM_BOT_TOKEN: Telegram does not accept this token any more") from error
            except TelegramBadRequest as error:
                raise StartupError(
                    f"TELEGRAM_WEBHOOK_URL: Telegram does not take it: {describe_api_error(error)}; "
                    "example: TELEGRAM_WEBHOOK_URL=https://bot.example.org/telegram"
                ) from error
            except (TelegramAPIError, ClientDecodeError) as error:
                wait = float(error.retry_after) if isinstance(error, TelegramRetryAfter) else pause
                log.warning("webhook.not_announced", reason=describe_api_error(error), pause_s=wait)
                await clock.sleep(wait)
                pause = min(2 * pause, LONGEST_PAUSE_S)
            else:
                log.info("webhook.announced", host=urlsplit(self._url).hostname)
                return

    async def _deliver(self, request: web.Request) -> web.Response:
        shown = request.headers.get(SECRET_HEADER, "")
        if not hmac.compare_digest(shown.encode(errors="surrogateescape"), self._secret.encode()):
            log.warning("webhook.refused")
            return web.Response(status=401, text="This is not the secret.\n")
        if self._sink is None:
            return _later("The bot is starting or leaving.\n")
        update = _object_in(await request.read())
        if update is None:
            log.error("webhook.unreadable", size=request.content_length)
            return web.Response(status=400, text="That is no update.\n")
        try:
            await self._sink([update])
        except StorageError as error:
            log.error("webhook.not_stored", error=str(error))  # noqa: TRY400 - the reason says it all
            return _later("The database does not take it.\n")
        return web.Response()


def _object_in(body: bytes) -> dict[str, Any] | None:
    """The JSON object that a body is, or None."""
    try:
        return _OBJECT.validate_python(json.loads(body))
    except ValueError:
        return None


def _later(text: str) -> web.Response:
    return web.Response(status=503, text=text, headers={"Retry-After": str(RETRY_AFTER_S)})
