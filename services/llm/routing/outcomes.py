"""Classifies failed requests: the fault, whether another candidate may help, and the cooldown.

Streamed and plain requests share this table, so that they cannot differ.
"""

import json
import socket
import ssl
import traceback
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import cast

import httpx2
from pydantic import ValidationError
from pydantic_ai.exceptions import (
    ConcurrencyLimitExceeded,
    ContentFilterError,
    ModelAPIError,
    ModelAuthenticationError,
    ModelConnectionError,
    ModelContextWindowExceededError,
    ModelHTTPError,
    ModelNotFoundError,
    ModelOverloadedError,
    ModelQuotaExceededError,
    ModelRateLimitError,
    ModelRequestTimeout,
    ModelTimeoutError,
    UnexpectedModelBehavior,
)
from pydantic_ai.usage import RequestUsage

from core.observability.redaction import mask_secret_forms
from services.llm.transport_errors import describe_connection_error, recognise_connection_error

MISCONFIGURED_COOLDOWN_S = 30 * 60.0
"""A wrong key or an empty account needs an operator, not five minutes."""
RETRY_AFTER_RANGE_S = (1.0, 3600.0)
HICCUP_STATUSES = frozenset({408, 500, 502, 503, 504})
DOWN_STATUSES = frozenset({408, 498, 499})
"""In addition to all of 5xx: 498 is Groq's for no capacity, 499 is sent by Google and proxies that gave up."""
MAX_MESSAGE_LENGTH = 300
MAX_CODE_LENGTH = 60
"""A provider's error code is one word; a longer text is cut."""


class Fault(StrEnum):
    """The kind of fault behind a failed request."""

    HICCUP = "hiccup"
    """A transient fault of the provider: the same one is retried once."""
    DOWN = "down"
    """The provider is unreachable, silent or overloaded."""
    RATE_LIMITED = "rate_limited"
    MISCONFIGURED = "misconfigured"
    """The key, the account or the model's name is wrong: an operator has to act."""
    UNREADABLE = "unreadable"
    """A response without an answer: empty, cut, an error page, only thinking."""
    CONTEXT_WINDOW = "context_window"
    REFUSED = "refused"
    """The provider's content filter."""
    REJECTED = "rejected"
    """The request itself is at fault."""
    BUSY = "busy"
    """Our own limit for this provider is reached."""
    OURS = "ours"
    """A bug of ours: it surfaces, and provider health is unchanged."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The consequences of a failed request.

    Args:
        reason: a few words for operators, without secrets.
        cooldown_s: how long the provider cools down; None where the fault is not the provider's.
    """

    fault: Fault
    reason: str
    cooldown_s: float | None = None

    @property
    def try_next(self) -> bool:
        """True if another candidate may help."""
        return self.fault not in {Fault.REFUSED, Fault.REJECTED, Fault.OURS}


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


def classify(error: BaseException, cooldown_s: float) -> Outcome:
    """Return the outcome for an exception of a model, its adapter or its deadline.

    Args:
        error: the exception.
        cooldown_s: the default cooldown, for faults without their own.
    """
    fault = _fault(error)
    match fault:
        case Fault.HICCUP | Fault.DOWN | Fault.UNREADABLE:
            rest: float | None = cooldown_s
        case Fault.RATE_LIMITED:
            low, high = RETRY_AFTER_RANGE_S
            asked = error.retry_after if isinstance(error, ModelAPIError) else None
            rest = cooldown_s if asked is None else min(max(asked, low), high)
        case Fault.MISCONFIGURED:
            rest = MISCONFIGURED_COOLDOWN_S
        case _:
            rest = None
    return Outcome(fault, describe(error), rest)


def classify_report(error: BaseException, cooldown_s: float) -> Outcome:
    """Return the outcome for an exception that a caller reports as a provider's failure.

    An error of an unknown kind counts as the provider's too, unless it is a type that only bugs raise.
    """
    outcome = classify(error, cooldown_s)
    if outcome.fault is Fault.OURS and isinstance(error, Exception) and not isinstance(error, _BUGS):
        return Outcome(Fault.DOWN, outcome.reason, cooldown_s)
    return outcome


