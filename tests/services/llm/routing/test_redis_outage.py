"""Redis stops, hangs, comes back or comes back empty: requests are not affected."""

import asyncio
import os
import shutil
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from core.redis.client import open_redis
from tests.support.fake_llm import server as llm
from tests.support.fake_llm.server import LLMServer
from tests.support.llm_harness import LLMHarness, RealSleeps, answered_by, bench, eventually, provider
from tests.support.processes.redis_server import RedisServer, free_port

pytestmark = pytest.mark.integration

UNNOTICED_S = 0.9
"""Time limit of a request on a busy machine: less than one Redis command that runs into its timeout."""


@dataclass(slots=True)
class ReplicaPair:
    """Two replicas that share a clock, a Redis and three providers."""

    servers: list[LLMServer]
    clock: RealSleeps
    one: LLMHarness
    two: LLMHarness

    def cut_off(self) -> bool:
        """True once both have noticed."""
        return not (self.one.shared.connected or self.two.shared.connected)

    def agree(self) -> bool:
        """True once both are connected and know the same."""
        one, two = self.one.shared, self.two.shared
        return one.connected and two.connected and one.routing == two.routing


@pytest.fixture
async def pair(redis_server: RedisServer) -> AsyncIterator[ReplicaPair]:
    async with AsyncExitStack() as stack:
        servers = [await stack.enter_async_context(LLMServer()) for _ in range(3)]
        names = ("first", "second", "third")
        providers = [provider(name, server.url) for name, server in zip(names, servers, strict=True)]
        clock = RealSleeps()
        clients = [await stack.enter_async_context(open_redis(redis_server.url)) for _ in range(2)]
        one, two = [await stack.enter_async_context(bench(redis, providers, clock)) for redis in clients]
        yield ReplicaPair(servers, clock, one, two)


async def asked(replica: LLMHarness) -> str:
    """The provider that answers now; a request may take no longer than with Redis."""
    async with asyncio.timeout(UNNOTICED_S):
        return answered_by(await replica.ask(streamed=True))


@contextmanager
def frozen(server: RedisServer) -> Iterator[None]:
    """The server takes connections and says nothing: the kernel accepts for it."""
    assert server._process is not None
    os.kill(server._process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(server._process.pid, signal.SIGCONT)


@pytest.mark.parametrize("wiped", [False, True], ids=["with its data", "without its data"])
async def test_restart_merges_the_changes_of_both_replicas(
    pair: ReplicaPair, redis_server: RedisServer, tmp_path: Path, *, wiped: bool
) -> None:
    """Failovers continue on the local copies; afterwards each replica has the other's changes."""
    pair.servers[2].script(llm.status(401))
    await pair.one.ask(streamed=True, choice="third")
    assert await asked(pair.one) == "first"
    await eventually(pair.agree)

    await redis_server.stop()
    pair.servers[0].script(llm.status(529))
    assert [await asked(pair.one) for _ in range(3)] == ["second"] * 3
    await pair.two.fallback.force_provider("second", 600)
    assert await asked(pair.two) == "second"
    assert pair.one.fallback.get_provider_status().shared is False

    if wiped:
        shutil.rmtree(tmp_path / "appendonlydir")
    await redis_server.start()
    await eventually(pair.agree)

    for replica in (pair.one, pair.two):
        assert replica.cooling() == {"first": 300, "third": 1800}
        assert replica.fallback.get_provider_status().forced == "second"
        assert replica.fallback.get_provider_status().shared is True


async def test_newer_force_wins_after_the_outage(pair: ReplicaPair, redis_server: RedisServer) -> None:
    """Two admins at two disconnected replicas, in either order of reconnection."""
    await eventually(pair.agree)
    await redis_server.stop()
    await eventually(pair.cut_off)
    await pair.one.fallback.force_provider("second", 600)
    pair.clock.shift(30)
    await pair.two.fallback.force_provider("third", 600)

    await redis_server.start()
    await eventually(pair.agree)

    assert pair.one.fallback.get_provider_status().forced == "third"


async def test_later_end_of_a_cooldown_wins_after_the_outage(pair: ReplicaPair, redis_server: RedisServer) -> None:
    await eventually(pair.agree)
    await redis_server.stop()
    await eventually(pair.cut_off)
    await pair.one.fallback.control.cool_down("first", 900, "4711")
    await pair.two.fallback.control.cool_down("first", 60, "4712")

    await redis_server.start()
    await eventually(pair.agree)

    assert pair.two.cooling() == {"first": 900}


async def test_cleared_force_is_not_revived(pair: ReplicaPair, redis_server: RedisServer) -> None:
    """One replica is disconnected alone while an admin clears the force at the other."""
    await pair.one.fallback.force_provider("third", 600)
    await eventually(pair.agree)
    pair.two.shared._mark_lost(ConnectionError("only this one"))

    await pair.one.fallback.clear_cache()
    await eventually(pair.agree)
    await pair.two.fallback.control.cool_down("first", 60, "4711")
    await eventually(pair.agree)

    assert pair.one.fallback.get_provider_status().forced is None


async def test_unresponsive_redis_delays_nothing(pair: ReplicaPair, redis_server: RedisServer) -> None:
    """Neither requests nor a failover, a probe or an operator's act; afterwards the replicas agree again."""
    assert await asked(pair.one) == "first"
    await eventually(pair.agree)
    with frozen(redis_server):
        assert [await asked(pair.one) for _ in range(3)] == ["first"] * 3
        pair.servers[0].script(llm.status(529))
        assert await asked(pair.one) == "second"
        pair.clock.shift(300)
        # Another replica may be probing, so this one does not until it knows that it is alone.
        assert await asked(pair.one) == "second"
        async with asyncio.timeout(UNNOTICED_S):
            await pair.two.fallback.force_provider("third", 600)
        assert await asked(pair.two) == "third"
        await eventually(lambda: not pair.one.shared.connected)
        assert await asked(pair.one) == "first"

    await eventually(lambda: pair.agree() and pair.one.fallback.get_provider_status().forced == "third")


async def test_start_without_redis(tmp_path: Path) -> None:
    """The service works at once; when a server appears, the changes since are shared."""
    server = RedisServer(tmp_path)
    async with LLMServer() as first, LLMServer() as second, open_redis(server.url) as redis:
        providers = [provider("first", first.url), provider("second", second.url)]
        first.default = llm.status(529)
        async with bench(redis, providers, RealSleeps()) as replica:
            assert await asked(replica) == "second"
            await server.start()
            try:
                await eventually(lambda: replica.shared.connected)
                assert "cooldown:first" in await redis.hkeys("test:{llm}:routing")
            finally:
                await server.stop()


async def test_start_with_an_unresponsive_redis() -> None:
    """It delays the start by its timeout, and no request."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", free_port()))
        listener.listen()
        url = f"redis://127.0.0.1:{listener.getsockname()[1]}"
        async with LLMServer() as first, open_redis(url) as redis:
            loop = asyncio.get_running_loop()
            began = loop.time()
            async with bench(redis, [provider("first", first.url)], RealSleeps()) as replica:
                assert loop.time() - began < 4
                assert await asked(replica) == "first"
                assert not replica.shared.connected
