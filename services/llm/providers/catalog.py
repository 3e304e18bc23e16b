"""Live model lists: what each provider offers right now, and whether it takes our key."""

import asyncio
import json
import re
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final, cast

import httpx2

from core.config.providers import ProviderKind, ProviderSettings
from core.errors import ProviderError
from services.llm.transport_errors import describe_connection_error

MAX_BODY_BYTES: Final = 8 * 1024 * 1024
"""OpenRouter's list, the longest, is below 2 MB."""

MAX_PAGES: Final = 10
_PAGE_SIZE = 1000
_MAX_REASON_LENGTH = 200
_KEY_LIKE = re.compile(r"\b((sk|pk|key|xai)-|gsk_|AIza)[\w*.\-]{6,}")
ANTHROPIC_VERSION: Final = "2026-10-21"
"""What the SDK sends with a request for an answer; a test compares the two."""


class CatalogError(ProviderError):
    """A provider did not give its model list; `reason` is short and for people, and holds no key."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


class Catalog:
    """Asks providers for their model lists.

    Args:
        http_client: the client through which a provider is reached; the models' own, so that a list that came
            proves the way that answers will take.
    """

    def __init__(self, http_client: Callable[[ProviderSettings], httpx2.AsyncClient]) -> None:
        self._http_client = http_client

    async def live_models(self, provider: ProviderSettings, *, timeout_s: float = 5.0) -> tuple[str, ...]:
        """What the provider offers, in its own order.

        Azure does not list deployments to a key: there the configured models are returned once the key proved good.

        Args:
            provider: whom to ask.
            timeout_s: seconds for all of it.

        Raises:
            CatalogError: it did not answer, or not with a list.
        """
        if provider.missing is not None:
            raise CatalogError(provider.missing)
        if provider.kind is ProviderKind.DEMO:
            return provider.models
        try:
            async with asyncio.timeout(timeout_s):
                return await self._ask(provider)
        except (TimeoutError, httpx2.TimeoutException) as error:
            raise CatalogError(f"timed out after {timeout_s:g} s") from error
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise CatalogError(describe_connection_error(error)) from error

    async def _ask(self, provider: ProviderSettings) -> tuple[str, ...]:
        base_url = (provider.base_url or "").rstrip("/")
        key = provider.api_key.get_secret_value() if provider.api_key is not None else None
        bearer = {"authorization": f"Bearer {key}"} if key is not None else {}
        match provider.kind:
            case ProviderKind.ANTHROPIC:
                headers = {**bearer, "anthropic-version": ANTHROPIC_VERSION}
                return await self._pages(provider, f"{base_url.removesuffix('/v1')}/v1/models", headers)
            case ProviderKind.GOOGLE:
                url = f"{base_url.removesuffix('/v1beta')}/v1beta/models"
                return await self._gemini_pages(provider, url, {"x-goog-api-key": key or ""})
            case ProviderKind.GROQ:
                url = f"{base_url.removesuffix('/openai/v1')}/openai/v1/models"
                return _names(await self._get(provider, url, bearer))
            case ProviderKind.MISTRAL:
                return _names(await self._get(provider, f"{base_url.removesuffix('/v1')}/v1/models", bearer))
            case ProviderKind.AZURE_OPENAI:
                query = {"api-version": provider.api_version or ""}
                await self._get(provider, f"{base_url}/openai/models", {"api-key": key or ""}, query)
                return provider.models
            case _:
                if provider.kind is ProviderKind.OPENROUTER and key is not None:
                    # Its list is public: only this says whether the key is good.
                    await self._get(provider, f"{base_url}/key", bearer)
                return _names(await self._get(provider, f"{base_url}/models", bearer))

    async def _pages(self, provider: ProviderSettings, url: str, headers: Mapping[str, str]) -> tuple[str, ...]:
        names: list[str] = []
        query = {"limit": str(_PAGE_SIZE)}
        for _ in range(MAX_PAGES):
            page = await self._get(provider, url, headers, query)
            names.extend(_names(page))
            last = page.get("last_id")
            if not page.get("has_more") or not isinstance(last, str):
                break
            query["after_id"] = last
        return tuple(names)

    async def _gemini_pages(self, provider: ProviderSettings, url: str, headers: Mapping[str, str]) -> tuple[str, ...]:
        names: list[str] = []
        query = {"pageSize": str(_PAGE_SIZE)}
        for _ in range(MAX_PAGES):
            page = await self._get(provider, url, headers, query)
            names.extend(_gemini_names(page))
            token = page.get("nextPageToken")
            if not isinstance(token, str) or not token:
                break
            query["pageToken"] = token
        return tuple(names)

    async def _get(
        self,
        provider: ProviderSettings,
        url: str,
        headers: Mapping[str, str],
        query: Mapping[str, str] | None = None,
    ) -> Mapping[str, Any]:
        client = self._http_client(provider)
        async with client.stream("GET", url, headers=dict(headers), params=dict(query or {})) as response:
            body = await _bounded(response)
        if not response.is_success:
            raise CatalogError(_status_reason(response, body, provider))
        try:
            decoded: object = json.loads(body)
        except ValueError as error:
            raise CatalogError("answered with something that is no JSON") from error
        if not isinstance(decoded, dict):
            raise CatalogError("answered with something that is no model list")
        return cast("dict[str, Any]", decoded)  # JSON objects have string keys, and values of any kind


async def _bounded(response: httpx2.Response) -> bytes:
    body = bytearray()
    async for piece in response.aiter_bytes():
        body += piece
        if len(body) > MAX_BODY_BYTES:
            raise CatalogError(f"answered with more than {MAX_BODY_BYTES // 1024 // 1024} MB")
    return bytes(body)


def _names(page: Mapping[str, Any]) -> tuple[str, ...]:
    return _unique("id", [entry for entry in _entries(page, "data") if _answers(entry)])


def _answers(entry: Mapping[str, object]) -> bool:
    """Whether a model may be asked for an answer, as far as a list tells."""
    # Groq's word for models that were taken away, Mistral's for those that only embed, transcribe or moderate.
    can = entry.get("capabilities")
    chats = cast("dict[str, object]", can).get("completion_chat") if isinstance(can, dict) else None
    return entry.get("active") is not False and chats is not False


def _gemini_names(page: Mapping[str, Any]) -> tuple[str, ...]:
    chats = [
        {"name": str(entry.get("name", "")).removeprefix("models/")}
        for entry in _entries(page, "models")
        if "generateContent" in cast("list[object]", entry.get("supportedGenerationMethods") or ["generateContent"])
    ]
    return _unique("name", chats)


def _entries(page: Mapping[str, Any], field: str) -> list[dict[str, object]]:
    rows = page.get(field)
    if not isinstance(rows, list):
        raise CatalogError("answered with something that is no model list")
    return [cast("dict[str, object]", row) for row in cast("list[object]", rows) if isinstance(row, dict)]


def _unique(field: str, entries: Sequence[Mapping[str, object]]) -> tuple[str, ...]:
    """The names, each once: Mistral lists a model again for each of its aliases."""
    return tuple(dict.fromkeys(name for entry in entries if isinstance(name := entry.get(field), str) and name))


def _status_reason(response: httpx2.Response, body: bytes, provider: ProviderSettings) -> str:
    status = f"HTTP {response.status_code}"
    # Google says it with a 400, and in the details only.
    if response.status_code == HTTPStatus.UNAUTHORIZED or b"API_KEY_INVALID" in body:
        # Providers like to repeat the key here, whole or in part.
        return (
            f"{status}: the API key was refused" if provider.api_key is not None else f"{status}: it wants an API key"
        )
    words = " ".join(_error_message(body).split())
    if provider.api_key is not None:
        words = words.replace(provider.api_key.get_secret_value(), "***")
    words = _KEY_LIKE.sub("***", words)
    if len(words) > _MAX_REASON_LENGTH:
        words = words[:_MAX_REASON_LENGTH].rstrip() + "…"
    return f"{status}: {words}" if words else f"{status}: {response.reason_phrase}".removesuffix(": ")


def _error_message(body: bytes) -> str:
    """The provider's own words, where they are where every wire has them."""
    try:
        decoded: object = json.loads(body)
    except ValueError:
        return ""
    error = cast("dict[str, object]", decoded).get("error") if isinstance(decoded, dict) else None
    message = cast("dict[str, object]", error).get("message") if isinstance(error, dict) else error
    return message if isinstance(message, str) else ""
