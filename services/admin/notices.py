"""Notices to operators about providers and dead letters, sent once over all replicas."""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog
from redis.asyncio import Redis

from core.clock import Clock
from core.redis.notify_once import NotifyOnce
from services.llm.routing.events import AnswersAgain, LeaderChanged, Misconfigured, NoProviderAnswers, ProviderNotice

log = structlog.get_logger()

LEADER_PAUSE_S = 300
"""Minimum interval between two notices of a kind."""
MISCONFIGURED_PAUSE_S = 24 * 3600
"""Interval of notices about a rejected key."""
DEAD_PAUSE_S = 300
OUTAGE_PAUSE_S = 300
OUTAGE_REMINDER_S = 3600
"""Interval of reminders during an outage."""
OUTAGE = "outage"
QUEUE_LIMIT = 100


@dataclass(frozen=True, slots=True)
class WorkGivenUp:
    """A job became a dead letter."""

    reason: str


@dataclass(frozen=True, slots=True)
class InboxFailed:
    """The queue of jobs cannot work, and the process ends."""

    reason: str


Event = ProviderNotice | WorkGivenUp | InboxFailed
Send = Callable[[Event], Awaitable[None]]


class AdminNotices:
    """Queues events and sends each once.

    Args:
        redis: a client with `decode_responses=True`; replicas agree there on who sends.
        prefix: prefix of all Redis keys.
        send: words an event and delivers it to every operator.
    """

    def __init__(self, redis: Redis, prefix: str, clock: Clock, send: Send) -> None:
        self._once = NotifyOnce(redis, f"{prefix}:{{llm}}:told", clock)
        self._send = send
        self._events: asyncio.Queue[Event] = asyncio.Queue(QUEUE_LIMIT)

    def put(self, event: Event) -> None:
        """Queues an event. Never blocks; the oldest event is dropped when the queue is full."""
        if self._events.full():
            self._events.get_nowait()
        self._events.put_nowait(event)

    async def run(self) -> None:
        """Sends notices until cancelled."""
        while True:
            await self.send_now(await self._events.get())

    async def send_now(self, event: Event) -> None:
        """Sends a notice without queueing it, unless it was sent before; logs a failure."""
        name, pause_s = _identify(event)
        if await self._is_due(event) and await self._once.is_first(name, pause_s):
            await self._note_outage(event)
            log.info("notice.sent", notice=name)
            try:
                await self._send(event)
            except Exception:
                log.exception("notice.failed", notice=name)

    async def _is_due(self, event: Event) -> bool:
        """Returns whether an event about an outage is news: its beginning once, its end after a beginning was sent."""
        match event:
            case NoProviderAnswers():
                return not await self._once.is_noted(OUTAGE)
            case AnswersAgain():
                return await self._once.take_note(OUTAGE)
            case _:
                return True

    async def _note_outage(self, event: Event) -> None:
        if isinstance(event, NoProviderAnswers):
            await self._once.note(OUTAGE, OUTAGE_REMINDER_S)


def _identify(event: Event) -> tuple[str, int]:
    """Returns the name that events of the same kind share, and the seconds until it may be sent again."""
    match event:
        case Misconfigured(provider=provider, reason=reason):
            digest = hashlib.sha256(f"{provider}:{reason}".encode()).hexdigest()[:12]
            return f"misconfigured:{digest}", MISCONFIGURED_PAUSE_S
        case WorkGivenUp():
            return "dead", DEAD_PAUSE_S
        case InboxFailed():
            return "inbox", DEAD_PAUSE_S
        case NoProviderAnswers():
            return "nobody", OUTAGE_PAUSE_S
        case AnswersAgain():
            # Each beginning has its end; beginnings are rare enough.
            return "again", 1
        case LeaderChanged(reason=None):
            return "back", LEADER_PAUSE_S
        case LeaderChanged():
            return "lost", LEADER_PAUSE_S
