"""Why Redis does not answer, in one line: errors of the client against real and wrong servers."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from core.redis.client import REDIS_ERRORS, encode_credentials, open_redis
from core.redis.errors import describe_redis_error
from tests.support.processes.redis_server import RedisServer, free_port

Reply = Callable[[asyncio.StreamWriter], Awaitable[None]]


async def ping(url: str) -> str:
    """Return the reason why the server at the URL does not answer."""
    client = open_redis(url)
    try:
        with pytest.raises(REDIS_ERRORS) as caught:
            await client.ping()
        return describe_redis_error(caught.value, url)
    finally:
        await client.aclose()


@asynccontextmanager
async def serving(reply: bytes | None) -> AsyncIterator[str]:
    """Serve a fixed reply to whatever is asked, or nothing; yields host and port."""
    ended = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        if reply is None:
            await ended.wait()
        else:
            writer.write(reply)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        ended.set()
        server.close()


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("redis://:bad@{}", "it does not accept the user name or password"),
        ("redis://user:bad@{}", "it does not accept the user name or password"),
        ("redis://{}", "it wants a password, as in redis://:password@host:6379/0"),
        ("redis+cluster://:a-secret@{}", "it is no cluster: begin the URL with redis://"),
        ("redis+cluster://:bad@{}", "it does not accept the user name or password"),
        ("redis+sentinel://{}", "no sentinel that answers knows the master"),
        ("redis://:a-secret@{}/99", "it has no database of that number"),
        ("rediss://:a-secret@{}", "no connection in time; if it does not speak TLS, begin the URL with redis://"),
    ],
)
async def test_reason_of_a_real_server(redis_server: RedisServer, url: str, reason: str) -> None:
    await redis_server.configure("requirepass", "a-secret")
    assert await ping(url.format(f"127.0.0.1:{redis_server.port}")) == reason


async def test_reason_of_a_sentinel_url_without_a_sentinel(redis_server: RedisServer) -> None:
    assert await ping(f"redis+sentinel://127.0.0.1:{redis_server.port}") == (
        "it is no sentinel: begin the URL with redis://"
    )


async def test_reason_of_an_unreachable_server() -> None:
    assert await ping(f"redis://:secret@127.0.0.1:{free_port()}") == "connection refused"
    assert await ping("redis://:secret@no-such-host.invalid") == "host not found"


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "no Redis server answers at this address"),  # a web server
        (b"E\x00\x00\x00\x08SFATAL\x00", "no Redis server answers at this address"),  # PostgreSQL
        (b"", "it closes the connection; if it wants TLS, begin the URL with rediss://"),
        (None, "no answer in time"),
        (b"-LOADING Redis is loading the dataset in memory\r\n", "it is loading its data"),
    ],
)
async def test_reason_of_another_server(reply: bytes | None, reason: str) -> None:
    async with serving(reply) as address:
        assert await ping(f"redis://{address}") == reason


async def test_password_may_hold_the_delimiters_of_a_url(redis_server: RedisServer) -> None:
    """They are encoded on the way to the client, whose parser takes them for the host's."""
    word = "p@ss/w:rd#%"
    await redis_server.configure("requirepass", word)
    client = open_redis(f"redis://:{word}@127.0.0.1:{redis_server.port}/0")
    assert await client.ping()
    await client.aclose()


@pytest.mark.parametrize(
    ("url", "encoded"),
    [
        ("redis://h:1/0", "redis://h:1/0"),
        ("redis://:p%40ss@h/0", "redis://:p%40ss@h/0"),  # encoded already
        ("redis://u:a@b/c@h/0?x=1", "redis://u:a%40b%2Fc@h/0?x=1"),
        ("redis://h/0?client_name=a@b", "redis://h/0?client_name=a@b"),  # an @ that ends no password
        ("redis://:100%@h", "redis://:100%25@h"),
    ],
)
def test_encode_credentials(url: str, encoded: str) -> None:
    assert encode_credentials(url) == encoded
