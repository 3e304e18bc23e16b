"""Updates come in: fetched as raw JSON, admitted, and sent down the lane of their conversation.

The library's own polling confirms a batch when it spawns its handlers, and one update that it cannot parse wedges the
whole batch for ever. Here each update is parsed by itself, and what cannot be parsed is put aside.
"""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import structlog
from aiogram import Bot
from aiogram.exceptions import (
    ClientDecodeError,
    TelegramAPIError,
    TelegramConflictError,
    TelegramRetryAfter,
    TelegramUnauthorizedError,
)
from aiogram.methods import TelegramMethod
from aiogram.types import Update
from pydantic import ValidationError

from bot.telegram.faults import reason_of
from core.clock import Clock
from core.errors import StartupError

log = structlog.get_logger()

POLL_S = 30
"""How long Telegram holds a poll open when there is nothing."""
CALL_MARGIN_S = 10
QUICK_S = 0.5
"""An empty answer that comes sooner did not wait: some servers do that, and they must not be hammered."""
LONGEST_PAUSE_S = 30.0
CONFLICT_PATIENCE_S = 60.0
"""During a rolling restart the previous process may still be polling for a moment."""
UPDATE_TYPES = ("message", "edited_message", "callback_query", "my_chat_member", "stopped_message_generation")
ESSENTIALS = (
    "message_id", "date", "chat", "from", "sender_chat", "message_thread_id", "is_topic_message",
    "text", "entities", "caption", "caption_entities",
)  # fmt: skip
"""What is looked at of a message that the library cannot read, since it has something new or odd about it."""

Sink = Callable[[Update], Awaitable[None]]


class GetRawUpdates(TelegramMethod[list[dict[str, Any]]]):
    """`getUpdates`, answered as plain JSON."""

    __returning__ = list[dict[str, Any]]
    __api_method__ = "getUpdates"

    offset: int | None = None
    timeout: int | None = None
    allowed_updates: list[str] | None = None


class Poller:
    """Fetches updates and hands each to `sink`.

    Args:
        bot: whose updates.
        clock: the time.
        sink: takes an update; it returns when the update is in its lane.
    """

    def __init__(self, bot: Bot, clock: Clock, sink: Sink) -> None:
        self._bot = bot
        self._clock = clock
        self._sink = sink
        self._offset: int | None = None
        self._failures = 0
        self._conflict_since: float | None = None

    async def run(self) -> None:
        """Poll until cancelled.

        Raises:
            StartupError: the token is not accepted any more, or another process polls with it.
        """
        while True:
            began = self._clock.monotonic()
            try:
                batch = await self._bot(
                    GetRawUpdates(offset=self._offset, timeout=POLL_S, allowed_updates=list(UPDATE_TYPES)),
                    request_timeout=POLL_S + CALL_MARGIN_S,
                )
            except (TelegramAPIError, ClientDecodeError) as error:
                await self._clock.sleep(self._pause_after(error))
                continue
            if self._failures:
                log.info("intake.recovered", failures=self._failures)
            self._failures, self._conflict_since = 0, None
            for raw in batch:
                await self._take(raw)
            if not batch and self._clock.monotonic() - began < QUICK_S:
                await self._clock.sleep(1)

    async def _take(self, raw: dict[str, Any]) -> None:
        update_id = raw.get("update_id")
        if not isinstance(update_id, int):
            log.error("intake.unreadable", kinds=list(raw))
            return
        self._offset = update_id + 1
        update = self._parsed(raw, update_id)
        if update is None:
            return
        try:
            await self._sink(update)
        except Exception:
            # A bug of ours costs this update, and not those that come after it.
            log.exception("intake.not_taken", update_id=update_id)

    def _parsed(self, raw: dict[str, Any], update_id: int) -> Update | None:
        """The update; of a message that cannot be read as a whole what is sure, so that somebody gets an answer."""
        try:
            return Update.model_validate(raw, context={"bot": self._bot})
        except ValidationError as error:
            kinds = [kind for kind in raw if kind != "update_id"]
            log.error("intake.unreadable", update_id=update_id, kinds=kinds, faults=error.error_count())  # noqa: TRY400 - the error quotes the message
        message: Any = raw.get("message")  # Any: whatever JSON came
        if not isinstance(message, dict):
            return None
        sure: dict[str, Any] = {name: message[name] for name in ESSENTIALS if name in message}
        with suppress(ValidationError):
            return Update.model_validate({"update_id": update_id, "message": sure}, context={"bot": self._bot})
        return None

    def _pause_after(self, error: TelegramAPIError | ClientDecodeError) -> float:
        match error:
            case TelegramUnauthorizedError():
                raise StartupError("TELEGRAM_BOT_TOKEN: Telegram does not accept this token any more") from error
            case TelegramConflictError():
                now = self._clock.monotonic()
                self._conflict_since = self._conflict_since if self._conflict_since is not None else now
                if now - self._conflict_since > CONFLICT_PATIENCE_S:
                    raise StartupError(
                        "TELEGRAM_BOT_TOKEN: another process polls with this token; stop it, or use a token of its own"
                    ) from error
                log.error("intake.conflict", detail="another process polls with this token")
                return 5.0
            case TelegramRetryAfter():
                return float(error.retry_after)
            case _:
                self._failures += 1
                pause = min(2.0 ** min(self._failures, 10) / 2, LONGEST_PAUSE_S)
                log.warning("intake.failed", reason=reason_of(error), failures=self._failures, pause_s=pause)
                return pause