_BUGS = (
    ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, MemoryError, NameError, SyntaxError,
    TypeError, ValueError,
)  # fmt: skip

_CODES: dict[str, Fault] = {
    "content_filter": Fault.REFUSED,
    "content_policy_violation": Fault.REFUSED,
    "moderation_blocked": Fault.REFUSED,
    "ResponsibleAIPolicyViolation": Fault.REFUSED,
    # With a 400: Groq's for a removed model, for a model whose terms are not accepted, and for a blocked account.
    "model_decommissioned": Fault.MISCONFIGURED,
    "model_terms_required": Fault.MISCONFIGURED,
    "organization_restricted": Fault.MISCONFIGURED,
    # Mistral's for an unknown model, with a 400.
    "invalid_model": Fault.MISCONFIGURED,
    # With a 400: Google's for an account without billing or in an unsupported country.
    "FAILED_PRECONDITION": Fault.MISCONFIGURED,
    # LiteLLM's proxy, with a 400 or a 429.
    "budget_exceeded": Fault.MISCONFIGURED,
    # llama.cpp, with a 400 or a 500.
    "exceed_context_size_error": Fault.CONTEXT_WINDOW,
}
"""Faults by the `code` or `type` of an error, where the HTTP status alone is ambiguous."""

_PHRASES: tuple[tuple[str, Fault], ...] = (
    # DeepSeek, with a 400.
    ("content exists risk", Fault.REFUSED),
    ("model not exist", Fault.MISCONFIGURED),
    # Groq, with a 413: above the account's tokens per minute. Waiting does not help, a shorter request does.
    ("request too large for model", Fault.CONTEXT_WINDOW),
    # vLLM since 0.16.
    ("the model's context length is only", Fault.CONTEXT_WINDOW),
    # LM Studio.
    ("trying to keep the first", Fault.CONTEXT_WINDOW),
    # LiteLLM's proxy, as a prefix to the message of the provider behind it.
    ("litellm.contextwindowexceedederror", Fault.CONTEXT_WINDOW),
    ("litellm.contentpolicyviolationerror", Fault.REFUSED),
    ("budget has been exceeded", Fault.MISCONFIGURED),
)
"""Faults by the beginning of an error's message, where its code is meaningless."""
_SEARCHED_LENGTH = 200
"""Characters that are searched: a message may go on with a quote of the prompt."""

_FAULTS: tuple[tuple[type[BaseException], Fault], ...] = (
    # The first match counts: most errors of the library are instances of several of these.
    (ModelContextWindowExceededError, Fault.CONTEXT_WINDOW),
    (ModelQuotaExceededError, Fault.MISCONFIGURED),
    (ModelNotFoundError, Fault.MISCONFIGURED),
    (ModelRateLimitError, Fault.RATE_LIMITED),
    (ModelOverloadedError, Fault.DOWN),
    (ModelRequestTimeout, Fault.DOWN),
    (ModelTimeoutError, Fault.DOWN),
    (ContentFilterError, Fault.REFUSED),
    (ConcurrencyLimitExceeded, Fault.BUSY),
    (UnexpectedModelBehavior, Fault.UNREADABLE),
    # Mistral's SDK accesses the text of an empty response that it has not read.
    (httpx2.StreamError, Fault.UNREADABLE),
    # Connection errors that no adapter has translated into the library's.
    (httpx2.TimeoutException, Fault.DOWN),
    (httpx2.ConnectError, Fault.DOWN),
    (httpx2.TransportError, Fault.HICCUP),
    (TimeoutError, Fault.DOWN),
    (ssl.SSLError, Fault.DOWN),
    (socket.gaierror, Fault.DOWN),
    (ConnectionRefusedError, Fault.DOWN),
    (ConnectionError, Fault.HICCUP),
)
_PHASE_FAULTS: dict[str | None, Fault] = {"pool": Fault.BUSY, "connect": Fault.DOWN}


