"""Markdown is rendered as text and entities that Telegram accepts, at every time of a stream."""

import re
from itertools import combinations

import pytest
from aiogram.types import MessageEntity
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from bot.telegram.markdown import pages as paging
from bot.telegram.markdown.render import Rendered, Work
from bot.telegram.markdown.workarounds import NEEDED, apply_workarounds
from tests.support.markdown import plain, render

# name: (the Markdown, its words that are not displayed: addresses, languages of code, names of commands)
NASTY: dict[str, tuple[str, set[str]]] = {
    "empty": ("", set()),
    "only white space": (" \n\t \n  ", set()),
    "only zero-width": ("\u200b\u200d\ufeff", set()),
    "unclosed fence": ("Look:\n```python\nfor x in y:\n    print(x)\n", {"python"}),
    "unclosed fence of tildes": ("~~~js\nlet a = `b`;\n", {"js"}),
    "fence with a title": ('```c++ title="main"\nint a < b;\n```\nend', {"c", "title", "main"}),
    "fence in a list in a quote": ("> - item\n>   ```py\n>   code = 1\n>   ```\n> - next\n\nout", {"py"}),
    "fence that holds a fence": ("````md\n```\ninner\n```\n````\nafter", {"md"}),
    "indented code": ("text\n\n    a < b\n    c\n\ntext", set()),
    "nested lists": ("1. one\n   - two\n     - three\n\n       more\n2. four\n- [ ] five\n- [x] six", {"x"}),
    "comparison like HTML": ("if a<b then c>d, and <b>bold</b> and a < b", set()),
    "script": ("<script>alert(1)</script>\n\n<div>\n\n**in**\n</div>\n<!-- note -->\ntail", set()),
    "HTML in code": ("`<br>` and `a<b>`\n\n```html\n<br>\n<a href='x'>y</a>\n```", {"html"}),
    "line break tag": ("one<br>two<br/>three", {"br"}),
    "table": ("| Name | Price |\n|---|--:|\n| tea | 3 |\n| milk<br>cold | `4` |\n\nend", {"br"}),
    "wide table": (
        (
            "| Name | Meaning |\n|:--|--|\n| alpha | the first letter of quite an old alphabet |\n"
            "| **beta** | [second](https://example.org/b) |\n"
        ),
        {"https", "example", "org", "b"},
    ),
    "table with empty cells": ("| a || b |\n|--|--|--|\n|1||2|\n", set()),
    "table with formulas": ("| f | g |\n|--|--|\n| $x_1$ | \\(\\alpha\\) |\n| y | z |", {"x", "1", "x_1", "alpha"}),
    "table in a quote": ("> | a | b |\n> |--|--|\n> | 1 | 2 |\n\nend", set()),
    "formulas": (
        r"So $x^2$ and \(\frac{a}{b}\): \[ \sum_{i=0}^n x_i < 5 \] costs $5 or $6",
        {"frac", "sum", "i", "0", "n", "x"},
    ),
    "display formula": ("$$\n\\int_0^1 f(t) dt\n$$\nthen", {"int", "0", "1"}),
    "regular expression in code": ("`\\(\\w+\\)` and\n```sh\nfind \\( -name \\alpha \\) \\[x\\]\n```", {"sh"}),
    "links": (
        "[a](https://x.org/p_(q)) [b](./rel) [c](javascript:alert) [d]() [e](https://)",
        {"https", "x", "org", "p", "q", "rel", "javascript", "alert"},
    ),
    "links with marks": (
        "[**b** `c` _d_](https://x.org/?a=1&b=2 'T') <https://y.org/a<b>",
        {"https", "x", "org", "1", "2", "T"},
    ),
    "image": ("![alt text](https://x.org/i.png) and ![](i.png)", {"https", "x", "org", "i", "png"}),
    "references": (
        "See [1] and [the docs][foo].\n\n[1]: https://x.org\n[foo]: <https://y.org>\n[1]: https://z.org\n[u]: ./q",
        {"foo"},
    ),
    "underscores in words": ("call my_long_name and __init__ and snake_case_ now", set()),
    "emoji": (
        "**\U0001f468\u200d\U0001f469\u200d\U0001f467** \U0001f1e9\U0001f1ea *\U0001f44d\U0001f3fd* e\u0301",
        set(),
    ),
    "astral": ("\U00010330\U00010331 *\U0001d49c\U0001d4b7* `\U00020000` **\U0001f600x\U0001f600**", set()),
    "right to left": ("**שלום** עולם `קוד` [קישור](https://x.org/א) \u202eabc\u202c", {"https", "x", "org", "א"}),
    "spoiler": ("It was ||the **butler** of|| course", set()),
    "spoiler across emphasis": ("*a ||b* c|| and **d ||e** f||", set()),
    "logical or": ("if x || y then a || b; `c || d` and p||q||r", set()),
    "headings": (
        "# One\n## Two *it*\n### Three `c`\n#### Four\n##### Five\n###### Six\nSetext\n===\ntext\n---\n",
        set(),
    ),
    "nested emphasis": ("***a**b* **c *d** e* ****f**** _**g**_ ~~h~i~~", set()),
    "strong in strong": ("**a **b** c** and *a *b* c*", set()),
    "code in everything": ("**`a` b `c`** _`d`_ ~~`e`~~ > `f`\n> **`g`**", set()),
    "backtick runs": ("`` a`b `` ``` c ` ```` d", set()),
    "nested quotes": ("> one\n> > two\n> > > three\nlazy\n\n> four\n", set()),
    "long quote": ("> " + "word " * 60 + "\n\nend", set()),
    "entities": ("&lt;b&gt; &amp;amp; &copy; &#128512; &nope;", {"lt", "gt", "amp", "copy", "128512"}),
    "escapes": (r"\*a\* \_b\_ \`c\` \<d\> \\e \|\|f\|\|", set()),
    "line ends": ("a\r\n\r\n- b\r\n- c\rd", set()),
    "control characters": ("a\x00b\x08 c\x0bd\u2028e", set()),
    "noncharacters": ("a\ufdd0b\ufdd1c\ufdd2d `e\ufdd0`", set()),
    "rule and stars": ("a\n\n***\n\n* * *\nb", set()),
}


