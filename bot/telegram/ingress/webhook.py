"""Webhook: a delivered update is stored and only then answered with 200. Every replica serves it."""

import asyncio
import hmac
from dataclasses import dataclass
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
from bot.telegram.api.session import parse_api_json
from bot.telegram.api.updates import UPDATE_TYPES, UpdateSink
from bot.web.server import HttpRoute
from core.clock import Backoff, Clock
from core.errors import StartupError, StorageError

log = structlog.get_logger()

PROOF_HEADER = "X-Telegram-Bot-Api-Secret-Token"
CONNECTIONS = 100
"""Concurrent deliveries, the most that Telegram allows."""
_OBJECT = TypeAdapter(dict[str, Any])


@dataclass(frozen=True, slots=True)
class WebhookTiming:
    """Intervals of the webhook, in seconds.

    Attributes:
        call_timeout_s: the deadline of one `setWebhook` call.
        backoff: pauses between such calls while Telegram is unreachable.
        retry_after_s: when Telegram is asked to deliver again after a 503.
    """

    call_timeout_s: int = 10
    backoff: Backoff = Backoff(first_s=1.0, longest_s=30.0)
    retry_after_s: int = 5


class Webhook:
    """Registers the webhook and accepts Telegram's deliveries.

    Args:
        url: TELEGRAM_WEBHOOK_URL, the public address; its path is served.
        secret: the token that Telegram sends with each delivery.
        timing: intervals.
    """

    def __init__(self, url: str, secret: str, timing: WebhookTiming | None = None) -> None:
        self._url = url
        self._secret = secret
        self._timing = timing or WebhookTiming()
        self._sink: UpdateSink | None = None

    @property
    def route(self) -> HttpRoute:
        """The route of the deliveries. It checks Telegram's secret in place of WEB_TOKEN."""
        return HttpRoute("POST", urlsplit(self._url).path or "/", self._deliver, is_guarded=False)

    async def receive(self, bot: Bot, clock: Clock, sink: UpdateSink) -> None:
        """Passes deliveries to `sink` until cancelled; from then on Telegram retries them, here or at another replica.

        Raises:
            StartupError: the token is refused, or Telegram does not deliver to the address.
        """
        self._sink = sink
        try:
            await self._register(bot, clock)
            await asyncio.Event().wait()
        finally:
            self._sink = None

    async def _register(self, bot: Bot, clock: Clock) -> None:
        """Registers the address with Telegram; retries until Telegram answers."""
        failures = 0
        while True:
            try:
                await bot.set_webhook(
                    self._url,
                    secret_token=self._secret,
                    allowed_updates=list(UPDATE_TYPES),
                    max_connections=CONNECTIONS,
                    drop_pending_updates=False,
                    request_timeout=self._timing.call_timeout_s,
                )
            except TelegramUnauthorizedError as error:
                raise StartupError("TELEGRAM_BOT_TOKEN: Telegram does not accept this token any more") from error
            except TelegramBadRequest as error:
                raise StartupError(
                    f"TELEGRAM_WEBHOOK_URL: Telegram rejects it: {describe_api_error(error)}, "
                    "for example TELEGRAM_WEBHOOK_URL=https://bot.example.org/telegram"
                ) from error
            except (TelegramAPIError, ClientDecodeError) as error:
                failures += 1
                pause_s = self._timing.backoff.pause_s(failures)
                if isinstance(error, TelegramRetryAfter):
                    pause_s = float(error.retry_after)
                log.warning("webhook.registration_failed", reason=describe_api_error(error), pause_s=pause_s)
                await clock.sleep(pause_s)
            else:
                log.info("webhook.registered", host=urlsplit(self._url).hostname)
                return

    async def _deliver(self, request: web.Request) -> web.Response:
        shown = request.headers.get(PROOF_HEADER, "")
        if not hmac.compare_digest(shown.encode(errors="surrogateescape"), self._secret.encode()):
            log.warning("webhook.unauthorized")
            return web.Response(status=401, text="The secret is wrong.\n")
        if self._sink is None:
            return self._unavailable("The bot is starting or stopping.\n")
        update = _parse_object(await request.read())
        if update is None:
            log.error("webhook.invalid_body", size=request.content_length)
            return web.Response(status=400, text="The body is not an update.\n")
        try:
            await self._sink([update])
        except StorageError as error:
            log.error("webhook.store_failed", error=str(error))
            return self._unavailable("The database rejects the update.\n")
        except Exception:
            # Telegram delivers it again.
            log.exception("webhook.store_crashed", update_id=update.get("update_id"))
            return self._unavailable("The update could not be stored.\n")
        return web.Response()

    def _unavailable(self, text: str) -> web.Response:
        return web.Response(status=503, text=text, headers={"Retry-After": str(self._timing.retry_after_s)})


def _parse_object(body: bytes) -> dict[str, Any] | None:
    """Returns the JSON object in a body, or None if it holds anything else."""
    try:
        return _OBJECT.validate_python(parse_api_json(body))
    except ValueError:
        return None
