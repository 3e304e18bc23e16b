"""Classifies failed requests: the fault, whether another candidate may help, and the cooldown.

Streamed and plain requests share this table, so that they cannot differ.
"""

import re
import socket
import ssl
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TypeGuard

import httpx2
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
    UserError,
)

from services.llm.request import Capability
from services.llm.routing.faults.reasons import ModelNotBuilt, describe, is_raised_by_adapter
from services.llm.routing.faults.refusal_words import Fault
from services.llm.routing.faults.refusals import KNOWN_WORDS, KnownWords, find_window, names_model
from services.llm.server_words import find_message

MISCONFIGURED_COOLDOWN_S = 30 * 60.0
"""A wrong key or an empty account needs an operator, not five minutes."""
LOADING_COOLDOWN_S = 10.0
"""A server that loads its model answers as soon as that is done."""
RETRY_AFTER_RANGE_S = (1.0, 3600.0)
HICCUP_STATUSES = frozenset({408, 500, 502, 503, 504})
DOWN_STATUSES = frozenset({408, 498, 499})
"""In addition to all of 5xx: 498 is Groq's for no capacity, 499 is sent by Google and proxies that gave up."""
OF_REQUESTS = frozenset({400, 403, 406, 409, 413, 415, 422, 431})
"""Refusals that a request may have caused; the others are about the key, the address, or a proxy in between."""
_PAGE_SEARCHED = 300
REFUSAL_STATUSES = frozenset(range(400, 500)) - DOWN_STATUSES - {429}
INTERNAL_ERRORS = frozenset({500, 501})
"""Statuses of a server that stumbles over a request; 502 and above come from a proxy, or say that it is overloaded."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The consequences of a failed request.

    Args:
        reason: a few words for operators, without secrets.
        cooldown_s: how long the provider cools down; None where the fault is not the provider's.
        capability: refused by the model.
        window: the context window that the server names, in tokens.
        sent: the size of the request that it names, in tokens.
        words: the server's message, for operators; it quotes no user and holds no key.
        is_internal: the server answered with an internal error, which the contents of the request may cause.
        is_late: no output came within the deadline, which the length of the request may cause.
        is_of_one_model: the server says that the failure is one of the asked model; its other models may answer.
        may_be_request: a refusal that the request itself may have caused.
    """

    fault: Fault
    reason: str
    cooldown_s: float | None = None
    capability: Capability | None = None
    window: int | None = None
    sent: int | None = None
    words: str | None = field(default=None, compare=False)
    is_internal: bool = field(default=False, compare=False)
    is_late: bool = field(default=False, compare=False)
    is_of_one_model: bool = field(default=False, compare=False)
    may_be_request: bool = field(default=True, compare=False)

    @property
    def try_next(self) -> bool:
        """True if another candidate may help."""
        return self.fault not in {Fault.REFUSED, Fault.OURS}


def classify(error: BaseException, cooldown_s: float, words: KnownWords = KNOWN_WORDS) -> Outcome:
    """Returns the outcome for an exception of a model, its adapter or its deadline.

    Args:
        error: the exception.
        cooldown_s: the default cooldown, for faults without their own.
        words: the words by which refusals are recognised.
    """
    fault, capability = _fault(error, words)
    window, sent = find_window(error.body) if fault is Fault.CONTEXT_WINDOW and _has_body(error) else (None, None)
    is_internal = isinstance(error, ModelHTTPError) and error.status_code in INTERNAL_ERRORS
    cools_s = _cooldown_s(fault, error, cooldown_s)
    is_late = isinstance(error, ModelRequestTimeout)
    return Outcome(
        fault,
        describe(error),
        cools_s,
        capability,
        window,
        sent,
        is_internal=is_internal,
        is_late=is_late,
        is_of_one_model=_is_of_one_model(fault, error, words),
        may_be_request=not isinstance(error, ModelHTTPError) or error.status_code in OF_REQUESTS,
    )


_OF_SERVERS = frozenset({Fault.HICCUP, Fault.DOWN, Fault.RATE_LIMITED, Fault.MISCONFIGURED, Fault.UNCLEAR})
"""Faults of a whole server, unless it is a proxy and says that they are those of a model behind it."""


def _is_of_one_model(fault: Fault, error: BaseException, words: KnownWords) -> bool:
    if fault is Fault.MODEL_GONE:
        return True
    if fault not in _OF_SERVERS or not _has_body(error):
        return False
    # Limits and refusals of a service name the model too, and hold for its other ones.
    is_named = fault in {Fault.HICCUP, Fault.DOWN} and names_model(error.body, error.model_name)
    return is_named or words.is_of_one_model(error.body)


def _cooldown_s(fault: Fault, error: BaseException, default_s: float) -> float | None:
    match fault:
        case Fault.HICCUP | Fault.DOWN | Fault.UNREADABLE:
            return default_s
        case Fault.LOADING:
            return LOADING_COOLDOWN_S
        case Fault.RATE_LIMITED:
            low, high = RETRY_AFTER_RANGE_S
            asked = _find_retry_after_s(error)
            return default_s if asked is None else min(max(asked, low), high)
        case Fault.MISCONFIGURED | Fault.MODEL_GONE:
            return MISCONFIGURED_COOLDOWN_S
        case _:
            return None


