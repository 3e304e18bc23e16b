"""Errors of answers that are none, and the reasons of failures in a few words for operators."""

import socket
import ssl
import traceback
from typing import cast

import httpx2
from pydantic import ValidationError
from pydantic_ai.exceptions import (
    ModelAPIError,
    ModelConnectionError,
    ModelHTTPError,
    ModelRequestTimeout,
    UnexpectedModelBehavior,
)
from pydantic_ai.usage import RequestUsage

from core.observability.redaction import mask_secret_forms
from core.transport_errors import describe_connection_error, recognise_connection_error

MAX_MESSAGE_LENGTH = 300
MAX_CODE_LENGTH = 60
"""A provider's error code is one word; a longer text is cut."""


class EmptyAnswer(UnexpectedModelBehavior):
    """An answer without text, tool call or file. It has a `usage` all the same."""

    def __init__(self, message: str, usage: RequestUsage | None = None) -> None:
        super().__init__(message)
        self.usage = usage or RequestUsage()


class AnswerGivenUp(UnexpectedModelBehavior):
    """An answer that its provider reports as unfinished. It has a `usage` all the same."""

    def __init__(self, message: str, usage: RequestUsage | None = None) -> None:
        super().__init__(message)
        self.usage = usage or RequestUsage()


class ModelNotBuilt(Exception):
    """The model of a candidate cannot be built from its settings."""

    def __init__(self, cause: Exception) -> None:
        self.message = f"the model cannot be built ({type(cause).__name__})"
        super().__init__(self.message)


def is_raised_by_adapter(error: BaseException) -> bool:
    """Returns whether a plain Python error was raised while an adapter parsed a provider's response.

    A body without choices surfaces as IndexError, one of the wrong shape as TypeError or AttributeError, one nested
    without end as RecursionError of the JSON parser. The position of the try block cannot tell: `Model.request` maps
    our messages to the wire first, and a bug there (an attachment that an adapter does not expect, for example) would
    put every provider in cooldown. The frames can. Their names are private to pydantic-ai 2.68 and the SDKs; the
    contract test is tests/services/llm/routing/faults/test_outcome_table.py, which sends malformed bodies of each kind
    over HTTP.
    """
    if not isinstance(error, _PARSER_ERRORS):
        return False
    frames = traceback.extract_tb(error.__traceback__)
    if isinstance(error, RecursionError):
        # Nothing of ours parses JSON from outside by this function without expecting the error.
        return any(frame.name == "raw_decode" for frame in frames)
    return any(frame.name.startswith(_PARSER_PREFIXES) or frame.name in _PARSERS for frame in frames)


_PARSER_ERRORS = (
    LookupError, TypeError, AttributeError, ValueError, ValidationError, AssertionError, RecursionError,
)  # fmt: skip
_PARSER_PREFIXES = ("_process_", "_map_usage", "_get_event_iterator", "_validate_")
_PARSERS = frozenset({"__stream__", "_iter_events", "_parse_response", "parse"})


def describe(error: BaseException) -> str:
    """Returns the reason of a failure for operators, without text that may echo the prompt or the key."""
    match error:
        case EmptyAnswer() | AnswerGivenUp() | ModelNotBuilt():
            return error.message
        case ModelRequestTimeout(setting="first_event_timeout"):
            return f"no output within {error.timeout:g} s"
        case ModelRequestTimeout():
            return f"no answer within {error.timeout:g} s"
        case _ if isinstance(error, _OF_CONNECTIONS):
            return _transport_reason(error)
        case ModelAPIError():
            return _api_reason(error)
        case TimeoutError():
            return str(error) or "timed out"
        case UnexpectedModelBehavior() | httpx2.StreamError():
            return "unreadable answer"
        case _:
            name = type(error).__name__
            return f"unreadable answer ({name})" if is_raised_by_adapter(error) else name


def provider_message(error: BaseException) -> str | None:
    """Returns a provider's message about its error, for the author of the refused request; never for the log."""
    body: object = error.body if isinstance(error, ModelAPIError) else None
    for _ in range(2):
        match body:
            case {"message": str(words)} if words.strip():
                return " ".join(mask_secret_forms(words).split())[:MAX_MESSAGE_LENGTH]
            case dict():
                body = cast("dict[str, object]", body).get("error")
            case _:
                return None
    return None


def _api_reason(error: ModelAPIError) -> str:
    code = mask_secret_forms(error.provider_error_code or error.provider_error_type or "")[:MAX_CODE_LENGTH]
    if isinstance(error, ModelHTTPError):
        return f"HTTP {error.status_code}" + (f" ({code})" if code else "")
    if code:
        return f"error in the answer ({code})"
    # The library's own message; its other messages may quote the body.
    return "the stream ended without a finish_reason" if "finish_reason" in error.message else "unreadable answer"


_OF_CONNECTIONS = (ModelConnectionError, httpx2.TransportError, ConnectionError, ssl.SSLError, socket.gaierror)


_PHASE_REASONS: dict[str | None, str] = {"connect": "cannot connect", "pool": "too many requests in flight"}


def _transport_reason(error: BaseException) -> str:
    reason = recognise_connection_error(error)
    if reason is not None or not isinstance(error, ModelConnectionError):
        return reason or describe_connection_error(error)
    return _PHASE_REASONS.get(error.phase, "connection lost")
