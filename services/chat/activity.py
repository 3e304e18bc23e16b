"""Words the line about the tools that an answer waits for."""

from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

from pydantic_ai.messages import ToolCallPart

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
