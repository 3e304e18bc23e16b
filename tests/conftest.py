"""Fixtures for every test: a manual clock, Redis as the embedded store and as a server, daemons as processes."""

import asyncio
import functools
import os
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from redis.asyncio import Redis

from bot.event_loop import new_event_loop
from bot.telegram.api.deferred_types import import_aiogram
from core.redis.client import open_redis
from tests.support.clock import ManualClock
from tests.support.processes.fork_server import ForkServer
from tests.support.processes.redis_server import BINARY, RedisServer

# As the daemon imports it, and before any test does.
import_aiogram()

# Available to all tests; pytest accepts this only in the top-level conftest.
pytest_plugins = ["tests.support.databases", "tests.support.fake_llm.fixtures"]

SERVERS = frozenset(
    {
        "database", "database_url", "file", "first", "fork_server", "migrated", "migrated_postgres_url", "postgres",
        "postgres_url", "queue", "redis_server", "second", "server", "server_url",
    }
)  # fmt: skip
"""Fixtures that start a server on loopback or open a database."""


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run the tests on the event loop of the bot."""
    return {"uvloop": _new_event_loop}


def _new_event_loop() -> asyncio.AbstractEventLoop:
    loop = new_event_loop()
    loop.set_exception_handler(_end_hanging_test)
    return loop


def _end_hanging_test(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Cancel the test that has timed out.

    The timeout fails in a signal handler, whose error uvloop hands on to here: the test hung for ever.
    """
    if isinstance(context.get("exception"), pytest.fail.Exception):
        for task in asyncio.all_tasks(loop):
            task.cancel("timeout")
    loop.default_exception_handler(context)


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Use two workers more than there are cores: two thirds of a test's time are waits for a process or a deadline.

    The unit tests alone wait for nothing.
    """
    are_units = config.getoption("markexpr") == "not integration"
    return len(os.sched_getaffinity(0)) + (0 if are_units else 2)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Do not import modules without a unit test for `make check-fast`: that takes half of the time of collecting."""
    is_left_out = (
        config.getoption("markexpr") == "not integration"
        and collection_path.suffix == ".py"
        and "\npytestmark = pytest.mark.integration\n" in collection_path.read_text(encoding="utf-8")
    )
    return True if is_left_out else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests that use a server or a database as `integration`; `make check-fast` leaves them out."""
    for item in items:
        if isinstance(item, pytest.Function) and _uses_server(item):
            item.add_marker(pytest.mark.integration)


def _uses_server(item: pytest.Function) -> bool:
    if not SERVERS.isdisjoint(item.fixturenames):
        return True
    callspec = getattr(item, "callspec", None)
    return callspec is not None and callspec.params.get("redis") == "server"


@pytest.fixture(scope="session", autouse=True)
def _certificates() -> Iterator[None]:
    """Load the certificate authorities once: each bot and each set of providers takes 28 ms of CPU for it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ssl, "create_default_context", functools.cache(ssl.create_default_context))
        patch.setattr(httpx2, "create_ssl_context", functools.cache(httpx2.create_ssl_context))
        yield


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(scope="session")
def fork_server() -> Iterator[ForkServer]:
    """Forks daemons; imports their modules once per session."""
    server = ForkServer()
    yield server
    server.close()


@asynccontextmanager
async def _running(directory: Path) -> AsyncIterator[RedisServer]:
    if BINARY is None:
        pytest.skip("redis-server is not installed")
    server = RedisServer(directory)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


@pytest.fixture
async def redis_server(tmp_path: Path) -> AsyncIterator[RedisServer]:
    """A Redis server for this test, on a free port."""
    async with _running(tmp_path) as server:
        yield server


@pytest.fixture
async def embedded_redis() -> AsyncIterator[Redis]:
    """A client of the embedded store."""
    async with open_redis(None) as client:
        yield client


@pytest.fixture(params=["embedded", "server"])
async def redis(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Redis]:
    """A client of the embedded store, then one of a real server."""
    async with AsyncExitStack() as stack:
        url: str | None = None
        if request.param == "server":
            url = (await stack.enter_async_context(_running(tmp_path))).url
        client = open_redis(url)
        stack.push_async_callback(client.aclose)
        yield client
