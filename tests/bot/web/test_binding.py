"""The address of the web side: free, in use by this program, in use by another, impossible."""

import asyncio
import socket

import pytest

from bot.web.binding import find_bind_fault, is_own_server
from tests.support.processes.redis_server import free_port


def test_free_port_has_no_fault() -> None:
    port = free_port()
    assert find_bind_fault("127.0.0.1", port) is None
    assert find_bind_fault("127.0.0.1", port) is None  # it was given back


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_port_in_use_is_reported_with_another(host: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert find_bind_fault(host, port) == (
            f"WEB_PORT: port {port} of {host} is in use by another process, for example WEB_PORT={port + 1}"
        )


def test_impossible_host_is_reported() -> None:
    assert find_bind_fault("192.0.2.1", 8080) == (
        "WEB_HOST: 192.0.2.1 cannot be listened on with WEB_PORT=8080 (Cannot assign requested address), "
        "for example WEB_HOST=127.0.0.1"
    )
    assert str(find_bind_fault("no-such-host.invalid", 8080)).startswith("WEB_HOST: no-such-host.invalid cannot")


@pytest.mark.parametrize(
    ("reply", "is_own"),
    [
        (b'HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n{"alive": true}', True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", False),  # another program with such a path
        (b"220 mail.example.org ESMTP\r\n", False),
    ],
)
async def test_own_server_is_known_by_its_health_check(reply: bytes, *, is_own: bool) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1000)
        writer.write(reply)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        assert await asyncio.to_thread(is_own_server, "127.0.0.1", port) is is_own


async def test_nothing_is_no_own_server() -> None:
    assert not is_own_server("127.0.0.1", free_port())
