"""Requests the live model list of each provider, which also verifies its key, and caches it for a minute."""

import asyncio
import re
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final, cast
from urllib.parse import urlsplit

import httpx2
from cachetools import TTLCache

from core.bounded_json import parse_json
from core.clock import Clock, SystemClock
from core.config.providers import ProviderKind, ProviderSettings, variable_prefix
from core.errors import ProviderError
from core.transport_errors import describe_connection_error
from services.llm.server_words import clean_words, find_message

MAX_BODY_BYTES: Final = 4 * 1024 * 1024
"""OpenRouter's list, the longest, is below 2 MB."""

MAX_PAGES: Final = 10
_PAGE_SIZE = 1000
CACHED_S: Final = 60.0
_CACHE_SIZE = 1000
_NO_LIST: Final = "answered with something that is not a model list"
_UNSUPPORTED: Final = frozenset({HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.NOT_IMPLEMENTED})
_VERSIONED_KINDS: Final = frozenset(
    {ProviderKind.OPENAI_COMPATIBLE, ProviderKind.OPENAI, ProviderKind.OLLAMA, ProviderKind.OPENROUTER}
)
"""Kinds with the version of the API at the end of the base URL; the SDKs of the others append it themselves."""
ANTHROPIC_VERSION: Final = "2026-10-21"
"""The version that the SDK sends; a test compares the two."""


class CatalogError(ProviderError):
    """The request for a model list failed.

    Args:
        reason: short, for people, without keys.
        status: the HTTP status of the answer; None if there was none.
    """

    def __init__(self, reason: str, status: int | None = None) -> None:
        self.reason = reason
        self.status = status
        super().__init__(reason)


class NoModelList(CatalogError):
    """The server answered that it has no model list, or has it at another path; it may give answers all the same."""


class Catalog:
    """Requests and caches model lists.

    Args:
        http_client: returns a provider's client, the same as for answers, so that a list proves the connection.
        clock: ages the cache.
    """

    def __init__(
        self, http_client: Callable[[ProviderSettings], httpx2.AsyncClient], clock: Clock | None = None
    ) -> None:
        self._http_client = http_client
        timer = (clock or SystemClock()).monotonic
        self._cached: TTLCache[ProviderSettings, tuple[str, ...]] = TTLCache(_CACHE_SIZE, CACHED_S, timer=timer)

    async def recent_models(self, provider: ProviderSettings, *, timeout_s: float = 5.0) -> tuple[str, ...]:
        """Returns the provider's models as of the last `CACHED_S` seconds; a failure is not cached.

        Raises:
            CatalogError: as for `live_models`.
        """
        known = self._cached.get(provider)
        return await self.live_models(provider, timeout_s=timeout_s) if known is None else known

    async def live_models(self, provider: ProviderSettings, *, timeout_s: float = 5.0) -> tuple[str, ...]:
        """Returns the provider's models in its own order, as of now.

        Azure does not list deployments to a key: its configured models are returned if the key is accepted.

        Args:
            provider: the provider to query.
            timeout_s: limit for all pages together.

        Raises:
            CatalogError: the provider did not answer, or not with a list.
        """
        models = await self._request(provider, timeout_s)
        self._cached[provider] = models
        return models

    async def _request(self, provider: ProviderSettings, timeout_s: float) -> tuple[str, ...]:
        if provider.missing is not None:
            raise CatalogError(provider.missing)
        if provider.kind is ProviderKind.DEMO:
            return provider.models
        try:
            async with asyncio.timeout(timeout_s):
                return await self._fetch(provider)
        except (TimeoutError, httpx2.TimeoutException) as error:
            raise CatalogError(f"timed out after {timeout_s:g} s") from error
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise CatalogError(describe_connection_error(error)) from error
        except NoModelList as error:
            hint = suggest_version(provider)
            raise (NoModelList(f"{error.reason}; {hint}", error.status) if hint else error) from None

    async def _fetch(self, provider: ProviderSettings) -> tuple[str, ...]:
        base_url = (provider.base_url or "").rstrip("/")
        key = provider.api_key.get_secret_value() if provider.api_key is not None else None
        bearer = {"authorization": f"Bearer {key}"} if key is not None else {}
        match provider.kind:
            case ProviderKind.ANTHROPIC:
                headers = {**bearer, "anthropic-version": ANTHROPIC_VERSION}
                return await self._fetch_pages(provider, f"{base_url.removesuffix('/v1')}/v1/models", headers)
            case ProviderKind.GOOGLE:
                url = f"{base_url.removesuffix('/v1beta')}/v1beta/models"
                return await self._fetch_gemini_pages(provider, url, {"x-goog-api-key": key or ""})
            case ProviderKind.GROQ:
                url = f"{base_url.removesuffix('/openai/v1')}/openai/v1/models"
                return _parse_names(await self._get(provider, url, bearer))
            case ProviderKind.MISTRAL:
                return _parse_names(await self._get(provider, f"{base_url.removesuffix('/v1')}/v1/models", bearer))
            case ProviderKind.AZURE_OPENAI:
                query = {"api-version": provider.api_version or ""}
                await self._get(provider, f"{base_url}/openai/models", {"api-key": key or ""}, query)
                return provider.models
            case _:
                if provider.kind is ProviderKind.OPENROUTER and key is not None:
                    # Its model list is public; this request verifies the key.
                    await self._get(provider, f"{base_url}/key", bearer)
                return _parse_names(await self._get(provider, f"{base_url}/models", bearer))

    async def _fetch_pages(self, provider: ProviderSettings, url: str, headers: Mapping[str, str]) -> tuple[str, ...]:
        names: list[str] = []
        query = {"limit": str(_PAGE_SIZE)}
        for _ in range(MAX_PAGES):
            page = await self._get(provider, url, headers, query)
            names.extend(_parse_names(page))
            last = page.get("last_id")
            if not page.get("has_more") or not isinstance(last, str):
                break
            query["after_id"] = last
        return tuple(names)

    async def _fetch_gemini_pages(
        self, provider: ProviderSettings, url: str, headers: Mapping[str, str]
    ) -> tuple[str, ...]:
        names: list[str] = []
        query = {"pageSize": str(_PAGE_SIZE)}
        for _ in range(MAX_PAGES):
            page = await self._get(provider, url, headers, query)
            names.extend(_parse_gemini_names(page))
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
            body = await _read_bounded(response)
        if not response.is_success:
            kind = NoModelList if response.status_code in _UNSUPPORTED else CatalogError
            raise kind(_describe_status(response, body, provider), response.status_code)
        try:
            decoded: object = parse_json(body)
        except ValueError as error:
            raise NoModelList("answered with something that is not JSON", response.status_code) from error
        if not isinstance(decoded, dict):
            raise NoModelList(_NO_LIST, response.status_code)
        return cast("dict[str, Any]", decoded)  # JSON objects have string keys, and values of any kind


