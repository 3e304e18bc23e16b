"""The outcome table as data: errors of a provider and their consequences."""

from collections.abc import Callable
from dataclasses import dataclass

from pydantic_ai.exceptions import (
    ContentFilterError,
    ModelAPIError,
    ModelAuthenticationError,
    ModelConnectionError,
    ModelContextWindowExceededError,
    ModelHTTPError,
    ModelOverloadedError,
    ModelQuotaExceededError,
    ModelRateLimitError,
    ModelRequestRejectedError,
    ModelRequestTimeout,
    UnexpectedModelBehavior,
)

from core.errors import ContentRefused
from services.llm.routing.faults.reasons import EmptyAnswer

COOLDOWN_S = 300.0


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the outcome table: an error and its consequences."""

    error: Callable[[], Exception]
    cools_for: float | None = None
    again: bool = False
    surfaces: type[Exception] | None = None
    too_long: bool = False
    unclear: bool = False
    """Another candidate's answer decides whose fault it is."""
    loading: bool = False
    """The server is asked again until it has loaded its model, where all others fail."""


def http(
    status: int, kind: type[ModelAPIError] | None = None, retry_after: float | None = None, words: str | None = None
) -> ModelHTTPError:
    return ModelHTTPError.for_category(
        kind,
        status_code=status,
        model_name="m",
        retry_after=retry_after,
        body=None if words is None else {"error": {"message": words}},
    )


BEFORE_OUTPUT = {
    "500": Row(lambda: http(500), COOLDOWN_S, again=True),
    "503": Row(lambda: http(503), COOLDOWN_S, again=True),
    "reset": Row(lambda: ModelConnectionError("m", "reset", phase="read"), COOLDOWN_S, again=True),
    "refused": Row(lambda: ModelConnectionError("m", "refused", phase="connect"), COOLDOWN_S),
    "silent": Row(lambda: ModelRequestTimeout("m", 12.0, setting="first_event_timeout"), COOLDOWN_S),
    "529": Row(lambda: http(529, ModelOverloadedError), COOLDOWN_S),
    "503 later": Row(lambda: http(503, retry_after=7), COOLDOWN_S),
    "429": Row(lambda: http(429, ModelRateLimitError), COOLDOWN_S),
    "429 in 2 s": Row(lambda: http(429, ModelRateLimitError, 2), 2.0),
    "429 in an hour": Row(lambda: http(429, ModelRateLimitError, 86400), 3600.0),
    "401": Row(lambda: http(401, ModelAuthenticationError), 1800.0),
    "402": Row(lambda: http(402, ModelQuotaExceededError), 1800.0),
    "empty": Row(lambda: EmptyAnswer("empty answer"), COOLDOWN_S),
    "unreadable": Row(lambda: UnexpectedModelBehavior("no JSON"), COOLDOWN_S),
    "too long": Row(lambda: http(400, ModelContextWindowExceededError), too_long=True),
    "refusal": Row(lambda: ContentFilterError("no"), surfaces=ContentRefused),
    "400": Row(lambda: http(400, ModelRequestRejectedError), unclear=True),
    "our bug": Row(lambda: KeyError("x"), surfaces=KeyError),
}
REPORTED = {**BEFORE_OUTPUT, "loading": Row(lambda: http(503, words="Loading model"), 10.0, loading=True)}
"""The same with a server that loads its model, which a request waits for."""
AT_ONCE = [name for name, row in BEFORE_OUTPUT.items() if row.cools_for is not None and not row.again]
AFTER_OUTPUT = {
    "cut": Row(lambda: ModelConnectionError("m", "peer closed connection", phase="read"), COOLDOWN_S),
    "stall": Row(lambda: TimeoutError("stalled"), COOLDOWN_S),
    "error event": Row(lambda: http(500), COOLDOWN_S),
    "garbage": Row(lambda: UnexpectedModelBehavior("no JSON"), COOLDOWN_S),
    "key taken back": Row(lambda: http(401, ModelAuthenticationError), COOLDOWN_S),
    "refusal": Row(lambda: ContentFilterError("no"), surfaces=ContentRefused),
    "our bug": Row(lambda: KeyError("x"), surfaces=KeyError),
}
