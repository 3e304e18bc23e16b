"""The two stores that replicas may share, each with a connection per replica that a test can cut."""

import asyncio
import copy
from typing import Protocol

from fakeredis import FakeAsyncRedis, FakeServer
from redis.asyncio import Redis

from core.redis.client import open_redis
from services.llm.routing.state.shared_state import SyncTiming
from tests.support.clock import ManualClock
from tests.support.processes.tcp_proxy import TCPProxy


class SteppedClock(ManualClock):
    """A replica's clock: pauses before a retry take no time, pauses before a reconnection end when Redis is back."""

    def __init__(self) -> None:
        super().__init__()
        self.reachable = asyncio.Event()
        self.reachable.set()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0)
        if seconds >= SyncTiming().reconnect_s:
            await self.reachable.wait()


class Store(Protocol):
    """The shared store and the connections to it."""

    prefix: str

    async def open(self) -> Redis:
        """Return a client that is never disconnected."""
        ...

    async def client(self, replica: int) -> Redis: ...
    async def cut(self, replica: int) -> None: ...
    async def mend(self, replica: int) -> None: ...
    async def close(self) -> None: ...


class Embedded:
    """The embedded store; a replica's connection is a flag over common data."""

    def __init__(self) -> None:
        self.prefix = "test"
        self._server = FakeServer()
        self._lines: dict[int, FakeServer] = {}

    async def open(self) -> Redis:
        return FakeAsyncRedis(server=self._server, decode_responses=True)

    async def client(self, replica: int) -> Redis:
        if replica not in self._lines:
            self._lines[replica] = copy.copy(self._server)
        return FakeAsyncRedis(server=self._lines[replica], decode_responses=True)

    async def cut(self, replica: int) -> None:
        self._lines[replica].connected = False

    async def mend(self, replica: int) -> None:
        self._lines[replica].connected = True

    async def close(self) -> None:
        """Do nothing: nothing is open."""


class Server:
    """A real server behind one proxy per replica."""

    def __init__(self, port: int) -> None:
        self.prefix = "test"
        self._port = port
        self._lines: dict[int, TCPProxy] = {}

    async def open(self) -> Redis:
        redis = open_redis(f"redis://127.0.0.1:{self._port}/0")
        await redis.flushall()
        return redis

    async def client(self, replica: int) -> Redis:
        if replica not in self._lines:
            self._lines[replica] = TCPProxy(self._port)
            await self._lines[replica].mend()
        return open_redis(self._lines[replica].url)

    async def cut(self, replica: int) -> None:
        await self._lines[replica].cut()

    async def mend(self, replica: int) -> None:
        await self._lines[replica].mend()

    async def close(self) -> None:
        for line in self._lines.values():
            await line.cut()