def character_borders(text: str) -> set[int]:
    """Returns the offsets in UTF-16 units at which a character starts or ends."""
    borders, offset = {0}, 0
    for character in text:
        offset += len(character.encode("utf-16-le")) // 2
        borders.add(offset)
    return borders


def broken_alone(one: MessageEntity, rendered: Rendered) -> str | None:
    """Returns the rule that an entity breaks by itself, if any."""
    start, end = one.offset, one.offset + one.length
    covered = rendered.text.encode("utf-16-le")[2 * start : 2 * end].decode("utf-16-le", "replace")
    if start >= end or not {start, end} <= character_borders(rendered.text):
        return f"{one.type} {start}-{end} is outside the text or splits a character"
    if not covered.strip():
        return f"{one.type} {start}-{end} formats nothing"
    if one.type == "text_link" and not re.match(r"(https?|tg)://\w", one.url or ""):
        return f"a link to {one.url}"
    return None


def broken_together(one: MessageEntity, other: MessageEntity) -> str | None:
    """Returns the rule that two entities break, in this order, if any."""
    end, other_end = one.offset + one.length, other.offset + other.length
    if (one.offset, -one.length) > (other.offset, -other.length):
        return f"{one.type} and {other.type} are not in order"
    if end <= other.offset:
        return None
    if other_end > end:
        return f"{one.type} and {other.type} overlap"
    if one.type == other.type or "pre" in (one.type, other.type) or "code" in (one.type, other.type):
        return (
            None
            if (one.type, other.type) in {("blockquote", "code"), ("blockquote", "pre")}
            else f"{other.type} in {one.type}"
        )
    return None


def broken_rules(rendered: Rendered) -> list[str]:
    """Returns the broken rules of the Bot API's page on formatting options."""
    alone = [broken_alone(one, rendered) for one in rendered.entities]
    together = [broken_together(one, other) for one, other in combinations(rendered.entities, 2)]
    return [rule for rule in (*alone, *together) if rule]


def words(markdown: str) -> list[str]:
    """Returns the words of a Markdown text."""
    return re.findall(r"[^\W_]+", re.sub(r"[\x00-\x08\ufdd0-\ufdd2]", " ", markdown))


