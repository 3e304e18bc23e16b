"""Redis clients against real and wrong servers: one server, Sentinel, Cluster, the embedded store; error texts."""

import asyncio
import contextlib
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
import redis.asyncio
from redis.asyncio import Redis
from redis.exceptions import RedisClusterException, RedisError

from core.background import cancel_and_wait
from core.clock import SystemClock
from core.config.providers import ProviderKind, ProviderSettings
from core.redis.client import (
    COMMAND_TIMEOUT_S,
    CONNECT_TIMEOUT_S,
    REDIS_ERRORS,
    describe_redis_error,
    encode_credentials,
    open_redis,
    read_message,
    subscribe,
)
from services.llm.routing.admission.concurrency import LoadShedding
from services.llm.routing.state import changes
from services.llm.routing.state.shared_state import SharedRouting
from tests.support.llm_harness import eventually
from tests.support.processes.redis_server import BINARY, RedisServer, free_port


@contextlib.contextmanager
def _running(directory: Path, *arguments: str) -> Iterator[None]:
    if BINARY is None:
        pytest.skip("redis-server is not installed")
    directory.mkdir(exist_ok=True)
    command = [BINARY, *arguments, "--dir", str(directory), "--bind", "127.0.0.1", "--loglevel", "warning"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            yield
        finally:
            process.terminate()


def _until(port: int, *command: str | int, answers: str, password: str | None = None) -> None:
    """Wait until the server answers that. Blocking, for a synchronous fixture outside the event loop."""
    deadline = time.monotonic() + 10
    with redis.Redis(port=port, password=password, decode_responses=True) as client:
        while time.monotonic() < deadline:
            with contextlib.suppress(RedisError):
                if answers in str(client.execute_command(*command)):
                    return
            time.sleep(0.01)
    raise TimeoutError(f"{command} did not answer {answers}")


@pytest.fixture(scope="module")
def sentinel_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A master with a password, monitored by a Sentinel."""
    directory = tmp_path_factory.mktemp("sentinel")
    master, sentinel = free_port(), free_port()
    configuration = directory / "sentinel.conf"
    configuration.write_text(
        f"port {sentinel}\nsentinel monitor stage 127.0.0.1 {master} 1\nsentinel auth-pass stage secret\n"
    )
    with (
        _running(directory / "master", "--port", str(master), "--save", "", "--requirepass", "secret"),
        _running(directory, str(configuration), "--sentinel"),
    ):
        # A sentinel speaks for a master that has not started, until it misses it.
        _until(master, "PING", answers="True", password="secret")
        _until(sentinel, "SENTINEL", "CKQUORUM", "stage", answers="OK")
        yield f"redis+sentinel://:secret@127.0.0.1:{sentinel}/stage/2"


@pytest.fixture(scope="module")
def cluster_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A cluster of one node that serves every slot."""
    directory = tmp_path_factory.mktemp("cluster")
    port, bus = free_port(), free_port()
    cluster = ("--cluster-enabled", "yes", "--cluster-port", str(bus))
    with _running(directory, "--port", str(port), "--save", "", *cluster):
        _until(port, "CLUSTER", "ADDSLOTSRANGE", 0, 16383, answers="OK")
        _until(port, "SET", "{llm}", "ready", answers="True")
        yield f"redis+cluster://127.0.0.1:{port}"


@pytest.fixture(params=["server", "sentinel", "cluster"])
async def server_url(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[str]:
    """The URL of a running server of each kind."""
    if request.param == "server":
        if BINARY is None:
            pytest.skip("redis-server is not installed")
        server = RedisServer(tmp_path)
        await server.start()
        yield server.url
        await server.stop()
        return
    yield request.getfixturevalue(f"{request.param}_url")


async def _round_trip(client: Redis) -> None:
    await client.set("{t}:text", "Grüße", ex=60)
    assert await client.get("{t}:text") == "Grüße"
    assert await client.ping()


async def test_open_redis_without_url_opens_a_store_of_its_own() -> None:
    """Embedded stores are not shared between clients."""
    async with open_redis(None) as client, open_redis(None) as other:
        await _round_trip(client)
        assert await other.get("{t}:text") is None


async def test_embedded_store_ends_a_task_that_is_cancelled_while_its_answer_arrives() -> None:
    """On Python 3.11 the cancellation was lost at three steps of the event loop, and the task went on."""

    async def follow(client: Redis, subscribed: asyncio.Event) -> None:
        async with client.pubsub() as pubsub:
            await subscribe(pubsub, "channel")
            await read_message(pubsub, 1, with_confirmation=True)
            subscribed.set()
            while True:
                await read_message(pubsub, 60)

    async def is_ended_at(steps: int) -> bool:
        async with open_redis(None) as client:
            subscribed = asyncio.Event()
            follower = asyncio.create_task(follow(client, subscribed))
            await subscribed.wait()
            publisher = asyncio.create_task(client.publish("channel", "message"))
            for _ in range(steps):
                await asyncio.sleep(0)
            follower.cancel()
            await publisher
            ended, _ = await asyncio.wait([follower], timeout=0.2)
            await cancel_and_wait(follower)
            return bool(ended)

    assert [steps for steps in range(40) if not await is_ended_at(steps)] == []


async def test_client_decodes_responses_from_each_kind_of_server(server_url: str) -> None:
    async with open_redis(server_url) as client:
        await _round_trip(client)


async def test_shared_routing_works_on_each_kind_of_server(server_url: str) -> None:
    """Reads, optimistic writes, their announcement to another replica, and recovery after a data loss."""
    clock = SystemClock()
    async with open_redis(server_url) as one, open_redis(server_url) as two:
        first, second = SharedRouting(one, "test", clock), SharedRouting(two, "test", clock)
        await first.start()
        await second.start()
        try:
            assert first.connected
            assert second.connected
            await asyncio.sleep(0.1)
            loop = asyncio.get_running_loop()
            began = loop.time()
            first.apply(changes.cooled("a", "HTTP 500", clock.time(), 300, "r1"))
            await eventually(lambda: "a" in second.routing.cooldowns)
            assert loop.time() - began < 1.0

            await asyncio.gather(
                *(replica.commit(changes.cooled(name, "x", clock.time(), 300, "r1"), 5)
                  for name, replica in (("b", first), ("c", second), ("d", first), ("e", second)))
            )  # fmt: skip
            await eventually(lambda: set(first.routing.cooldowns) == set(second.routing.cooldowns) == set("abcde"))
            await first.commit(changes.reset("a", clock.time(), ("a",)), 5)
            await eventually(lambda: set(second.routing.cooldowns) == set("bcde"))

            await one.delete("test:{llm}:routing")
            await first.commit(changes.forced("f", clock.time(), 60), 5)
            await eventually(lambda: first.routing == second.routing and second.routing.force is not None)
            assert set(second.routing.cooldowns) == set("bcde")
            assert first.connected
            assert second.connected
        finally:
            await first.close()
            await second.close()
            await one.delete("test:{llm}:routing")


async def test_load_shedding_works_on_each_kind_of_server(server_url: str) -> None:
    """Slots are taken, refused, awaited and released over two replicas, and affinity is shared."""
    busy = ProviderSettings(id="busy", kind=ProviderKind.OPENAI_COMPATIBLE, models=("m",), max_concurrency=1)
    async with open_redis(server_url) as one, open_redis(server_url) as two:
        first, second = LoadShedding(one, "test", SystemClock()), LoadShedding(two, "test", SystemClock())
        held = await first.limiter.take(busy)
        assert held is not None
        assert await second.limiter.take(busy) is None
        waiting = asyncio.create_task(second.limiter.wait([busy]))
        await asyncio.sleep(0.05)
        held.release()
        async with asyncio.timeout(2):
            passed_on = await waiting
        assert passed_on is not None
        assert await first.limiter.take(busy) is None
        passed_on.release()

        first.affinity.begin("telegram:1", "other")
        await first.close()
        await second.close()
        assert await second.affinity.provider_for("telegram:1") == "other"
        assert await one.zcard("test:{llm}:inflight:busy") == 0


@pytest.mark.parametrize("form", ["redis://{}", "redis+sentinel://{}/stage", "redis+cluster://{}"])
async def test_client_does_not_retry_a_refused_connection(form: str) -> None:
    """The error is raised at once."""
    url = form.format(f"127.0.0.1:{free_port()}")
    client = open_redis(url)
    began = time.monotonic()
    with pytest.raises((RedisError, RedisClusterException)):
        await client.get("x")
    await client.aclose()

    assert time.monotonic() - began < 0.9


async def test_client_gives_up_a_hanging_server_after_one_timeout(redis_server: RedisServer) -> None:
    """A server that stops answering costs the timeout of the command, once."""
    assert redis_server._process is not None
    async with open_redis(redis_server.url) as client:
        await client.ping()
        redis_server._process.send_signal(19)
        began = time.monotonic()
        try:
            with pytest.raises(RedisError):
                await client.get("x")
        finally:
            redis_server._process.send_signal(18)

        assert time.monotonic() - began < COMMAND_TIMEOUT_S + CONNECT_TIMEOUT_S + 0.5


async def test_client_notices_the_connections_that_a_restart_of_the_server_has_closed(
    redis_server: RedisServer,
) -> None:
    """The first commands after a restart work: a connection is looked at before it is used again."""
    async with open_redis(redis_server.url) as client:
        await asyncio.gather(*(client.ping() for _ in range(3)))
        await redis_server.stop()
        await redis_server.start()
        assert await asyncio.gather(*(client.ping() for _ in range(3))) == [True] * 3


async def test_subscribe_to_an_unreachable_cluster_is_an_error_of_redis() -> None:
    client = open_redis(f"redis+cluster://127.0.0.1:{free_port()}")
    async with client.pubsub() as pubsub:
        with pytest.raises(REDIS_ERRORS):
            await subscribe(pubsub, "changes")
    await client.aclose()


URLS: list[tuple[str, dict[str, Any]]] = [
    # a URL, the connection options parsed from it
    ("redis://h:1/3", {"host": "h", "port": 1, "db": 3}),
    ("redis://user:p%40ss@h/0", {"host": "h", "username": "user", "password": "p@ss"}),
    ("rediss://:secret@h:2", {"host": "h", "port": 2, "password": "secret"}),
]


@pytest.mark.parametrize(("url", "expected"), URLS)
async def test_open_redis_parses_the_url_of_a_server(url: str, expected: dict[str, Any]) -> None:
    async with open_redis(url) as client:
        options = client.connection_pool.connection_kwargs
        tls = issubclass(client.connection_pool.connection_class, redis.asyncio.SSLConnection)

    assert expected.items() <= options.items()
    assert tls is url.startswith("rediss:")


@pytest.mark.parametrize("scheme", ["redis", "rediss"])
async def test_open_redis_parses_the_url_of_a_sentinel(scheme: str) -> None:
    """Several sentinels, the service, the database, the password of the data servers, and whether to speak TLS."""
    async with open_redis(f"{scheme}+sentinel://:secret@one:1,two,[::1]:3/stage/4") as client:
        pool: Any = client.connection_pool
        tls = issubclass(pool.connection_class, redis.asyncio.SSLConnection)
        sentinels = [
            tuple(sentinel.connection_pool.connection_kwargs[name] for name in ("host", "port"))
            for sentinel in pool.sentinel_manager.sentinels
        ]

    assert sentinels == [("one", 1), ("two", 26379), ("::1", 3)]
    assert (pool.service_name, pool.connection_kwargs["db"]) == ("stage", 4)
    assert pool.connection_kwargs["password"] == "secret"
    assert tls is (scheme == "rediss")


@pytest.mark.parametrize("scheme", ["redis", "rediss"])
async def test_open_redis_parses_the_url_of_a_cluster(scheme: str) -> None:
    client: Any = open_redis(f"{scheme}+cluster://u:secret@one:1,two")
    nodes = client.nodes_manager.startup_nodes
    options = client.connection_kwargs

    assert set(nodes) == {"one:1", "two:6379"}
    assert (options["username"], options["password"]) == ("u", "secret")
    assert ("ssl" in str(options.get("connection_class", "")).lower()) is (scheme == "rediss")
    await client.aclose()


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
    """Serve a fixed reply to every command, or none; yields host and port."""
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
