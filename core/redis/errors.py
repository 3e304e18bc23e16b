"""Words the errors of a Redis client in one line for operators, without the address and its password."""

import socket
import ssl
from collections.abc import Iterator

from redis.asyncio.sentinel import MasterNotFoundError
from redis.exceptions import AuthenticationError, InvalidResponse
from redis.exceptions import TimeoutError as RedisTimeoutError

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
    """Return the reason why Redis does not answer.

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
