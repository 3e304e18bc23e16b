"""The two stores that replicas may share, each with a line to every replica that a test cuts and mends."""

import asyncio
import copy
from typing import Protocol

from fakeredis import FakeAsyncRedis, FakeServer
from redis.asyncio import Redis

from core.redis.client import open_redis
from services.llm.routing.shared_state import SyncTiming
from tests.support.clock import ManualClock
from tests.support.processes.tcp_proxy import TCPProxy


class SteppedClock(ManualClock):
    """A replica's own: pauses before a retry take no time, those before another look for Redis end when it is back."""

    def __init__(self) -> None:
        super().__init__()
        self.reachable = asyncio.Event()
        self.reachable.set()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0)
        if seconds >= SyncTiming().reconnect_s:
            await self.reachable.wait()


class Store(Protocol):
    """Where the replicas keep what they share, and the lines to it."""

    prefix: str

    async def open(self) -> Redis:
        """A client that never loses it."""
        ...

    async def client(self, replica: int) -> Redis: ...
    async def cut(self, replica: int) -> None: ...
    async def mend(self, replica: int) -> None: ...
    async def close(self) -> None: ...


class Embedded:
    """The store in this process; a replica's line is a flag of its own over data that all have in common."""

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
        """Nothing is open."""


class Server:
    """A real server behind a line for each replica."""

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