@pytest.mark.parametrize("name", NASTY)
def test_every_prefix_is_valid_and_shows_every_word(name: str) -> None:
    """Cut off anywhere, an answer breaks no rule of Telegram and loses no visible word."""
    markdown, unseen = NASTY[name]
    for end in range(len(markdown) + 1):
        with capture_logs() as logs:
            rendered = render(markdown[:end])
        assert logs == []
        assert broken_rules(rendered) == [], markdown[:end]
        # The last word may be an address, a language or a name of which only the first letters have come.
        finished = words(markdown[:end].rpartition(" ")[0].rpartition("\n")[0] if end < len(markdown) else markdown)
        missing = [word for word in finished if word not in unseen and word not in rendered.text]
        assert missing == [], markdown[:end]


@pytest.mark.parametrize(
    "markdown",
    [
        "\U0001d49c" * 4096,
        "x" * 10_000,
        "**" + "word " * 2000,
        "```python\n" + "print('<a>')\n" * 1500,
        "> " * 300 + "deep",
        "*" * 3000,
        "a" + "`" * 2999,
        "[" * 500 + "a" + "](b)" * 500,
        "||" * 1000,
        "<" * 2000,
        "| a " * 300 + "|\n" + "|-" * 300 + "|\n",
        "[a]: b\n" * 300,
        "$" * 999 + r"\frac{" * 200,
    ],
    ids=lambda markdown: f"{markdown[:8]!r} x {len(markdown)}",
)
def test_long_and_degenerate_texts_are_valid(markdown: str) -> None:
    """Long or deeply nested texts are valid at a dozen prefixes."""
    for end in range(0, len(markdown) + 1, max(1, len(markdown) // 12)):
        rendered = render(markdown[:end])
        assert broken_rules(rendered) == []
        assert not rendered.blank or not markdown[:end].strip("*`$ >|[]")


MARKS = [
    *("a", "1", " ", "\n", "\n\n", "    ", "> ", "- ", "1. ", "# ", "*", "**", "_", "~~", "`", "```"),
    *("||", "|", "|-|-|\n", "$", "$$", "\\(", "\\)", "\\alpha", "\\", "[", "](https://x.org)", "](b)", "!"),
    *("<", ">", "<br>", "&lt;", "\U0001f600"),
]


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(st.lists(st.sampled_from(MARKS), max_size=40).map("".join))
def test_any_sequence_of_marks_is_valid(markdown: str) -> None:
    """Telegram accepts the rendering of any marks in any order."""
    assert broken_rules(render(markdown)) == []


def seen(markdown: str) -> tuple[str, list[str]]:
    """Returns the displayed text, and each entity as its kind and the text that it covers."""
    rendered = render(markdown)
    units = rendered.text.encode("utf-16-le")

    def shown(one: MessageEntity) -> str:
        covered = units[2 * one.offset : 2 * (one.offset + one.length)].decode("utf-16-le")
        detail = one.url or one.language
        return f"{one.type}: {covered}" + (f" ({detail})" if detail else "")

    return rendered.text, [shown(one) for one in rendered.entities]


@pytest.mark.parametrize(
    ("markdown", "text", "entities"),
    [
        # Headings are bold, without marks.
        ("## Plan\nDo it", "Plan\nDo it", ["underline: Plan", "bold: Plan"]),
        ("### Plan", "Plan", ["bold: Plan"]),
        # The first mark of a list makes no heading of the paragraph before it.
        ("Plan\n-", "Plan\n-", []),
        ("> Plan\n> - ", "Plan\n-", ["blockquote: Plan\n-"]),
        ("```\nPlan\n-", "Plan\n-", ["pre: Plan\n-"]),
        ("Plan\n---", "Plan", ["underline: Plan", "bold: Plan"]),
        # Lists have bullets and numbers, tasks have boxes.
        ("- a\n  1. b\n- [ ] c\n- [x] d", "• a\n  1. b\n☐ c\n☑ d", []),
        # Text that looks like HTML is text, in code and outside.
        ("if a<b then c>d", "if a<b then c>d", []),
        ("`a<b>` **<i>**", "a<b> <i>", ["code: a<b>", "bold: <i>"]),
        ("one<br>two", "one\ntwo", []),
        # Code has its language; Telegram knows only one word.
        ("```py title=x\na\n```", "a", ["pre: a (py)"]),
        # A link within code is code, code within a link is a link: one cannot hold the other.
        ("[`f`](https://x.org)", "f", ["text_link: f (https://x.org)"]),
        ("**a `b` c**", "a b c", ["bold: a ", "code: b", "bold:  c"]),
        # Links that lead nowhere are text.
        ("[a](./b) [c](https://x.org/(d))", "a c", ["text_link: c (https://x.org/(d))"]),
        # Reference definitions stay readable, and references link to them.
        ("See [it][1].\n\n[1]: https://x.org", "See it.\n\n[1]: https://x.org", ["text_link: it (https://x.org)"]),
        # Formulas are characters.
        (r"\(\frac{a}{b} \leq x^2\)", "a/b ≤ x²", ["code: a/b ≤ x²"]),
        # Prices are no formulas.
        ("$5 or $6", "$5 or $6", []),
        # A narrow table is one in fixed width; formulas stay in their cells.
        ("| a | f |\n|--|--|\n| b | $x^2$ |", "a | f \n--+---\nb | x²", ["pre: a | f \n--+---\nb | x²"]),
        # Escaped brackets in code are no formulas.
        (r"`\(\alpha\)`", r"\(\alpha\)", [r"code: \(\alpha\)"]),
        # Two pairs of bars are a spoiler, and nothing else.
        ("||it|| was", "it was", ["spoiler: it"]),
        ("a || b || c", "a || b || c", []),
        # A quote in a quote is one quote, and none folds up.
        ("> a\n> > b", "a\nb", ["blockquote: a\nb"]),
        ("> " + "a" * 300, "a" * 300, ["blockquote: " + "a" * 300]),
        # Names with underscores stay as they are.
        ("my_long_name", "my_long_name", []),
        # Halves of a surrogate pair that came apart become one character.
        ("**\ud83d\ude00**", "\U0001f600", ["bold: \U0001f600"]),
        ("\ud83d!", "\ufffd!", []),
    ],
)
def test_render_of_each_construct(markdown: str, text: str, entities: list[str]) -> None:
    """Text and entities of each construct."""
    assert seen(markdown) == (text, entities)


def test_wide_table_becomes_a_list() -> None:
    """A table that a phone would wrap is displayed row by row, with its formatting."""
    text, entities = seen(NASTY["wide table"][0])
    assert text == (
        "• Name: alpha\n  • Meaning: the first letter of quite an old alphabet\n• Name: beta\n  • Meaning: second"
    )
    assert entities == ["bold: alpha", "bold: beta", "text_link: second (https://example.org/b)"]


def test_plain_has_the_same_text() -> None:
    """The fallback for rejected entities does not change the text."""
    for markdown, _ in NASTY.values():
        assert plain(markdown) == render(markdown).text


def test_length_counts_utf16_units() -> None:
    """Telegram's limit is in UTF-16 units: a character beyond the basic plane has two."""
    assert render("a\U0001f600").length == 3


@pytest.mark.parametrize(("markdown", "blank"), [("", True), ("\u200b", True), ("```py\n```", True), ("a", False)])
def test_blank_if_nothing_is_visible(markdown: str, blank: bool) -> None:
    """Telegram rejects such a message as empty."""
    assert render(markdown).blank is blank


def test_render_returns_the_source_if_the_converter_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer is sent as it is, and the log event has no text of it."""

    def fail(*_: object, **__: object) -> None:
        raise IndexError("secret")

    monkeypatch.setattr(paging, "convert", fail)
    with capture_logs() as logs:
        assert render("**a** secret") == Rendered("**a** secret")
    assert [(entry["event"], entry["error"]) for entry in logs] == [("markdown.unrenderable", "IndexError")]
    assert "secret" not in str(logs)


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(text=st.lists(st.sampled_from([*"|<]:\\([->=`$~a \n", "<br>", "\n-", "[a]: b\n"]), max_size=12).map("".join))
def test_workarounds_change_no_text_in_which_nothing_asks_for_them(text: str) -> None:
    """Most answers are rendered without them."""
    assert NEEDED.search(text) or apply_workarounds(text, Work(10_000)) == text
