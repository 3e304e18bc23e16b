"""The line about tool work."""

import pytest
from pydantic_ai.messages import ToolCallPart

from core.i18n import Texts
from services.chat.activity import describe_calls


@pytest.mark.parametrize(
    ("name", "arguments", "line"),
    [
        ("web_search", {"query": "leap  years\n" + "x" * 90}, f"Searching the web: leap years {'x' * 48}…"),
        ("fetch_page", {"url": "https://user:secret@news.example.org/a?token=1"}, "Reading a page: news.example.org"),
        ("fetch_page", {"url": "news.example.org/a"}, "Reading a page: news.example.org"),
        ("fetch_page", {"url": "http://[bad"}, "Reading a page: …"),
        ("web_search", "{half of a JSON", "Searching the web: …"),
        ("web_search", {"query": 5}, "Searching the web: …"),
        ("web_search", "[1]", "Searching the web: …"),
        ("issue_tracker", {}, "Working with issue_tracker"),
        ("current_time", {}, None),
    ],
)
def test_activity_names_the_work(name: str, arguments: dict[str, object] | str, line: str | None) -> None:
    """With any arguments of the model; of an address only the site."""
    assert describe_calls([ToolCallPart(name, arguments)], Texts(strict=True), "en") == line


def test_activity_is_that_of_the_newest_call_that_takes_time() -> None:
    calls = [ToolCallPart("web_search", {"query": "a"}), ToolCallPart("fetch_page", {"url": "https://b.example"})]
    quick = ToolCallPart("recall", {})
    assert describe_calls([*calls, quick], Texts(strict=True), "ru") == "Читаю страницу: b.example"
