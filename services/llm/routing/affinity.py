"""Who stays with which provider: somebody who was moved because another one was busy is not moved back at once."""

import asyncio
import json

import structlog
from redis.asyncio import Redis

from core.clock import Clock
from core.redis.guard import FailFastRedis, RedisUnavailable

log = structlog.get_logger()

STAY_S = 300
"""How long; counted from the move, later answers do not prolong it."""
SWEEP_AT = 1000
"""From so many stays on, those that have ended are thrown away at each new one."""


class ProviderAffinity:
    """The stays of all speakers, in Redis and, for those moved here, in this process.

    Args:
        redis: a client with `decode_responses=True`; None where every replica is alone.
        prefix: what all keys begin with.
        clock: the time.
    """

    def __init__(self, redis: Redis | None, prefix: str, clock: Clock) -> None:
        self._reach = FailFastRedis(redis, "stays")
        self._prefix = f"{prefix}:{{llm}}:stay:"
        self._clock = clock
        self._local: dict[str, tuple[str, float]] = {}
        self._writing: set[asyncio.Task[None]] = set()

    async def of(self, speaker: str) -> str | None:
        """The provider that a speaker stays with; one round trip at most, none where the move was made here."""
        stay = self._local.get(speaker)
        if stay is None or stay[1] <= self._clock.time():
            stay = await self._read(speaker)
        return stay[0] if stay is not None and stay[1] > self._clock.time() else None

    def begin(self, speaker: str, provider: str) -> None:
        """A speaker was moved: known here at once, to the others soon after."""
        now = self._clock.time()
        if len(self._local) >= SWEEP_AT:
            self._local = {name: stay for name, stay in self._local.items() if stay[1] > now}
        self._local[speaker] = (provider, now + STAY_S)
        task = asyncio.create_task(self._write(speaker, provider, now + STAY_S), name="stays.write")
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)

    async def close(self) -> None:
        """Wait for what is being written."""
        await asyncio.gather(*self._writing)

    async def _read(self, speaker: str) -> tuple[str, float] | None:
        try:
            stored = await self._reach.call(lambda redis: redis.get(self._prefix + speaker))
            if stored is None:
                return None
            provider, until = json.loads(stored)
            return str(provider), float(until)
        except RedisUnavailable:
            return None
        except (ValueError, TypeError):
            log.warning("stays.unreadable")
            return None

    async def _write(self, speaker: str, provider: str, until: float) -> None:
        # The instant is in the value, by the replicas' own clocks like all that they share; the expiry tidies up.
        value = json.dumps([provider, until])
        try:
            await self._reach.call(lambda redis: redis.set(self._prefix + speaker, value, ex=STAY_S))
        except RedisUnavailable:
            # The stay holds at this replica.
            return
        except Exception:
            log.exception("stays.not_written")
