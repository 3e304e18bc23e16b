"""Clients that send one byte a second hold connections of the web side, not the bot."""

import asyncio
import contextlib
import time
from pathlib import Path

import pytest

from bot.web.server import WebTiming
from tests.adversarial.attack import PATIENCE_S, Attack
from tests.support.processes.fork_server import ForkServer
from tests.support.processes.redis_server import free_port
from tests.support.web_client import WebClient

CLIENTS = 300
TOKEN = "a-long-random-word-of-the-operator"
MARGIN_S = 10.0
HEADS = (
    b"",
    b"GET /healthz HTTP/1.1\r\nX: ",
    b"POST /telegram HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n",
)


async def drip(port: int, head: bytes) -> float:
    """Sends a beginning, then a byte a second; returns the seconds until the server ends that."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    began = time.monotonic()
    with contextlib.suppress(ConnectionError):
        writer.write(head)
        end = asyncio.create_task(reader.read())
        while not end.done():
            writer.write(b"x")
            await asyncio.wait({end}, timeout=1)
        await end
    writer.close()
    return time.monotonic() - began


@pytest.mark.timeout(120)
async def test_slow_clients_end_and_others_are_served_meanwhile(fork_server: ForkServer, tmp_path: Path) -> None:
    port = free_port()
    async with Attack(fork_server, tmp_path, WEB_PORT=str(port), WEB_TOKEN=TOKEN) as attack:
        await attack.start()
        client = WebClient(port, TOKEN)
        clients = [asyncio.create_task(drip(port, HEADS[number % len(HEADS)])) for number in range(CLIENTS)]
        await asyncio.sleep(2)
        for _ in range(3):
            assert await attack.bystander_waits_s(timeout_s=20) < PATIENCE_S
            began = time.monotonic()
            assert (await client.get("/healthz")).status == 200
            assert time.monotonic() - began < PATIENCE_S
        assert max(await asyncio.gather(*clients)) < WebTiming().head_s + MARGIN_S
