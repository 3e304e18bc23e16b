"""Leases of concurrency slots where Redis is slow or silent, or an answer takes long."""

import asyncio
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from redis.asyncio import Redis

from core.redis import guard
from core.redis.client import open_redis
from services.llm.routing.admission.concurrency import ConcurrencyLimiter
from tests.support.clock import ManualClock
from tests.support.fake_llm import server as llm
from tests.support.fake_llm.server import LLMServer
from tests.support.llm_harness import RealPauses, answered_by, bench, provider
from tests.support.processes.redis_server import RedisServer

pytestmark = pytest.mark.integration

KEY = "test:{llm}:inflight:busy"
MARGIN_S = 0.8
"""For a slow machine; less than three more timeouts."""


class LateAnswers:
    """Delays the answers of a client's transactions; the commands are carried out at once."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self.late = 0
        """The number of transactions whose answer is to be lost."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._redis, name)

    def pipeline(self, **options: Any) -> Any:
        pipe = self._redis.pipeline(**options)
        execute = pipe.execute

        async def execute_late() -> Any:
            results = await execute()
            if self.late:
                self.late -= 1
                await asyncio.sleep(60)
            return results

        pipe.execute = execute_late
        return pipe


@contextmanager
def silent_server() -> Iterator[str]:
    """Yield the URL of a Redis that accepts connections and never answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield f"redis://127.0.0.1:{listener.getsockname()[1]}/0"


async def test_lease_whose_answer_was_lost_twice_is_given_back(redis_server: RedisServer, clock: ManualClock) -> None:
    """Redis took the lease and its renewed form, but both answers came too late."""
    settings = provider("busy", "http://127.0.0.1:1/v1", max_concurrency=3, timeout_s=60.0)
    async with open_redis(redis_server.url) as redis:
        slow = LateAnswers(redis)
        limiter = ConcurrencyLimiter(guard.FailFastRedis(slow, "test", 0.05), "test", clock)
        slow.late = 2
        first = await limiter.take(settings)
        await asyncio.sleep(0.06)
        second = await limiter.take(settings)
        assert first is not None
        assert second is not None
        assert slow.late == 0
        assert await redis.zcard(KEY) > 0

        first.release()
        second.release()
        async with asyncio.timeout(5):
            while await redis.zcard(KEY):
                await asyncio.sleep(0.02)
        await limiter.close()


async def test_silent_redis_costs_a_request_one_timeout_over_all_hops(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three limited providers are asked. Redis is waited for once, although it could be tried again at each."""
    async with LLMServer() as server, LLMServer() as last:
        server.default = llm.status(529)
        providers = [
            *(provider(name, server.url, max_concurrency=5) for name in ("first", "second")),
            provider("third", last.url, max_concurrency=5),
        ]
        async with open_redis(None) as redis, bench(redis, providers[2:]) as warm:
            # The first request of a process imports for a second or two.
            await warm.ask(streamed=True)
        with silent_server() as url:
            async with open_redis(url) as redis, bench(redis, providers, RealPauses(), redis_retry_s=0.0) as replica:
                loop = asyncio.get_running_loop()
                calls = count_calls(monkeypatch)
                began = loop.time()
                assert answered_by(await replica.ask(streamed=True, user="telegram:1")) == "third"
                took_s = loop.time() - began

    assert len(server.requests) == 2
    assert len([call for call in calls if call]) == 1
    assert took_s < guard.CALL_TIMEOUT_S + MARGIN_S


def count_calls(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Return a list to which each call of a request adds whether Redis was waited for."""
    calls: list[bool] = []
    call = guard.FailFastRedis.call

    async def counted(
        self: guard.FailFastRedis, command: Callable[[Redis], Any], patience: guard.RedisPatience | None = None
    ) -> Any:
        if patience is not None:
            calls.append(self.is_open and not patience.is_spent)
        return await call(self, command, patience)

    monkeypatch.setattr(guard.FailFastRedis, "call", counted)
    return calls


async def test_lease_of_a_long_stream_is_renewed(redis_server: RedisServer, clock: ManualClock) -> None:
    """The answer takes longer than the timeout of its provider; another replica finds the slot taken."""
    settings = provider("busy", "http://127.0.0.1:1/v1", max_concurrency=1, timeout_s=0.1)
    async with open_redis(redis_server.url) as redis:
        limiter, other = ConcurrencyLimiter(redis, "test", clock), ConcurrencyLimiter(redis, "test", clock)
        slot = await limiter.take(settings)
        assert slot is not None
        [(_, expiry)] = await redis.zrange(KEY, 0, -1, withscores=True)
        for _ in range(3):
            clock.shift(9.0)
            async with asyncio.timeout(5):
                while (await redis.zscore(KEY, slot.lease or "") or 0.0) < clock.time() + 10.0:
                    await asyncio.sleep(0.02)
        assert clock.time() > expiry
        assert await other.take(settings) is None

        slot.release()
        await limiter.close()
        assert await other.take(settings) is not None
        await other.close()
