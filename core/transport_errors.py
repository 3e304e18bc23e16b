"""Classifies failed connections into a few words for operators.

Providers, Telegram, MCP servers and the start-up check share these words, so that one fault has one name everywhere.
"""

import socket
import ssl
from collections.abc import Iterator
from typing import Final, cast

import httpx2

_REFUSED: Final = "connection refused"
_RESET: Final = "connection reset"
_UNKNOWN_HOST: Final = "host not found"
_CUT: Final = "connection cut"
_TLS_FAILED: Final = "TLS failed"

_PHRASES: Final = (
    ("connection refused", _REFUSED),
    ("all connection attempts failed", _REFUSED),
    ("name or service not known", _UNKNOWN_HOST),
    ("nodename nor servname", _UNKNOWN_HOST),
    ("temporary failure in name resolution", _UNKNOWN_HOST),
    ("no address associated", _UNKNOWN_HOST),
    ("certificate", "TLS certificate not accepted"),
    # Only in OpenSSL's form: aiohttp mentions `ssl:` in the message of every failed connection.
    ("[ssl", _TLS_FAILED),
    ("(_ssl.c", _TLS_FAILED),
    ("reset by peer", _RESET),
    ("server disconnected", "connection closed without an answer"),
    ("incomplete chunked read", _CUT),
    ("peer closed connection", _CUT),
)
"""Phrases in the messages of errors with a type that says too little, in lower case."""


class ResponseTooLarge(httpx2.ReadError):
    """A response of a provider exceeds a bound of its size. The message names the bound."""


def is_too_large(error: BaseException) -> bool:
    """Returns whether an error, or one of its causes, is that a response exceeds a bound."""
    return any(isinstance(cause, ResponseTooLarge) for cause in _iter_causes(error))


def recognise_connection_error(error: BaseException) -> str | None:
    """Returns the reason of a failed connection from the error or its causes, or None if none is recognised."""
    return next(filter(None, map(_recognise, _iter_causes(error))), None)


def describe_connection_error(error: BaseException) -> str:
    """Returns the reason of a failed connection."""
    reason = recognise_connection_error(error)
    if reason is not None:
        return reason
    match error:
        case httpx2.TimeoutException():
            return "timed out"
        case httpx2.InvalidURL() | httpx2.UnsupportedProtocol():
            return "the base URL is not a web address"
        case httpx2.ConnectError():
            return "cannot connect"
        case httpx2.TransportError() | OSError():
            return "connection lost"
        case _:
            return f"cannot be reached ({type(error).__name__})"


def _recognise(error: BaseException) -> str | None:
    match error:
        case ResponseTooLarge():
            return str(error)
        case ConnectionRefusedError():
            return _REFUSED
        case ConnectionResetError():
            return _RESET
        case socket.gaierror():
            return _UNKNOWN_HOST
        case _:
            message = str(error).lower()
            reason = next((reason for phrase, reason in _PHRASES if phrase in message), None)
            return _TLS_FAILED if reason is None and isinstance(error, ssl.SSLError) else reason


def _iter_causes(error: BaseException) -> Iterator[BaseException]:
    """Yields the error and everything that led to it, the outermost first."""
    pending: list[BaseException] = [error]
    visited: set[int] = set()
    while pending:
        current = pending.pop(0)
        if id(current) in visited:
            continue
        visited.add(id(current))
        yield current
        if isinstance(current, BaseExceptionGroup):
            pending.extend(cast("BaseExceptionGroup[BaseException]", current).exceptions)
        pending.extend(cause for cause in (current.__cause__, current.__context__) if cause is not None)
