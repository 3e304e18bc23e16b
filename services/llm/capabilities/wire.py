"""HTTP requests of OpenAI's protocol beside chat: the client, its errors, and raw responses."""

from collections.abc import Awaitable, Mapping
from typing import Any, cast

import httpx2
import openai
from openai import AsyncOpenAI
from pydantic_ai.exceptions import (
    ModelAuthenticationError,
    ModelHTTPError,
    ModelNotFoundError,
    ModelOverloadedError,
    ModelQuotaExceededError,
    ModelRateLimitError,
)

from core.config.providers import ProviderKind
from services.llm.providers.openai import build_azure_client, build_client
from services.llm.providers.spec import ModelSpec
from services.llm.routing.faults.reasons import EmptyAnswer

HTTPErrorCategory = type[
    ModelAuthenticationError | ModelNotFoundError | ModelOverloadedError | ModelQuotaExceededError | ModelRateLimitError
]

_VERSIONS: Mapping[ProviderKind, str] = {ProviderKind.GROQ: "/openai/v1", ProviderKind.MISTRAL: "/v1"}
"""Paths of the API below the base URLs that do not end in it."""
_CATEGORIES: Mapping[int, HTTPErrorCategory] = {
    401: ModelAuthenticationError,
    402: ModelQuotaExceededError,
    403: ModelAuthenticationError,
    404: ModelNotFoundError,
    429: ModelRateLimitError,
    529: ModelOverloadedError,
}


def open_client(spec: ModelSpec) -> AsyncOpenAI:
    """Returns a client of the provider."""
    if spec.provider.kind is ProviderKind.AZURE_OPENAI:
        return build_azure_client(spec)
    return build_client(spec, version=_VERSIONS.get(spec.provider.kind, ""))


def to_http_error(
    model: str,
    status: int,
    body: object,
    headers: Mapping[str, str],
    code: str | None = None,
    kind: str | None = None,
) -> ModelHTTPError:
    """Converts an API status error to the exception that a chat model raises for it."""
    return ModelHTTPError.for_category(
        None if _is_flagged(body) else _CATEGORIES.get(status),
        status_code=status,
        model_name=model,
        body=body,
        headers=headers,
        provider_error_code=code,
        provider_error_type=kind,
    )


def _is_flagged(body: object) -> bool:
    """Returns whether a 403 of OpenRouter reports flagged input rather than a rejected key."""
    details = cast("Mapping[str, object]", body).get("metadata") if isinstance(body, dict) else None
    return isinstance(details, dict) and not {"flagged_input", "reasons"}.isdisjoint(cast("dict[str, object]", details))


async def fetch_body(call: Awaitable[Any], model: str) -> bytes:
    """Returns the raw body of a response, since servers may answer in another format than the requested one.

    Args:
        call: a request through `with_raw_response`.
        model: name of the model for errors.

    Raises:
        ModelHTTPError: the server refused.
        httpx2.TransportError: it was not reached.
        EmptyAnswer: its answer is unreadable.
    """
    try:
        answer = await call
        body: bytes = answer.content
    except openai.APIStatusError as error:
        headers = dict(error.response.headers)
        raise to_http_error(model, error.status_code, error.body, headers, error.code, error.type) from error
    except openai.APIConnectionError as error:
        if isinstance(error.__cause__, httpx2.TransportError):
            raise error.__cause__ from error
        raise
    except (openai.APIError, ValueError) as error:
        raise EmptyAnswer("unreadable answer") from error
    return body
