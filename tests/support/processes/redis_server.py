"""A real `redis-server` on a free port, which a test may stop and restart."""

import asyncio
import contextlib
import shutil
import socket
from pathlib import Path

import redis.asyncio
from redis.exceptions import RedisError

BINARY = shutil.which("redis-server")


def free_port() -> int:
    """Return an unused TCP port on loopback."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class RedisServer:
    """A server with its data in `directory`; `stop` and `start` keep port and data."""

    def __init__(self, directory: Path) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._directory = directory
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        if BINARY is None:
            raise RuntimeError("redis-server is not installed")
        self._process = await asyncio.create_subprocess_exec(
            BINARY, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self._directory),
            "--save", "", "--appendonly", "yes", "--appendfsync", "always", "--loglevel", "warning",
            stdout=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        client = redis.asyncio.from_url(self.url)
        try:
            async with asyncio.timeout(10):
                while True:
                    with contextlib.suppress(RedisError):
                        await client.ping()
                        return
                    await asyncio.sleep(0.01)
        finally:
            await client.aclose()

    async def configure(self, name: str, value: str) -> None:
        """Change a setting until the next start."""
        client = redis.asyncio.from_url(self.url)
        await client.config_set(name, value)
        await client.aclose()

    async def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            await self._process.wait()
            self._process = None
