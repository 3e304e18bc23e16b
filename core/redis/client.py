"""Opens Redis clients: one server, Sentinel, Cluster, or the embedded store if no server is configured.

Their errors are worded in one line for operators, without the address and its password.
"""

import re
import socket
import ssl
from collections.abc import Iterator
from typing import Any, cast
from urllib.parse import SplitResult, quote, unquote, urlsplit

import redis.asyncio as redis
from redis.asyncio.client import PubSub
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import MasterNotFoundError, Sentinel, SentinelConnectionPool
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, InvalidResponse, RedisClusterException, RedisError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.maint_notifications import MaintNotificationsConfig

REDIS_ERRORS = (RedisError, RedisClusterException, OSError, TimeoutError)
"""Raised by a client if its server is unreachable, slow or refuses the command."""

CONNECT_TIMEOUT_S = 1.0
COMMAND_TIMEOUT_S = 1.0
"""redis-py's defaults wait 2.9 s for a server that refuses and over 30 s for a black hole."""
POOL_SIZE = 50
POOL_WAIT_S = 1.0
HEALTH_CHECK_S = 15
_ENCODED = re.compile(r"([^%]|%[0-9A-Fa-f]{2})*")
DEFAULT_PORTS = {"sentinel": 26379, "cluster": 6379}


def open_redis(url: str | None) -> redis.Redis:
    """Returns a client that decodes responses to strings, fails fast and does not retry.

    Args:
        url: `redis://`, `rediss://`, `redis+sentinel://host:port,host:port/service/db`,
            `redis+cluster://host:port,host:port`, or None for the embedded store. A password in the URL is that of
            the data servers.
    """
    if url is None:
        from core.redis.embedded import open_embedded

        return open_embedded()
    options: dict[str, Any] = {  # Any: keyword arguments of several constructors
        # With them redis-py takes a connection from the pool without looking whether the server has closed it.
        "maint_notifications_config": MaintNotificationsConfig(enabled=False),
        "decode_responses": True,
        # A value that is not UTF-8 must not fail a command that reads others too.
        "encoding_errors": "replace",
        "socket_timeout": COMMAND_TIMEOUT_S,
        "socket_connect_timeout": CONNECT_TIMEOUT_S,
        "health_check_interval": HEALTH_CHECK_S,
        "retry": Retry(NoBackoff(), 0),
    }
    url = encode_credentials(url)
    parts = urlsplit(url)
    match parts.scheme.partition("+"):
        case (_, "+", "sentinel"):
            return _open_sentinel(parts, options)
        case (_, "+", "cluster"):
            return _open_cluster(parts, options)
        case _:
            pool = redis.BlockingConnectionPool.from_url(url, max_connections=POOL_SIZE, timeout=POOL_WAIT_S, **options)
            return redis.Redis.from_pool(pool)


async def subscribe(pubsub: PubSub, channel: str) -> None:
    """Subscribes to a channel.

    Raises:
        RedisError: the server is unreachable or refuses it.
    """
    try:
        await pubsub.subscribe(channel)
    except KeyError:
        # redis-py looks for the channel in the slots of a cluster that it has not reached yet.
        raise RedisConnectionError("the cluster has not answered yet") from None


async def read_message(pubsub: PubSub, timeout_s: float, *, with_confirmation: bool = False) -> dict[str, Any] | None:
    """Returns the next message of a subscription; None if none arrives in time.

    Args:
        with_confirmation: returns the confirmation of the subscription as well.
    """
    # The types of a message's values are not declared.
    return cast(
        "dict[str, Any] | None",
        await pubsub.get_message(ignore_subscribe_messages=not with_confirmation, timeout=timeout_s),
    )


def encode_credentials(url: str) -> str:
    """Returns the URL with the delimiters in its user name and password percent-encoded, which URLs must not hold."""
    scheme, _, rest = url.partition("://")
    before_query, question_mark, query = rest.partition("?")
    if "@" not in before_query and "/" not in before_query:
        # The ? belongs to the password.
        before_query, question_mark, query = rest, "", ""
    credentials, at, location = before_query.rpartition("@")
    user, colon, password = credentials.partition(":")
    return f"{scheme}://{_encode(user)}{colon}{_encode(password)}{at}{location}{question_mark}{query}"


def _encode(text: str) -> str:
    return quote(text, safe="%!$&'()*+,;=~" if _ENCODED.fullmatch(text) else "!$&'()*+,;=~")


def _open_sentinel(parts: SplitResult, options: dict[str, Any]) -> redis.Redis:
    service, _, database = parts.path.strip("/").partition("/")
    timeouts = {name: options[name] for name in ("socket_timeout", "socket_connect_timeout", "retry")}
    sentinel = Sentinel(_parse_nodes(parts, DEFAULT_PORTS["sentinel"]), sentinel_kwargs=timeouts)
    return sentinel.master_for(
        service or "mymaster",
        connection_pool_class=_MasterPool,
        db=int(database or 0),
        **_credentials(parts),
        **_tls(parts),
        **options,
    )


