"""Reads public web pages, and asks a SearXNG server; both within bounds, and failures are answers for the model."""

import asyncio
import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import httpx2
import structlog
from pydantic_ai.exceptions import ModelRetry
from pydantic_ai.messages import BinaryContent

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic_ai.common_tools.web_fetch import WebFetchLocalTool

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class WebLimits:
    """Bounds of a fetch and of a search.

    Args:
        total_s: of a fetch with its redirects.
        page_bytes: of a page, on the wire and after decompression.
        characters: of a page's text that the model is given.
        search_s: of a search.
        search_bytes: of a search server's answer.
        results: of a search.
        at_once: fetches that run at once in a process, since the conversion of a page takes CPU.
    """

    total_s: float = 15.0
    page_bytes: int = 5 * 1024 * 1024
    characters: int = 16_000
    search_s: float = 10.0
    search_bytes: int = 1024 * 1024
    results: int = 8
    at_once: int = 4


TITLE, SNIPPET, URL = 200, 500, 500
"""Characters of a title, an excerpt and an address; a result with a longer address is left out."""


class PageReader:
    """Reads public pages as Markdown.

    Args:
        allow_private: admits private addresses, for tests on loopback. Those of cloud metadata stay refused.
    """

    def __init__(self, limits: WebLimits | None = None, *, allow_private: bool = False) -> None:
        self._limits = limits or WebLimits()
        self._allow_private = allow_private
        self._places = asyncio.Semaphore(self._limits.at_once)
        self._tool: WebFetchLocalTool | None = None

    async def read(self, url: str) -> dict[str, str]:
        """Returns the address, the title and the text of a page, or an `error`."""
        limits = self._limits
        try:
            async with self._places, asyncio.timeout(limits.total_s):
                page = await (await self._load_tool())(url)
        except TimeoutError:
            return _failed(f"The page did not answer within {limits.total_s:g} s.")
        except ModelRetry as error:
            return _failed(_explain(error.__cause__))
        except Exception as error:  # noqa: BLE001 - a page must not end the turn, whatever it makes a library raise
            log.warning("web.fetch_broke", error=type(error).__name__)
            return _failed("The page could not be read.")
        if isinstance(page, BinaryContent):
            return _failed(f"This is a file of the type {page.media_type[:TITLE]}, not a page of text.")
        text = page["content"]
        if len(text) > limits.characters:
            text = f"{text[: limits.characters]}\n[The page goes on; this is its beginning.]"
        return {"url": url, "title": _line(page["title"], TITLE), "content": text}

    async def _load_tool(self) -> "WebFetchLocalTool":
        if self._tool is None:
            # Imported with the first page, beside the event loop: it takes 0.2 s.
            module = await asyncio.to_thread(_import_fetch)
            self._tool = module(
                max_content_length=None,
                allow_local_urls=self._allow_private,
                timeout=math.ceil(self._limits.total_s),
                max_download_bytes=self._limits.page_bytes,
                headers={"User-Agent": "Understudy"},
            )
        return self._tool


class SearxSearch:
    """Searches through a SearXNG server, whose settings must admit the format `json`.

    Args:
        url: of the server.
    """

    def __init__(self, url: str, limits: WebLimits | None = None) -> None:
        self._url = url.rstrip("/")
        self._limits = limits or WebLimits()
        self._client = httpx2.AsyncClient(timeout=self._limits.search_s, headers={"User-Agent": "Understudy"})

    async def search(self, query: str) -> list[dict[str, str]] | None:
        """Returns results with `url`, `title` and `excerpt`; None where the server does not answer."""
        try:
            async with asyncio.timeout(self._limits.search_s):
                body = await self._request(query)
        except (TimeoutError, httpx2.HTTPError, ValueError, RecursionError) as error:
            log.warning("web.search_failed", reason=_reason(error))
            return None
        return self._read(body)

    async def aclose(self) -> None:
        """Closes the connections."""
        await self._client.aclose()

    async def _request(self, query: str) -> object:
        parameters = {"q": query, "format": "json"}
        body = bytearray()
        async with self._client.stream("GET", f"{self._url}/search", params=parameters) as response:
            response.raise_for_status()
            async for piece in response.aiter_bytes():
                body += piece
                if len(body) > self._limits.search_bytes:
                    raise ValueError("the answer is too long")
        return json.loads(bytes(body))

    def _read(self, body: object) -> list[dict[str, str]]:
        found = cast("Mapping[str, Any]", body).get("results") if isinstance(body, dict) else None  # Any: JSON
        results: list[dict[str, str]] = []
        for each in cast("list[object]", found) if isinstance(found, list) else []:
            fields = cast("Mapping[str, Any]", each if isinstance(each, dict) else {})
            url = fields.get("url")
            if not isinstance(url, str) or not url.startswith(("http://", "https://")) or len(url) > URL:
                continue
            results.append(
                {
                    "url": url,
                    "title": _line(fields.get("title"), TITLE),
                    "excerpt": _line(fields.get("content"), SNIPPET),
                }
            )
        return results[: self._limits.results]


def _import_fetch() -> "type[WebFetchLocalTool]":
    from pydantic_ai.common_tools.web_fetch import WebFetchLocalTool  # noqa: PLC0415 - only where a page is fetched

    return WebFetchLocalTool


def _explain(cause: BaseException | None) -> str:
    """Returns why a page was not read, without the addresses that a name resolved to and without a server's words."""
    match cause:
        case httpx2.HTTPStatusError():
            return f"The server answered with HTTP {cause.response.status_code}."
        case httpx2.RequestError() | httpx2.InvalidURL():
            return "The server could not be reached."
        case ValueError() if "maximum size" in str(cause):
            return "The page is too large."
        case ValueError() if not isinstance(cause, UnicodeError):
            return "This address cannot be fetched: only public pages over http and https can."
        case _:
            return "The page could not be read as text."


def _failed(reason: str) -> dict[str, str]:
    log.info("web.fetch_failed", reason=reason)
    return {"error": reason}


def _reason(error: Exception) -> str:
    if isinstance(error, httpx2.HTTPStatusError):
        return f"HTTP {error.response.status_code}; does the server's search.formats list json?"
    return type(error).__name__


def _line(value: object, most: int) -> str:
    """Returns a value as one bounded line."""
    return " ".join(value.split())[:most] if isinstance(value, str) else ""
