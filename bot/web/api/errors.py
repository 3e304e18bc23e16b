"""Errors of the endpoint in OpenAI's shape, with the status, type and code that its clients expect."""

import math
from collections.abc import Mapping
from http import HTTPStatus

from aiohttp import web

from core.errors import (
    AllProvidersFailed,
    AnswerInterrupted,
    ConsentNeeded,
    ContentRefused,
    ContextWindowExceeded,
    RequestRejected,
    StorageError,
    UnderstudyError,
)

INVALID = "invalid_request_error"
STORAGE_RETRY_S = 5
"""`Retry-After` where the database fails."""
RETRIED_WITHIN_S = 60
"""Longest delay of a retry by OpenAI's clients; a longer `Retry-After` makes them retry at once."""


class ApiError(Exception):
    """A refused request.

    Args:
        status: the HTTP status, where no output was sent yet.
        message: text for the user of the client program.
        code: machine-readable code; None if OpenAI defines none.
        param: the field at fault, such as `messages.0.content`.
        kind: the `type` of OpenAI's error object.
        headers: further headers of the response.
        is_retryable: whether the same request may succeed later; clients honour it as `x-should-retry`.
    """

    def __init__(
        self,
        status: int,
        message: str,
        code: str | None = None,
        param: str | None = None,
        *,
        kind: str = INVALID,
        headers: Mapping[str, str] | None = None,
        is_retryable: bool = False,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param
        self.kind = kind
        self.headers = headers or {}
        self.is_retryable = is_retryable

    def body(self) -> dict[str, object]:
        """Returns the error object."""
        fields = {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}
        return {"error": fields}

    def response(self) -> web.Response:
        """Returns the response."""
        headers = {**self.headers, "x-should-retry": "true" if self.is_retryable else "false"}
        return web.json_response(self.body(), status=self.status, headers=headers)


def invalid(message: str, param: str | None = None, code: str | None = None) -> ApiError:
    """Returns the error of a request that no provider is asked for."""
    return ApiError(HTTPStatus.BAD_REQUEST, message, code, param)


def model_not_found(model: str) -> ApiError:
    """Returns the error of a model that does not exist, or that the token may not ask."""
    return ApiError(
        HTTPStatus.NOT_FOUND,
        f"The model {model[:100]!r} does not exist, or this token may not use it. GET /v1/models lists those it may.",
        "model_not_found",
        "model",
    )


def rate_limited(retry_after_s: float) -> ApiError:
    """Returns the error of a token that has used up its requests of this minute."""
    return ApiError(
        HTTPStatus.TOO_MANY_REQUESTS,
        "This token has used up its requests of this minute.",
        "rate_limit_exceeded",
        kind="rate_limit_error",
        headers=_retry_after(retry_after_s),
        is_retryable=True,
    )


def quota_exceeded(renews_in_s: float) -> ApiError:
    """Returns the error of a token whose budget of this day is used up."""
    return ApiError(
        HTTPStatus.TOO_MANY_REQUESTS,
        "The budget of this token is used up until midnight.",
        "insufficient_quota",
        kind="insufficient_quota",
        headers=_retry_after(renews_in_s),
    )


def to_api_error(error: UnderstudyError, cooldown_s: float) -> ApiError:
    """Returns the error of a request that the providers did not answer.

    Args:
        error: exception raised by the request.
        cooldown_s: seconds until the next provider is tried again, if all have failed.
    """
    match error:
        case ContextWindowExceeded():
            message = "The messages are longer than the context window of every model that could answer."
            return invalid(message, "messages", "context_length_exceeded")
        case ContentRefused():
            message = f"The content filter of {error.provider} refused: {error.reason}"
            return invalid(message, "messages", "content_filter")
        case RequestRejected():
            return invalid(f"The request was refused as invalid: {error.provider} answered {error.reason}")
        case ConsentNeeded():
            message = "Only providers outside the operator's machines could answer, and this token may not use them."
            return ApiError(HTTPStatus.FORBIDDEN, message, "consent_needed", kind="permission_error")
        case AnswerInterrupted():
            return ApiError(HTTPStatus.BAD_GATEWAY, str(error), "interrupted", kind="server_error", is_retryable=True)
        case AllProvidersFailed():
            return _all_failed(error, cooldown_s)
        case StorageError():
            message = "The database of the endpoint fails. Please try again."
            headers = _retry_after(STORAGE_RETRY_S)
            return ApiError(
                HTTPStatus.SERVICE_UNAVAILABLE, message, kind="server_error", headers=headers, is_retryable=True
            )
        case _:
            return ApiError(HTTPStatus.INTERNAL_SERVER_ERROR, "Internal error; see the log.", kind="server_error")


def _all_failed(error: AllProvidersFailed, cooldown_s: float) -> ApiError:
    reasons = "; ".join(f"{attempt.provider} ({attempt.model}): {attempt.reason}" for attempt in error.attempts)
    return ApiError(
        HTTPStatus.SERVICE_UNAVAILABLE,
        f"All providers failed: {reasons or 'none is configured'}",
        "all_providers_failed",
        kind="server_error",
        headers=_retry_after(cooldown_s),
        is_retryable=cooldown_s <= RETRIED_WITHIN_S,
    )


def _retry_after(seconds: float) -> dict[str, str]:
    return {"Retry-After": str(max(math.ceil(seconds), 1))}
