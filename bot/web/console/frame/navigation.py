"""The navigation of every page, and the counts beside its entries."""

import asyncio
from dataclasses import dataclass
from typing import Final

import structlog

from bot.operators.daemon_services import DaemonServices
from core.clock import Clock
from core.errors import StorageError

log = structlog.get_logger()

MAIN: Final = (
    ("overview", "i-overview"),
    ("providers", "i-providers"),
    ("usage", "i-usage"),
    ("moderation", "i-shield"),
)
"""Entries of a phone's navigation with their icons; the others are under `more`."""
MORE: Final = (
    ("compare", "i-compare"),
    ("dead", "i-dead"),
    ("broadcasts", "i-broadcast"),
    ("tokens", "i-key"),
    ("audit", "i-audit"),
    ("settings", "i-settings"),
)
MOST_COUNTED: Final = 99
"""Largest count shown; larger ones are shown as this number and a plus sign."""


@dataclass(frozen=True, slots=True)
class PendingWork:
    """Work that waits for an operator. A count is at most one above `MOST_COUNTED`.

    Args:
        cards: moderation cards without a decision.
        letters: dead letters.
    """

    cards: int = 0
    letters: int = 0

    def badge(self, page: str) -> str:
        """Returns the count beside an entry of the navigation; empty if there is none."""
        count = {"moderation": self.cards, "dead": self.letters, "more": self.letters}.get(page, 0)
        return f"{MOST_COUNTED}+" if count > MOST_COUNTED else str(count or "")


@dataclass(frozen=True, slots=True)
class CountingTimes:
    """Times of counting, in seconds.

    Args:
        fresh_s: lifetime of cached counts, since every page of every operator shows them.
        read_s: timeout for counting, after which a page is shown without them.
    """

    fresh_s: float = 2.0
    read_s: float = 1.0


class PendingCounter:
    """Counts the pending work of this bot, once for all operators who look at the same time."""

    def __init__(self, daemon: DaemonServices, clock: Clock, times: CountingTimes | None = None) -> None:
        self._daemon = daemon
        self._clock = clock
        self._times = times or CountingTimes()
        self._counting = asyncio.Lock()
        self._counted_at: float | None = None
        self._latest = PendingWork()

    async def read(self) -> PendingWork:
        """Returns the counts; those of before while the database does not answer."""
        async with self._counting:
            now = self._clock.monotonic()
            if self._counted_at is None or now - self._counted_at >= self._times.fresh_s:
                self._counted_at = now
                await self._count()
            return self._latest

    def expire(self) -> None:
        """Forgets when the work was counted: an act may have changed it."""
        self._counted_at = None

    async def _count(self) -> None:
        queue, letters = self._daemon.moderation, self._daemon.dead_letters
        limit = MOST_COUNTED + 1
        try:
            async with asyncio.timeout(self._times.read_s):
                self._latest = PendingWork(
                    cards=0 if queue is None else await queue.count(limit),
                    letters=0 if letters is None else await letters.count(limit),
                )
        except (StorageError, TimeoutError) as error:
            log.warning("console.counts_unavailable", error=str(error) or type(error).__name__)
