"""Redis calls on the request path: 0.3 s timeout, fails fast for 2 s after an error."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog
from redis.asyncio import Redis

from core.redis.client import REDIS_ERRORS
from core.redis.errors import describe_redis_error

log = structlog.get_logger()

CALL_TIMEOUT_S = 0.3
"""Longest time that a request waits for Redis before its replica decides alone."""
RETRY_AFTER_S = 2.0
"""Time for which calls fail at once after an error, so that one request pays for the timeout and not all."""

ResultT = TypeVar("ResultT")


class RedisUnavailable(Exception):
    """Redis did not answer in time, failed a moment ago, or is not configured."""


class FailFastRedis:
    """Runs Redis calls with a short timeout, and not at all shortly after an error.

    Args:
        redis: a client with `decode_responses=True`; None makes every call fail.
        purpose: the component that calls, for the log.
    """

    def __init__(self, redis: Redis | None, purpose: str) -> None:
        self._redis = redis
        self._purpose = purpose
        self._retry_at = 0.0
        self._is_lost = False

    @property
    def is_open(self) -> bool:
        """True if a call would be tried now."""
        return self._redis is not None and asyncio.get_running_loop().time() >= self._retry_at

    async def call(self, command: Callable[[Redis], Awaitable[ResultT]]) -> ResultT:
        """Run a command and return its result.

        Raises:
            RedisUnavailable: no result in time. The command may have been executed all the same.
        """
        if self._redis is None or not self.is_open:
            raise RedisUnavailable
        try:
            async with asyncio.timeout(CALL_TIMEOUT_S):
                result = await command(self._redis)
        except REDIS_ERRORS as error:
            self._retry_at = asyncio.get_running_loop().time() + RETRY_AFTER_S
            if not self._is_lost:
                self._is_lost = True
                log.warning(
                    "redis.call_failed",
                    purpose=self._purpose,
                    error=type(error).__name__,
                    detail=describe_redis_error(error),
                )
            raise RedisUnavailable from error
        if self._is_lost:
            self._is_lost = False
            log.info("redis.call_recovered", purpose=self._purpose)
        return result
