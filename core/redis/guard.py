"""Redis calls on the request path: 0.3 s timeout, fails fast for 2 s after an error.

A request pays for a silent Redis once (`RedisPatience`), and while one waits the others do not: after a quarter of the
timeout, and for the first call after an error, further calls fail at once.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

import structlog
from redis.asyncio import Redis

from core.clock import LoopTimeout
from core.redis.client import REDIS_ERRORS, describe_redis_error

log = structlog.get_logger()

CALL_TIMEOUT_S = 0.3
"""Longest time that a request waits for Redis before its replica decides alone."""

ResultT = TypeVar("ResultT")


class RedisUnavailable(Exception):
    """Redis did not answer in time, failed a moment ago, or is not configured."""


@dataclass(slots=True)
class RedisPatience:
    """The one timeout of Redis that a request waits for, over all its calls; calls after it fail at once."""

    is_spent: bool = False


class FailFastRedis:
    """Runs Redis calls with a short timeout, and not at all shortly after an error.

    Args:
        redis: a client with `decode_responses=True`; None makes every call fail.
        purpose: the component that calls, for the log.
        retry_after_s: time for which calls fail at once after an error, so that one request pays for the timeout and
            not all.
    """

    def __init__(self, redis: Redis | None, purpose: str, retry_after_s: float = 2.0) -> None:
        self._redis = redis
        self._purpose = purpose
        self._retry_after_s = retry_after_s
        self._retry_at = 0.0
        self._is_lost = False
        self._running = 0
        self._slow: set[object] = set()
        """Calls in progress that have taken a quarter of their timeout."""

    @property
    def is_open(self) -> bool:
        """True if a call would be tried now."""
        if self._redis is None or self._slow or (self._is_lost and self._running):
            return False
        return self.opens_in_s == 0.0

    @property
    def opens_in_s(self) -> float:
        """Seconds until a call is tried after an error; infinite without a client."""
        if self._redis is None:
            return float("inf")
        return max(0.0, self._retry_at - asyncio.get_running_loop().time())

    async def call(
        self, command: Callable[[Redis], Awaitable[ResultT]], patience: RedisPatience | None = None
    ) -> ResultT:
        """Runs a command and returns its result.

        Args:
            command: runs on the client.
            patience: the waiting request's patience; spent by a timeout or an error.

        Raises:
            RedisUnavailable: no result in time. The command may have been executed all the same.
        """
        if self._redis is None or not self.is_open or (patience is not None and patience.is_spent):
            raise RedisUnavailable
        call = object()
        self._running += 1
        try:
            async with LoopTimeout(CALL_TIMEOUT_S, lambda: self._slow.add(call)):
                result = await command(self._redis)
        except REDIS_ERRORS as error:
            if patience is not None:
                patience.is_spent = True
            self._note_error(error)
            raise RedisUnavailable from error
        finally:
            self._running -= 1
            self._slow.discard(call)
        if self._is_lost:
            self._is_lost = False
            log.info("redis.call_recovered", purpose=self._purpose)
        return result

    def _note_error(self, error: Exception) -> None:
        self._retry_at = asyncio.get_running_loop().time() + self._retry_after_s
        if not self._is_lost:
            self._is_lost = True
            log.warning(
                "redis.call_failed",
                purpose=self._purpose,
                error=type(error).__name__,
                detail=describe_redis_error(error),
            )