class _MasterPool(SentinelConnectionPool):
    """Connections to the master. Closes those to the sentinels as well, which redis-py leaves open."""

    async def aclose(self) -> None:
        manager: Sentinel = self.sentinel_manager
        try:
            await super().aclose()
        finally:
            await manager.aclose()


def _open_cluster(parts: SplitResult, options: dict[str, Any]) -> redis.Redis:
    nodes = [ClusterNode(host, port) for host, port in _parse_nodes(parts, DEFAULT_PORTS["cluster"])]
    cluster: Any = redis.RedisCluster(startup_nodes=nodes, **_credentials(parts), **_tls(parts), **options)
    return cluster  # Any: the cluster client has the commands, pipeline and pubsub of Redis without being its subclass


def _parse_nodes(parts: SplitResult, default_port: int) -> list[tuple[str, int]]:
    hosts = parts.netloc.rpartition("@")[2].split(",")
    nodes = [urlsplit(f"//{host}") for host in hosts]
    return [(node.hostname or "localhost", node.port or default_port) for node in nodes]


def _credentials(parts: SplitResult) -> dict[str, str]:
    user, _, password = parts.netloc.rpartition("@")[0].partition(":")
    given = {"username": unquote(user), "password": unquote(password)}
    return {name: value for name, value in given.items() if value}


def _tls(parts: SplitResult) -> dict[str, bool]:
    return {"ssl": True} if parts.scheme.startswith("rediss") else {}


_PHRASES: tuple[tuple[str, str], ...] = (
    ("authentication required", "it wants a password, as in redis://:password@host:6379/0"),
    ("noauth", "it wants a password, as in redis://:password@host:6379/0"),
    ("without any password configured", "it has no password: leave it out of the URL"),
    ("wrongpass", "it does not accept the user name or password"),
    ("invalid username-password", "it does not accept the user name or password"),
    ("invalid password", "it does not accept the user name or password"),
    ("cluster mode is not enabled", "it is no cluster: begin the URL with redis://"),
    ("unknown command 'sentinel'", "it is no sentinel: begin the URL with redis://"),
    ("db index is out of range", "it has no database of that number"),
    ("certificate", "its TLS certificate is not accepted"),
    ("wrong_version_number", "it does not speak TLS: begin the URL with redis://"),
    ("[ssl", "TLS failed"),
    ("name or service not known", "host not found"),
    ("temporary failure in name resolution", "host not found"),
    ("nodename nor servname", "host not found"),
    ("connect call failed", "connection refused"),
    ("connection refused", "connection refused"),
    ("reset by peer", "connection reset"),
    ("connection closed by server", "it closes the connection; if it wants TLS, begin the URL with rediss://"),
    ("loading the dataset", "it is loading its data"),
    ("noperm", "its user may not do this"),
    ("no permission", "its user may not do this"),
    ("read only replica", "it is a replica that takes no writes"),
    ("max number of clients", "it has no free connection"),
    ("oom command not allowed", "its memory is full"),
    ("timeout connecting", "no connection in time"),
)
"""By words of the message, in lower case; the first match counts."""


def describe_redis_error(error: BaseException, url: str | None = None) -> str:
    """Returns the reason why Redis does not answer.

    Args:
        error: one of `REDIS_ERRORS`.
        url: the configured URL, which tells a server that does not speak TLS from a silent one.
    """
    for cause in _iter_causes(error):
        reason = _recognise(cause)
        if reason is None:
            continue
        is_tls = url is not None and url.startswith("rediss")
        if is_tls and isinstance(cause, RedisTimeoutError | TimeoutError):
            return "no connection in time; if it does not speak TLS, begin the URL with redis://"
        return reason
    return f"it does not answer ({type(error).__name__})"


def _recognise(error: BaseException) -> str | None:
    message = str(error).lower()
    reason = next((reason for words, reason in _PHRASES if words in message), None)
    match error:
        case MasterNotFoundError():
            # The library's message prints its connections with all their parameters.
            return "no sentinel that answers knows the master"
        case InvalidResponse():
            return "no Redis server answers at this address"
        case ConnectionRefusedError():
            return "connection refused"
        case socket.gaierror():
            return "host not found"
        case AuthenticationError():
            return reason or "it does not accept the user name or password"
        case ssl.SSLError():
            return reason or "TLS failed"
        case RedisTimeoutError() | TimeoutError():
            return reason or "no answer in time"
        case _:
            return reason


def _iter_causes(error: BaseException) -> Iterator[BaseException]:
    current: BaseException | None = error
    visited: set[int] = set()
    while current is not None and id(current) not in visited:
        visited.add(id(current))
        yield current
        current = current.__cause__ or current.__context__
