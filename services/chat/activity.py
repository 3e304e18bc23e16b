"""The work of tools as people see it: the line about tools that an answer waits for, and the pages that it rests on."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import urlsplit

from pydantic_ai.messages import BaseToolReturnPart, ModelMessage, ToolCallPart

from core.i18n import Texts
from core.shortening import shorten_line
from services.chat.turn import FETCH_PAGE
from services.llm.request import WEB_SEARCH

MAX_DETAIL = 60
"""Characters of a query in the line."""
QUICK_TOOLS = frozenset(
    {"current_time", "remember", "recall", "read_document", "schedule_message", "list_schedules", "cancel_schedule"}
)
"""Tools of the bot's own that take milliseconds; they are not worth a line."""
LONGEST_URL = 300
"""Characters of an address that is shown on a line."""
MOST_SOURCES = 5
UNCITED_SOURCES = 3
"""Results of a search that are named where the answer cites none of them."""


def describe_calls(calls: Sequence[ToolCallPart], texts: Texts, language: str | None) -> str | None:
    """Returns a line about the newest of these calls that takes time; None if none does."""
    for call in reversed(calls):
        if call.tool_name not in QUICK_TOOLS:
            return _describe(call, texts, language)
    return None


def _describe(call: ToolCallPart, texts: Texts, language: str | None) -> str:
    match call.tool_name:
        case name if name == WEB_SEARCH:
            return texts.get("activity-search", language, query=_argument(call, "query", _shorten))
        case name if name == FETCH_PAGE:
            return texts.get("activity-page", language, site=_argument(call, "url", _site))
        case name:
            return texts.get("activity-tool", language, name=_shorten(name))


def _argument(call: ToolCallPart, name: str, form: Callable[[str], str]) -> str:
    """Returns an argument of a call, which the model may have written in any way."""
    try:
        value: object = call.args_as_dict().get(name)
    except ValueError:
        return "…"
    return form(value) if isinstance(value, str) else "…"


def _site(url: str) -> str:
    try:
        return _shorten(urlsplit(url if "//" in url else f"//{url}").hostname or "…")
    except ValueError:
        return "…"


def _shorten(text: str) -> str:
    return shorten_line(text, MAX_DETAIL) or "…"


@dataclass(frozen=True, slots=True)
class CitedPage:
    """A web page that an answer rests on."""

    url: str
    title: str


def find_sources(messages: Sequence[ModelMessage], answer: str) -> list[CitedPage]:
    """Returns the pages that were read, and the results of searches that the answer cites, or the first if none."""
    read: dict[str, CitedPage] = {}
    found: dict[str, CitedPage] = {}
    for message in messages:
        for part in message.parts:
            if isinstance(part, BaseToolReturnPart) and part.tool_name in {FETCH_PAGE, WEB_SEARCH}:
                into = read if part.tool_name == FETCH_PAGE else found
                into.update({source.url: source for source in _pages(part.content, 4)})
    cited = [source for source in found.values() if source.url in answer]
    chosen = {source.url: source for source in (*read.values(), *cited)}
    if not chosen:
        chosen = dict(list(found.items())[:UNCITED_SOURCES])
    return list(chosen.values())[:MOST_SOURCES]


def _is_link(url: str) -> bool:
    return url.startswith(("http://", "https://")) and url.isprintable() and len(url) <= LONGEST_URL


def _pages(content: object, depth: int) -> Iterator[CitedPage]:
    """Yields every page in a tool's result: of our own tools, or of a provider's own search."""
    if isinstance(content, list) and depth:
        for each in cast("list[object]", content):
            yield from _pages(each, depth - 1)
    elif isinstance(content, dict) and depth:
        fields = cast("Mapping[str, Any]", content)  # Any: JSON
        url = fields.get("url") or fields.get("uri")
        if isinstance(url, str) and _is_link(url):
            title = fields.get("title")
            yield CitedPage(url, " ".join(title.split())[:80] if isinstance(title, str) else "")
        else:
            for each in fields.values():
                yield from _pages(each, depth - 1)