def _fault(error: BaseException) -> Fault:
    named = _named_fault(error) if isinstance(error, ModelAPIError) else None
    if named is not None:
        return named
    for kind, fault in _FAULTS:
        if isinstance(error, kind):
            return fault
    match error:
        case ModelConnectionError():
            return _PHASE_FAULTS.get(error.phase, Fault.HICCUP)
        case ModelAuthenticationError():
            # With any status: Google rejects a key with a 400.
            return Fault.MISCONFIGURED
        case ModelHTTPError():
            return _status_fault(error)
        case ModelAPIError():
            return Fault.UNREADABLE
        case _:
            return Fault.UNREADABLE if _is_raised_by_adapter(error) else Fault.OURS


def _status_fault(error: ModelHTTPError) -> Fault:
    status = error.status_code
    if status in HICCUP_STATUSES and error.retry_after is None and not error.in_stream:
        # An error object in a 200 is no hiccup: the provider did answer.
        return Fault.HICCUP
    if status >= 500 or status in DOWN_STATUSES:  # noqa: PLR2004 - HTTP's own number
        return Fault.DOWN
    if status == 403:  # noqa: PLR2004 - HTTP's own number
        # OpenRouter's for input that its moderation flagged. The library raises another error for a wrong key.
        return Fault.REFUSED
    return Fault.MISCONFIGURED if status in {401, 402, 404} else Fault.REJECTED


def _named_fault(error: ModelAPIError) -> Fault | None:
    """Return the fault that a provider names by a code, a type or a message of its own."""
    for code in (error.provider_error_code, error.provider_error_type):
        if code in _CODES:
            return _CODES[code]
    if not isinstance(error, ModelHTTPError):
        return None
    message = _message(error.body)[:_SEARCHED_LENGTH].lower()
    return next((fault for words, fault in _PHRASES if words in message), None)


def _message(body: object) -> str:
    """Return the message of an error body, in any provider's layout; empty if there is none."""
    if isinstance(body, str):
        with suppress(ValueError):
            body = json.loads(body)
    for _ in range(2):
        # Below `error`, below `message`, or below both.
        if isinstance(body, dict):
            fields = cast("dict[str, object]", body)
            body = fields.get("error") or fields.get("message")
    return body if isinstance(body, str) else ""


def _is_raised_by_adapter(error: BaseException) -> bool:
    """Return whether a plain Python error was raised while an adapter parsed a provider's response.

    A body without choices surfaces as IndexError, one of the wrong shape as TypeError or AttributeError. The position
    of the try block cannot tell: `Model.request` maps our messages to the wire first, and a bug there (an attachment
    that an adapter does not expect, for example) would put every provider in cooldown. The frames can. Their names are
    private to pydantic-ai 2.68 and the SDKs; the contract test is tests/services/llm/routing/test_outcome_table.py,
    which sends malformed bodies of each kind over HTTP.
    """
    if not isinstance(error, (LookupError, TypeError, AttributeError, ValueError, ValidationError, AssertionError)):
        return False
    frames = traceback.extract_tb(error.__traceback__)
    return any(frame.name.startswith(_PARSER_PREFIXES) or frame.name in _PARSERS for frame in frames)


_PARSER_PREFIXES = ("_process_", "_map_usage", "_get_event_iterator", "_validate_")
_PARSERS = frozenset({"__stream__", "_iter_events", "_parse_response", "parse"})


def describe(error: BaseException) -> str:
    """Return the reason of a failure for operators, without text that may echo the prompt or the key."""
    match error:
        case EmptyAnswer() | AnswerGivenUp():
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
            return f"unreadable answer ({name})" if _is_raised_by_adapter(error) else name


def provider_message(error: BaseException) -> str | None:
    """Return a provider's message about its error, for the user whose request it refused; never for the log."""
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
