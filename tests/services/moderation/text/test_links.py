"""Extraction and comparison of link targets."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.moderation.text.links import Link, extract_links, parse_link
from services.moderation.text.normalise import normalise
from tests.support.group_messages import message


@pytest.mark.parametrize(
    ("target", "link"),
    [
        ("https://www.Example.com/Path?q=1#x", Link("example.com", "/Path")),
        ("example.com", Link("example.com")),  # Telegram marks those too
        ("http://user:pw@example.com:8080/", Link("example.com", "/")),
        ("https://good.com@evil.com/", Link("evil.com", "/")),  # the part before @ is a user name
        ("https://evil.com\\@good.com/", Link("evil.com", "/@good.com/")),  # as browsers read it
        ("https://EVIL.com./", Link("evil.com", "/")),
        ("https://пример.рф/а", Link("xn--e1afmkfd.xn--p1ai", "/а")),
        ("https://xn--e1afmkfd.xn--p1ai/", Link("xn--e1afmkfd.xn--p1ai", "/")),
        ("@somebody", Link("t.me", "/somebody", is_mention=True)),
        ("tg://resolve?domain=somebody&start=1", Link("t.me", "/somebody")),
        ("tg://join?invite=AbC", Link("t.me", "/+AbC")),
        ("https://[::1]/x", Link("::1", "/x")),
        ("mailto:a@b.c", None),
        ("https://[broken", None),
        ("https://", None),
        ("", None),
    ],
)
def test_parse_link(target: str, link: Link | None) -> None:
    assert parse_link(target) == link


@given(st.text())
def test_parse_link_never_raises(target: str) -> None:
    parse_link(target)
    parse_link(f"https://{target}")


@pytest.mark.parametrize(
    ("target", "entry", "is_within"),
    [
        ("https://docs.python.org/3/", "python.org", True),
        ("https://python.org", "https://python.org/", True),
        ("https://notpython.org", "python.org", False),
        ("https://python.org.evil.com", "python.org", False),
        ("https://python.org@evil.com", "python.org", False),
        ("https://t.me/OurGroup/15", "t.me/ourgroup", True),
        ("@ourgroup", "t.me/ourgroup", True),
        ("https://t.me/ourgroup2", "t.me/ourgroup", False),
        ("https://пример.рф", "пример.рф", True),
        ("https://example.com", "[broken", False),
    ],
)
def test_is_within_covers_subdomains_and_paths(target: str, entry: str, *, is_within: bool) -> None:
    link = parse_link(target)
    assert link is not None
    assert link.is_within(entry) is is_within


def test_extract_links_returns_each_target_once() -> None:
    """From entities, buttons, and text that hidden characters kept from becoming a link."""
    text = "see https://a.example/x, www.b.example and t\u200b.me/joinchat/abc (https://a.example/x)."
    found = extract_links(
        message(text, links=("https://a.example/x",), buttons=("https://c.example",)), normalise(text)
    )
    assert found == (
        Link("a.example", "/x"), Link("c.example"), Link("b.example"), Link("t.me", "/joinchat/abc")
    )  # fmt: skip
    assert [link.is_invite for link in found] == [False, False, False, True]
