"""Asking Redis for something that a request waits for: briefly, and not at all while Redis is gone."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog
from redis.asyncio import Redis

from core.redis.client import REDIS_ERRORS

log = structlog.get_logger()

ANSWER_S = 0.3
"""How long a request waits for Redis; after that its replica decides alone."""
REST_S = 2.0
"""How long Redis is left alone after it did not answer, so that one request at most pays for that, not all."""

_Answer = TypeVar("_Answer")


class RedisUnavailable(Exception):
    """Redis does not answer, or there is none."""


class FailFastRedis:
    """A Redis that may be gone.

    Args:
        redis: a client with `decode_responses=True`, to a server or to the embedded store; None where there is none.
        purpose: what it is asked for, for the log.
    """

    def __init__(self, redis: Redis | None, purpose: str) -> None:
        self._redis = redis
        self._purpose = purpose
        self._rests_until = 0.0
        self._is_lost = False

    @property
    def is_open(self) -> bool:
        """Whether asking makes sense now."""
        return self._redis is not None and asyncio.get_running_loop().time() >= self._rests_until

    async def ask(self, exchange: Callable[[Redis], Awaitable[_Answer]]) -> _Answer:
        """What Redis answers.

        Raises:
            OutOfReach: it does not, or not in time; what was asked may have been done all the same.
        """
        if self._redis is None or not self.is_open:
            raise RedisUnavailable
        try:
            async with asyncio.timeout(ANSWER_S):
                answer = await exchange(self._redis)
        except REDIS_ERRORS as error:
            self._rests_until = asyncio.get_running_loop().time() + REST_S
            if not self._is_lost:
                self._is_lost = True
                log.warning(
                    "llm.redis_lost", purpose=self._purpose, error=type(error).__name__, detail=str(error)[:200]
                )
            raise RedisUnavailable from error
        if self._is_lost:
            self._is_lost = False
            log.info("llm.redis_back", purpose=self._purpose)
        return answer
