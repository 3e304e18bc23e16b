"""Long polling: updates are fetched as raw JSON, stored, and only then confirmed to Telegram.

aiogram's own polling confirms a batch when it spawns the handlers, and one update that it cannot parse blocks the whole
batch for good. Here each update is parsed on its own, and one that cannot be parsed is skipped. No answer of the server
and no bug in storing a batch ends the poll: it goes on with pauses.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

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
from bot.telegram.api.updates import UPDATE_TYPES, UpdateSink, is_update_id
from core.background import cancel_and_wait, wait_first
from core.clock import Backoff, Clock
from core.errors import StartupError, StorageError
from services.inbox.replicas import Replicas

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class PollingTiming:
    """Intervals of polling, in seconds.

    Attributes:
        poll_s: how long Telegram holds a poll open when there are no updates.
        call_margin_s: how much longer the request may take.
        quick_s: an empty answer that comes sooner was not held open; some servers do that and must not be flooded.
        quick_pause_s: the pause after such an answer.
        conflict_pause_s: the pause while another process polls.
        conflict_limit_s: how long that is tolerated; during a rolling restart the previous process polls for a moment.
        longest_flood_pause_s: the longest pause after a 429, even if the server asks for a longer one.
        backoff: pauses after failed polls, after batches that could not be stored, and between polls that bring nothing
            but invalid updates.
    """

    poll_s: int = 30
    call_margin_s: int = 10
    quick_s: float = 0.5
    quick_pause_s: float = 1.0
    conflict_pause_s: float = 5.0
    conflict_limit_s: float = 60.0
    longest_flood_pause_s: float = 300.0
    backoff: Backoff = Backoff(first_s=1.0, longest_s=30.0)


class GetRawUpdates(TelegramMethod[list[Any]]):
    """`getUpdates`, answered as plain JSON with unvalidated elements: one bad update must not hide the rest."""

    __returning__ = list[Any]
    __api_method__ = "getUpdates"

    offset: int | None = None
    timeout: int | None = None
    allowed_updates: list[str] | None = None


class Poller:
    """Fetches updates and passes each batch to `sink`."""

    def __init__(self, bot: Bot, clock: Clock, sink: UpdateSink, timing: PollingTiming | None = None) -> None:
        self._bot = bot
        self._clock = clock
        self._sink = sink
        self._timing = timing or PollingTiming()
        self._offset: int | None = None
        self._failed_polls = 0
        self._failed_stores = 0
        self._stalled_polls = 0
        """Polls in a row that brought something but no update that could be confirmed."""
        self._conflict_since: float | None = None

    async def run(self) -> None:
        """Polls until cancelled.

        Raises:
            StartupError: the token is revoked, or another process keeps polling with it.
        """
        while True:
            began, offset = self._clock.monotonic(), self._offset
            batch = await self._fetch()
            if batch is None or not await self._store(batch):
                continue
            if self._offset == offset:
                await self._pause_idle(batch, self._clock.monotonic() - began)
            else:
                self._stalled_polls = 0

    async def _fetch(self) -> list[Any] | None:
        """Returns the next updates; None, after a pause, if the poll failed."""
        timing = self._timing
        try:
            batch = await self._bot(
                GetRawUpdates(offset=self._offset, timeout=timing.poll_s, allowed_updates=list(UPDATE_TYPES)),
                request_timeout=timing.poll_s + timing.call_margin_s,
            )
        except (TelegramAPIError, ClientDecodeError) as error:
            await self._clock.sleep(self._pause_after(error))
            return None
        except Exception:
            self._failed_polls += 1
            pause_s = timing.backoff.pause_s(self._failed_polls)
            log.exception("polling.crashed", pause_s=pause_s)
            await self._clock.sleep(pause_s)
            return None
        if self._failed_polls:
            log.info("polling.recovered", failures=self._failed_polls)
        self._failed_polls, self._conflict_since = 0, None
        return batch

    async def _store(self, batch: Sequence[Any]) -> bool:
        """Stores a batch and advances the offset, which confirms it with the next poll; False after a failure."""
        updates = [cast("dict[str, Any]", raw) for raw in batch if isinstance(raw, dict)]
        if len(updates) < len(batch):
            log.error("polling.invalid_updates", updates=len(batch) - len(updates))
        try:
            await self._sink(updates)
        except Exception as error:
            self._failed_stores += 1
            pause_s = self._timing.backoff.pause_s(self._failed_stores)
            if isinstance(error, StorageError):
                log.error("polling.store_failed", updates=len(batch), error=str(error), pause_s=pause_s)
            else:
                log.exception("polling.store_crashed", updates=len(batch), pause_s=pause_s)
            await self._clock.sleep(pause_s)
            return False
        self._failed_stores = 0
        update_ids = [raw["update_id"] for raw in updates if is_update_id(raw.get("update_id"))]
        if update_ids:
            self._offset = max(update_ids) + 1
        return True

    async def _pause_idle(self, batch: Sequence[Any], seconds: float) -> None:
        """Pauses after a poll that confirmed nothing and was not held open, so that the server is not flooded."""
        if not batch:
            self._stalled_polls = 0
            if seconds < self._timing.quick_s:
                await self._clock.sleep(self._timing.quick_pause_s)
            return
        self._stalled_polls += 1
        if self._stalled_polls > 1:
            await self._clock.sleep(self._timing.backoff.pause_s(self._stalled_polls - 1))

    def _pause_after(self, error: TelegramAPIError | ClientDecodeError) -> float:
        match error:
            case TelegramUnauthorizedError():
                raise StartupError("TELEGRAM_BOT_TOKEN: Telegram does not accept this token any more") from error
            case TelegramConflictError():
                now = self._clock.monotonic()
                self._conflict_since = self._conflict_since if self._conflict_since is not None else now
                if now - self._conflict_since > self._timing.conflict_limit_s:
                    raise StartupError(
                        "TELEGRAM_BOT_TOKEN: another process polls with this token; stop it, or give this one another"
                    ) from error
                log.error("polling.conflict", detail="another process polls with this token")
                return self._timing.conflict_pause_s
            case TelegramRetryAfter():
                return min(float(error.retry_after), self._timing.longest_flood_pause_s)
            case _:
                self._failed_polls += 1
                pause_s = self._timing.backoff.pause_s(self._failed_polls)
                reason = describe_api_error(error)
                log.warning("polling.failed", reason=reason, failures=self._failed_polls, pause_s=pause_s)
                return pause_s


async def poll_while_leading(replicas: Replicas, poller: Poller) -> None:
    """Polls whenever this replica is the leader; the other replicas of the bot stand by.

    Raises:
        StartupError: see `Poller.run`.
    """
    while True:
        async with replicas.lead() as lost:
            polling = asyncio.create_task(poller.run(), name="poller")
            try:
                await wait_first(lost, polling)
            finally:
                # Before the lead is released: two pollers with one token reject each other.
                await cancel_and_wait(polling)
            if not polling.cancelled():
                polling.result()
            log.warning("polling.lead_lost")
