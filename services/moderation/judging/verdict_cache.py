"""Verdict cache with single flight: an equal text is judged once, over all replicas.

A spam verdict is shared within the group, since an advert stays one for any author. Any other verdict holds for its
author alone: "ok" for a member's joke must not let a spammer repeat it. Failures are never cached. Cache and locks are
in Redis, with one hash slot per group; while Redis is unreachable, every message is judged.
"""

import asyncio
import hashlib
import json
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar, cast

import structlog
from redis.asyncio import Redis

from core.background import cancel_and_wait
from core.bounded_json import parse_json
from core.clock import Clock
from core.redis.client import REDIS_ERRORS
from services.moderation.domain.verdict import About, Evidence, Judged, Judgement, Verdict

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class VerdictCacheTiming:
    """Timing of the cache, in seconds.

    Args:
        retention_s: lifetime of a verdict.
        lock_s: lifetime of a flight's lock: how long other replicas wait before they ask for themselves.
        poll_s: interval at which they look for the verdict.
    """

    retention_s: int = 24 * 3600
    lock_s: int = 45
    poll_s: float = 0.25


@dataclass(frozen=True, slots=True)
class CacheKey:
    """Identifies a judgement: group, author, and a digest of everything that the judge reads."""

    group_id: int
    author_id: int
    digest: str

    @classmethod
    def create(cls, group_id: int, author_id: int, *content: str) -> "CacheKey":
        """Returns the key for these parts: prompt version, models, house rules, message."""
        digest = hashlib.sha256(json.dumps(content).encode()).hexdigest()
        return cls(group_id, author_id, digest[:32])


Ask = Callable[[], Awaitable[Judgement]]
_Result = TypeVar("_Result")


class VerdictCache:
    """Looks up verdicts, or has them made once.

    Args:
        prefix: prefix of all Redis keys.
    """

    def __init__(self, redis: Redis, prefix: str, clock: Clock, timing: VerdictCacheTiming | None = None) -> None:
        self._redis = redis
        self._prefix = f"{prefix}:mod"
        self._clock = clock
        self._timing = timing or VerdictCacheTiming()
        self._is_warned = False
        self._flights: dict[tuple[int, str], asyncio.Task[Judgement]] = {}

    async def get_or_ask(self, key: CacheKey, ask: Ask) -> Judgement:
        """Returns the cached verdict, the one that is being made, or the result of `ask`."""
        flight_key = (key.group_id, key.digest)
        while (flight := self._flights.get(flight_key)) is not None:
            await asyncio.wait([flight])
            if not flight.cancelled() and flight.exception() is None:
                judgement = flight.result()
                if not isinstance(judgement, Judged):
                    # All waiters share a failure: an outage must not cost each of them a timeout in turn.
                    return judgement
            known = await self._get(key)
            if known is not None:
                return known
        flight = self._flights[flight_key] = asyncio.create_task(self._fly(key, ask), name="judge")
        flight.add_done_callback(lambda _: self._flights.pop(flight_key, None))
        try:
            return await asyncio.shield(flight)
        except asyncio.CancelledError:
            # Awaited: it gives its lock back.
            await cancel_and_wait(flight)
            raise

    async def _fly(self, key: CacheKey, ask: Ask) -> Judgement:
        """Asks, unless another replica provides the verdict."""
        known = await self._get(key)
        if known is not None:
            return known
        lock, holder = f"{self._redis_key(key)}:flight", uuid.uuid4().hex
        if not await self._acquire(lock, holder):
            known = await self._wait_for_other(key, lock)
            if known is not None:
                return known
        try:
            judgement = await ask()
            if isinstance(judgement, Judged):
                await self._put(key, judgement)
        finally:
            await self._release(lock, holder)
        return judgement

    async def _get(self, key: CacheKey) -> Judged | None:
        # A client with `decode_responses` returns strings, which its types do not say.
        keys = (self._redis_key(key), self._redis_key(key, key.author_id))
        values = cast("list[str | None]", await self._try("read", lambda: self._redis.mget(*keys), otherwise=[]))
        for value in values:
            if value:
                try:
                    return _decode(value)
                except (ValueError, LookupError, TypeError):
                    # Written by another version of the bot; judged again.
                    self._warn_unreadable()
        return None

    async def _put(self, key: CacheKey, judged: Judged) -> None:
        is_shared = judged.verdict.is_spam and judged.evidence is Evidence.OWN and judged.verdict.about is About.AUTHOR
        redis_key = self._redis_key(key) if is_shared else self._redis_key(key, key.author_id)
        value, expiry_s = _encode(judged), self._timing.retention_s
        await self._try("write", lambda: self._redis.set(redis_key, value, ex=expiry_s), otherwise=None)

    async def _acquire(self, lock: str, holder: str) -> bool:
        """Returns whether no other replica judges this text."""
        expiry_s = self._timing.lock_s
        acquired = await self._try("lock", lambda: self._redis.set(lock, holder, nx=True, ex=expiry_s), otherwise=True)
        return bool(acquired)

    async def _wait_for_other(self, key: CacheKey, lock: str) -> Judged | None:
        """Waits for another replica's verdict; None if its flight ends or times out without one."""
        for _ in range(int(self._timing.lock_s / self._timing.poll_s)):
            await self._clock.sleep(self._timing.poll_s)
            known = await self._get(key)
            if known is not None:
                return known
            if not await self._try("lock", lambda: self._redis.exists(lock), otherwise=0):
                return None
        return None

    async def _release(self, lock: str, holder: str) -> None:
        # Not atomic: at worst a flight longer than the lock's lifetime lets one more replica ask.
        if await self._try("lock", lambda: self._redis.get(lock), otherwise=None) == holder:
            await self._try("lock", lambda: self._redis.delete(lock), otherwise=0)

    async def _try(self, operation: str, command: Callable[[], Awaitable[_Result]], *, otherwise: _Result) -> _Result:
        """Runs a Redis command; returns `otherwise` if Redis fails."""
        try:
            return await command()
        except REDIS_ERRORS as error:
            log.info("verdict_cache.redis_failed", operation=operation, error=type(error).__name__)
            return otherwise

    def _warn_unreadable(self) -> None:
        if not self._is_warned:
            self._is_warned = True
            log.warning("verdict_cache.entry_unreadable")

    def _redis_key(self, key: CacheKey, author_id: int | None = None) -> str:
        owner = "all" if author_id is None else str(author_id)
        return f"{self._prefix}:{{{key.group_id}}}:verdict:{key.digest}:{owner}"


def _encode(judged: Judged) -> str:
    return json.dumps(
        {
            "verdict": judged.verdict.model_dump(mode="json"),
            "evidence": judged.evidence.value,
            "provider": judged.provider,
            "model": judged.model,
        }
    )


def _decode(value: str) -> Judged:
    fields = parse_json(value)
    verdict = Verdict.model_validate(fields["verdict"])
    provider, model = fields["provider"], fields["model"]
    if not isinstance(provider, str) or not isinstance(model, str):
        raise TypeError("the provider and the model are texts")
    return Judged(verdict, Evidence(fields["evidence"]), provider, model, is_cached=True)