async def _read_bounded(response: httpx2.Response) -> bytes:
    body = bytearray()
    async for piece in response.aiter_bytes():
        body += piece
        if len(body) > MAX_BODY_BYTES:
            raise CatalogError(f"answered with more than {MAX_BODY_BYTES // 1024 // 1024} MB", response.status_code)
    return bytes(body)


def _parse_names(page: Mapping[str, Any]) -> tuple[str, ...]:
    return _collect_names("id", [entry for entry in _parse_entries(page, "data") if _is_chat_model(entry)])


def _is_chat_model(entry: Mapping[str, object]) -> bool:
    """Returns whether a listed model can generate answers."""
    # Groq lists retired models as inactive; Mistral lists models that only embed, transcribe or moderate.
    capabilities = entry.get("capabilities")
    chats = cast("dict[str, object]", capabilities).get("completion_chat") if isinstance(capabilities, dict) else None
    return entry.get("active") is not False and chats is not False


def _parse_gemini_names(page: Mapping[str, Any]) -> tuple[str, ...]:
    chats = [
        {"name": str(entry.get("name", "")).removeprefix("models/")}
        for entry in _parse_entries(page, "models")
        if "generateContent" in cast("list[object]", entry.get("supportedGenerationMethods") or ["generateContent"])
    ]
    return _collect_names("name", chats)


def _parse_entries(page: Mapping[str, Any], field: str) -> list[dict[str, object]]:
    rows = page.get(field)
    if not isinstance(rows, list):
        # LM Studio answers so to any path that it does not know.
        raise NoModelList(_NO_LIST, HTTPStatus.OK)
    return [cast("dict[str, object]", row) for row in cast("list[object]", rows) if isinstance(row, dict)]


def _collect_names(field: str, entries: Sequence[Mapping[str, object]]) -> tuple[str, ...]:
    """Returns the distinct names, since Mistral lists a model again for each of its aliases."""
    return tuple(dict.fromkeys(name for entry in entries if isinstance(name := entry.get(field), str) and name))


def suggest_version(provider: ProviderSettings) -> str | None:
    """Returns a hint where a base URL lacks the version that its server may want, else None."""
    url = provider.base_url or ""
    has_version = any(re.fullmatch(r"v\d+\w*", segment) for segment in urlsplit(url).path.split("/"))
    if provider.kind not in _VERSIONED_KINDS or has_version:
        return None
    variable = f"{variable_prefix(provider.id)}BASE_URL"
    return f"{variable} has no /v1 at its end, try {variable}={url.rstrip('/')}/v1"


def _describe_status(response: httpx2.Response, body: bytes, provider: ProviderSettings) -> str:
    status = f"HTTP {response.status_code}"
    key = provider.api_key
    words = clean_words(find_message(body), [key.get_secret_value()] if key is not None else [])
    # Google reports it with a 400, and in the details only.
    if response.status_code == HTTPStatus.UNAUTHORIZED or b"API_KEY_INVALID" in body:
        status += ": the API key was refused" if key is not None else ": it wants an API key"
        return f"{status} ({words})" if words else status
    return f"{status}: {words or response.reason_phrase}".removesuffix(": ")
