"""Cards: nothing in them can be clicked, and they keep Telegram's limit."""

import pytest

from bot.telegram.markdown.render import utf16_length
from bot.telegram.moderation.cards import MAX_UNITS, CardPage, cut
from services.moderation.text.links import defang


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://evil.example/path?q=1", "https[:]//evil[.]example/path?q=1"),
        ("t.me/+AbCd and www.casino.example", "t[.]me/+AbCd and www[.]casino[.]example"),
        ("tg://resolve?domain=x", "tg[:]//resolve?domain=x"),
        ("write @easy_money, a@b.example", "write [@]easy_money, a[@]b[.]example"),
        ("/start now", "[/]start now"),
        ("пиши на деньги.рф", "пиши на деньги[.]рф"),
        ("http://10.0.0.1:80/", "http[:]//10[.]0[.]0[.]1:80/"),
        # Ordinary text stays as it is.
        ("It costs 3.50 euros. Yes, and/or no: 10:30.", "It costs 3.50 euros. Yes, and/or no: 10:30."),
    ],
)
def test_defang_leaves_nothing_to_click(text: str, shown: str) -> None:
    assert defang(text) == shown


def test_cut_counts_utf16_units() -> None:
    assert cut("😀😀😀", 6) == "😀😀😀"
    assert cut("😀😀😀", 5) == "😀😀…"


@pytest.mark.parametrize("text", ["a" * 4096, "😀" * 4096, "https://x.example " * 300, "@" + "a." * 2000])
def test_page_keeps_telegrams_limit(text: str) -> None:
    page = CardPage()
    for _ in range(5):
        page.add("A line: " + text, hidden=text)
    page.add_texts(text, (text,) * 5)
    rendered = page.render()
    assert rendered.length <= MAX_UNITS
    for entity in rendered.entities:
        assert entity.length > 0
        assert entity.offset + entity.length <= utf16_length(rendered.text)
