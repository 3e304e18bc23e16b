"""What admins are told by themselves: that another provider leads, that it is back, that one is misconfigured."""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisClusterException, RedisError

from core.clock import Clock
from services.llm.routing.fallback import LeaderChanged, Misconfigured

log = structlog.get_logger()

LEADER_PAUSE_S = 300
"""At most one notice of each kind in this time, over all replicas."""
MISCONFIGURED_PAUSE_S = 24 * 3600
"""A wrong key is told once, and again a day later if nobody mended it."""
DEAD_PAUSE_S = 300
QUEUE_LIMIT = 100


@dataclass(frozen=True, slots=True)
class WorkGivenUp:
    """A message was put to the dead letters."""

    reason: str


Event = LeaderChanged | Misconfigured | WorkGivenUp
Send = Callable[[str], Awaitable[None]]


class AdminNotices:
    """Tells admins what happened to the providers, once for all replicas.

    Args:
        redis: where replicas agree on who tells.
        prefix: what all keys begin with.
        clock: the time.
        send: tells every admin.
    """

    def __init__(self, redis: Redis, prefix: str, clock: Clock, send: Send) -> None:
        self._redis = redis
        self._prefix = f"{prefix}:{{llm}}:told"
        self._clock = clock
        self._send = send
        self._events: asyncio.Queue[Event] = asyncio.Queue(QUEUE_LIMIT)
        self._told: dict[str, float] = {}

    def hear(self, event: Event) -> None:
        """Take note of an event; never blocks, and the oldest news gives way when there is too much of it."""
        if self._events.full():
            self._events.get_nowait()
        self._events.put_nowait(event)

    async def run(self) -> None:
        """Tell until cancelled."""
        while True:
            event = await self._events.get()
            name, pause_s, text = _notice(event)
            if await self._is_first(name, pause_s):
                log.info("admins.told", notice=name)
                try:
                    await self._send(text)
                except Exception:
                    log.exception("admins.not_told", notice=name)

    async def _is_first(self, name: str, pause_s: int) -> bool:
        now = self._clock.monotonic()
        if self._told.get(name, now) > now:
            return False
        self._told = {known: until for known, until in self._told.items() if until > now}
        self._told[name] = now + pause_s
        try:
            return bool(await self._redis.set(f"{self._prefix}:{name}", "1", nx=True, ex=pause_s))
        except (RedisError, RedisClusterException, OSError, TimeoutError):
            # Told twice, by two replicas, is better than not at all.
            return True


def _notice(event: Event) -> tuple[str, int, str]:
    """What tells it from others, for how long it is not repeated, and what it says."""
    match event:
        case Misconfigured(provider, reason):
            digest = hashlib.sha256(f"{provider}:{reason}".encode()).hexdigest()[:12]
            text = (
                f"{provider} does not accept its key, account or model: {reason}. It rests for 30 minutes at a time. "
                f"Once that is mended (new settings need a restart), /provider reset {provider} brings it back."
            )
            return f"misconfigured:{digest}", MISCONFIGURED_PAUSE_S, text
        case WorkGivenUp(reason):
            text = f"A message could not be handled and is among the dead letters: {reason}. /dead shows them."
            return "dead", DEAD_PAUSE_S, text
        case LeaderChanged(before, after, None):
            return "back", LEADER_PAUSE_S, f"{after} answers again, in place of {before}."
        case LeaderChanged(before, after, reason):
            text = f"{before} failed ({reason}). {after} answers now. /provider shows more."
            return "lost", LEADER_PAUSE_S, text