def _find_retry_after_s(error: BaseException) -> float | None:
    """Returns the seconds that a server asks to wait; the library reads no fractions and no units."""
    if not isinstance(error, ModelAPIError):
        return None
    if error.retry_after is not None or not isinstance(error, ModelHTTPError):
        return error.retry_after
    found = _SECONDS.fullmatch((error.headers or {}).get("retry-after", "").strip())
    return float(found[1]) if found is not None else None


_SECONDS = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)\s*(?:s|sec|secs|seconds?)?", re.IGNORECASE)


def _has_body(error: BaseException) -> TypeGuard[ModelAPIError]:
    return isinstance(error, ModelAPIError)


def classify_report(error: BaseException, cooldown_s: float) -> Outcome:
    """Returns the outcome for an exception that a caller reports as a provider's failure.

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

_FAULTS: tuple[tuple[type[BaseException], Fault], ...] = (
    # The first match counts: most errors of the library are instances of several of these.
    (ModelContextWindowExceededError, Fault.CONTEXT_WINDOW),
    (ModelQuotaExceededError, Fault.MISCONFIGURED),
    (ModelRateLimitError, Fault.RATE_LIMITED),
    (ModelOverloadedError, Fault.DOWN),
    (ModelRequestTimeout, Fault.DOWN),
    (ModelTimeoutError, Fault.DOWN),
    (ContentFilterError, Fault.REFUSED),
    (ConcurrencyLimitExceeded, Fault.BUSY),
    (ModelNotBuilt, Fault.MISCONFIGURED),
    # The library's for a request that an adapter cannot express: another provider's adapter may.
    (UserError, Fault.UNCLEAR),
    (NotImplementedError, Fault.UNCLEAR),
    (UnexpectedModelBehavior, Fault.UNREADABLE),
    # Mistral's SDK accesses the text of an empty response that it has not read.
    (httpx2.StreamError, Fault.UNREADABLE),
    # Connection errors that no adapter has translated into the library's.
    (httpx2.TimeoutException, Fault.DOWN),
    (httpx2.ConnectError, Fault.DOWN),
    (httpx2.TransportError, Fault.HICCUP),
    # A body that cannot be decompressed, or redirects without end.
    (httpx2.RequestError, Fault.UNREADABLE),
    (TimeoutError, Fault.DOWN),
    (ssl.SSLError, Fault.DOWN),
    (socket.gaierror, Fault.DOWN),
    (ConnectionRefusedError, Fault.DOWN),
    (ConnectionError, Fault.HICCUP),
)
_PHASE_FAULTS: dict[str | None, Fault] = {"pool": Fault.BUSY, "connect": Fault.DOWN}


def _fault(error: BaseException, words: KnownWords) -> tuple[Fault, Capability | None]:
    if isinstance(error, ModelHTTPError) and _is_page(error):
        return Fault.UNCLEAR if error.status_code in REFUSAL_STATUSES else _fault_of_class(error), None
    if isinstance(error, ModelAPIError):
        status = error.status_code if isinstance(error, ModelHTTPError) else None
        named = words.recognise((error.provider_error_code, error.provider_error_type), error.body, status)
        if named is not None:
            return named.fault, named.capability
    return _fault_of_class(error), None


def _fault_of_class(error: BaseException) -> Fault:
    for kind, fault in _FAULTS:
        if isinstance(error, kind):
            return fault
    match error:
        case ModelNotFoundError():
            return _not_found_fault(error)
        case ModelConnectionError():
            return Fault.OURS if _is_of_closed_client(error) else _PHASE_FAULTS.get(error.phase, Fault.HICCUP)
        case ModelAuthenticationError():
            # With any status: Google rejects a key with a 400.
            return Fault.MISCONFIGURED
        case ModelHTTPError():
            return _status_fault(error)
        case ModelAPIError():
            return Fault.UNREADABLE
        case _:
            return Fault.UNREADABLE if is_raised_by_adapter(error) else Fault.OURS


def _is_of_closed_client(error: ModelConnectionError) -> bool:
    """Returns whether a request outlived its connections: some SDKs report the client's error as a lost connection."""
    cause = error.__cause__
    while cause is not None and type(cause) is not RuntimeError:
        cause = cause.__cause__
    return cause is not None


def _is_page(error: ModelHTTPError) -> bool:
    """Returns whether a web page came in place of an error: a proxy, a firewall or a captive portal sent it."""
    # Google's SDK puts the page into a message.
    beginning = str(error.body)[:_PAGE_SEARCHED].lower()
    return beginning.lstrip().startswith("<") or "<html" in beginning or "<!doctype html" in beginning


def _not_found_fault(error: ModelAPIError) -> Fault:
    """Returns whether the server lacks the model, or the address is wrong and every model is missing."""
    about_model = error.provider_error_code == "model_not_found" or "model" in find_message(error.body).lower()
    return Fault.MODEL_GONE if about_model else Fault.MISCONFIGURED


def _status_fault(error: ModelHTTPError) -> Fault:
    status = error.status_code
    if status in HICCUP_STATUSES and _find_retry_after_s(error) is None and not error.in_stream:
        # An error object in a 200 is no hiccup: the provider did answer.
        return Fault.HICCUP
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in DOWN_STATUSES:
        return Fault.DOWN
    if status == HTTPStatus.FORBIDDEN:
        # OpenRouter's for input that its moderation flagged. The library raises another error for a wrong key.
        return Fault.REFUSED
    return Fault.MISCONFIGURED if status in {401, 402, 404} else Fault.UNCLEAR
