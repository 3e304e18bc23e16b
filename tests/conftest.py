"""Fixtures for every test: a clock that stands still, the two stores that the shared state may live in."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from core.redis import open_redis
from tests.support.clock import ManualClock
from tests.support.redis_server import BINARY, RedisServer


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def redis_server(tmp_path: Path) -> AsyncIterator[RedisServer]:
    """A real server of this test's own, on a free port."""
    if BINARY is None:
        pytest.skip("redis-server is not installed")
    server = RedisServer(tmp_path)
    await server.start()
    yield server
    await server.stop()


@pytest.fixture(params=["embedded", "server"])
async def redis(request: pytest.FixtureRequest) -> AsyncIterator[Redis]:
    """A client of the embedded store, and one of a real server."""
    url = request.getfixturevalue("redis_server").url if request.param == "server" else None
    client = open_redis(url)
    yield client
    await client.aclose()
