"""Requests of OpenAI's protocol beside chat: the client, its errors, and responses as bytes."""

from collections.abc import Awaitable, Mapping
from typing import Any

import httpx2
import openai
from openai import AsyncOpenAI
from pydantic_ai.exceptions import ModelHTTPError

from core.config.providers import ProviderKind
from services.llm.providers.openai import build_azure_client, build_client
from services.llm.providers.spec import ModelSpec
from services.llm.routing.faults.outcomes import EmptyAnswer

_VERSIONS: Mapping[ProviderKind, str] = {ProviderKind.GROQ: "/openai/v1", ProviderKind.MISTRAL: "/v1"}
"""Paths of the API below the base URLs that do not end in it."""


def open_client(spec: ModelSpec) -> AsyncOpenAI:
    """Returns a client of the provider."""
    if spec.provider.kind is ProviderKind.AZURE_OPENAI:
        return build_azure_client(spec)
    return build_client(spec, version=_VERSIONS.get(spec.provider.kind, ""))


async def fetch_body(call: Awaitable[Any], model: str) -> bytes:
    """Returns the body of a response unparsed: servers answer in other formats than the requested one.

    Args:
        call: a request through `with_raw_response`.
        model: for errors.

    Raises:
        ModelHTTPError: the server refused.
        httpx2.TransportError: it was not reached.
        EmptyAnswer: its answer is unreadable.
    """
    try:
        answer = await call
        body: bytes = answer.content
    except openai.APIStatusError as error:
        raise ModelHTTPError(
            error.status_code, model, error.body, headers=dict(error.response.headers),
            provider_error_code=error.code, provider_error_type=error.type,
        ) from error  # fmt: skip
    except openai.APIConnectionError as error:
        if isinstance(error.__cause__, httpx2.TransportError):
            raise error.__cause__ from error
        raise
    except (openai.APIError, ValueError) as error:
        raise EmptyAnswer("unreadable answer") from error
    return body
