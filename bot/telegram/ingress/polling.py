"""Updates come in by polling: fetched as raw JSON, stored, and only then confirmed to Telegram.

The library's own polling confirms a batch when it spawns its handlers, and one update that it cannot parse wedges the
whole batch for ever. Here each update is parsed by itself, and what cannot be parsed is put aside.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
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

from bot.telegram.api.errors import describe_api_error
from bot.telegram.api.updates import UPDATE_TYPES
from core.background import cancel_and_wait, wait_first
from core.clock import Clock
from core.errors import StartupError, StorageError
from services.inbox.replicas import Replicas

log = structlog.get_logger()

POLL_S = 30
"""How long Telegram holds a poll open when there is nothing."""
CALL_MARGIN_S = 10
QUICK_S = 0.5
"""An empty answer that comes sooner did not wait: some servers do that, and they must not be hammered."""
LONGEST_PAUSE_S = 30.0
CONFLICT_PATIENCE_S = 60.0
"""During a rolling restart the previous process may still be polling for a moment."""

Sink = Callable[[Sequence[dict[str, Any]]], Awaitable[None]]


class GetRawUpdates(TelegramMethod[list[dict[str, Any]]]):
    """`getUpdates`, answered as plain JSON."""

    __returning__ = list[dict[str, Any]]
    __api_method__ = "getUpdates"

    offset: int | None = None
    timeout: int | None = None
    allowed_updates: list[str] | None = None


class Poller:
    """Fetches updates and hands each batch to `sink`.

    Args:
        bot: whose updates.
        clock: the time.
        sink: stores a batch; it raises StorageError where it cannot, and gets the batch again.
    """

    def __init__(self, bot: Bot, clock: Clock, sink: Sink) -> None:
        self._bot = bot
        self._clock = clock
        self._sink = sink
        self._offset: int | None = None
        self._failures = 0
        self._refusals = 0
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
            if not await self._taken(batch):
                continue
            if not batch and self._clock.monotonic() - began < QUICK_S:
                await self._clock.sleep(1)

    async def _taken(self, batch: Sequence[dict[str, Any]]) -> bool:
        """Have a batch stored; only then Telegram is told so, by the next offset."""
        try:
            await self._sink(batch)
        except StorageError as error:
            self._refusals += 1
            pause = min(2.0**self._refusals / 2, LONGEST_PAUSE_S)
            log.error("intake.not_stored", updates=len(batch), error=str(error), pause_s=pause)  # noqa: TRY400 - the reason says it all
            await self._clock.sleep(pause)
            return False
        self._refusals = 0
        numbers = [raw["update_id"] for raw in batch if isinstance(raw.get("update_id"), int)]
        if numbers:
            self._offset = max(numbers) + 1
        return True

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
                log.warning("intake.failed", reason=describe_api_error(error), failures=self._failures, pause_s=pause)
                return pause


async def poll_while_leading(replicas: Replicas, poller: Poller) -> None:
    """Poll while this replica holds the right to poll; replicas with the same token stand by.

    Raises:
        StartupError: the token is no longer accepted, or a process outside polls with it.
    """
    while True:
        async with replicas.lead() as lost:
            polling = asyncio.create_task(poller.run(), name="poller")
            try:
                await wait_first(polling, lost)
            finally:
                # Before the right to poll is released: two pollers interrupt each other.
                await cancel_and_wait(polling)
            if not polling.cancelled():
                polling.result()
            log.warning("intake.lead_lost")
