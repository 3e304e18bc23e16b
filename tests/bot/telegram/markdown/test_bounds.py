"""The work of rendering an update is bounded for any text, counted in calls."""

import sys
from collections.abc import Callable
from functools import partial
from types import FrameType

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from telegramify_markdown import convert as library_convert
from telegramify_markdown.converter import _contains_latex_symbols

from bot.telegram.markdown import render as rendering
from bot.telegram.markdown.formulas import needs_conversion, read_formulas, to_unicode
from bot.telegram.markdown.pages import MESSAGE_LIMIT, Pages
from bot.telegram.markdown.render import MAX_ENTITIES, Rendered, RenderLimits, TooMuchWork, Work, convert
from tests.support.markdown import render

MOST = 4
LIMITS = RenderLimits()
CALLS_PER_UNIT = 20
"""Calls of functions, Python's and C's, in a unit of work: most units take 6 to 12."""
CALLS_PER_CHARACTER = 12
"""Calls for text that is looked at character by character, such as for places to split at."""
PARSED_PER_CHARACTER = 40
"""Characters given to the parser for each one that is rendered: some are parsed for tables, prices and splits."""

# Markers, containers, code, links, tables, formulas, HTML, characters that combine or turn the direction.
# fmt: off
KINDS = [
    *("*", "**", "_", "__", "~", "~~", "`", "```\n", "~~~\n", "|", "||", "$", "$$", "$$\n", "[", "![", "](", "\\"),
    *("**a** ", "*a **b ", "***a** b* ", "_a_ ", "*_", "`a` *b* ", "`a``b```", "||a|| ", "~a~ ", "# a\n", "a\n=\n"),
    *("> ", "> > > a\n", "- ", "- a\n", "  - a\n", "1. ", "> - ", "* * * ", "-\n", "\n \n> ", "```py\na\n```\n"),
    *("[](x)", "[a](http://b.cd) ", "[a]: b\n", "[a][b]", "[^1]", "<", "<b>", "<br>", "<http://a>", "&amp;", "](<"),
    *("|a|b|\n", "|a|b|\n|-|-|\n|c|d|\n\n", "a|b\n-|-\n" + "c\n" * 200, "&#10;\n\n", "a\\\n", "\n", " "),
    "|a" * 200 + "\n" + "|-" * 200 + "\n" + "a\n" * 200,
    *("$a$1", "$x^2$ ", "$\\alpha$ ", "\\(", "\\[", "\\(\\frac12\\)", "$" + "{" * 400 + "$ ", "$$a$$"),
    "$" + "\\underline" * 60 + "x$ ",
    *("e\u0301", "\u0301", "\u202e*a* ", "\u200d", "\U0001f600", "\U0001f1e9", "\U0001d49c", "\ud800", "\r", "word "),
]
# fmt: on
pieces = st.tuples(st.sampled_from(KINDS), st.integers(1, 6000)).map(lambda piece: (piece[0] * piece[1])[:6000])
texts = st.lists(pieces, min_size=1, max_size=4).map("".join)


def count_calls(work: Callable[[], object]) -> int:
    """Returns how many functions are called, generators resumed included."""
    calls = 0

    def count(_frame: FrameType, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event in {"call", "c_call"}

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        work()
    finally:
        sys.setprofile(before)
    return calls


def most_calls(characters: int) -> int:
    """Returns how many calls an update may take that adds this many characters."""
    return CALLS_PER_UNIT * LIMITS.update + CALLS_PER_CHARACTER * (characters + LIMITS.source)


def with_examples(test: Callable[..., None]) -> Callable[..., None]:
    """Adds each kind, at the length of an answer."""
    for kind in KINDS:
        test = example(text=(kind * 8_000)[:8_000])(test)
    return test


@with_examples
@settings(max_examples=20, deadline=None, derandomize=True, database=None)
@given(text=texts)
def test_update_takes_bounded_work_for_any_text(text: str) -> None:
    """A whole answer in one update: calls and parsed characters are bounded by the limits and the length."""
    parsed = 0
    events_with_range = rendering.pyromark.events_with_range

    def counting(markdown: str, **options: object) -> object:
        nonlocal parsed
        parsed += len(markdown)
        return events_with_range(markdown, **options)

    pages = Pages(most=MOST)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rendering.pyromark, "events_with_range", counting)
        assert count_calls(lambda: pages.update(text)) <= most_calls(len(text))
    assert parsed <= PARSED_PER_CHARACTER * min(len(text) + 64, MOST * LIMITS.source)
    assert all(0 < page.rendered.length <= MESSAGE_LIMIT for page in pages.all)


@settings(max_examples=6, deadline=None, derandomize=True, database=None)
@given(text=texts, step=st.integers(300, 3000))
def test_each_update_of_a_stream_takes_bounded_work(text: str, step: int) -> None:
    """However long the answer is already, one more chunk costs no more than the page that it goes to."""
    pages = Pages(most=MOST)
    for end in range(step, len(text) + step, step):
        calls = count_calls(lambda end=end: pages.update(text[:end]))
        assert calls <= most_calls(step)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: repr(kind[:12]))
def test_text_that_shows_something_fills_pages(kind: str) -> None:
    """Source that renders to nothing, such as links without text, is shown as it is written."""
    text = (kind * 9000)[:9000]
    pages = Pages()
    pages.update(text)
    assert (pages.all == ()) == Rendered(rendering.tidy(text)).blank


@pytest.mark.parametrize("length", [100_000, 1_000_000])
def test_pages_after_the_last_are_not_rendered(length: int) -> None:
    """A megabyte costs as much as the pages that are sent."""
    pages = Pages(most=MOST)
    source = "A sentence of an answer that does not end. " * (length // 43)
    assert count_calls(lambda: pages.update(source)) < most_calls(MOST * LIMITS.source)
    assert (len(pages.all), pages.overflows) == (MOST, True)
    assert pages.taken < 6 * MESSAGE_LIMIT


def test_page_beyond_its_work_is_shown_as_written() -> None:
    """A text that cannot be rendered within bounds is shown as its source."""
    source = "**a** _b_ " * 200
    pages = Pages(work=RenderLimits(text=500))
    pages.update(source)
    assert pages.live.rendered.text == source
    assert pages.live.rendered.entities == ()
    pages = Pages()
    pages.update(source)
    assert "**" not in pages.live.rendered.text


def test_entities_stop_where_telegram_stops() -> None:
    """Telegram uses the first hundred entities of a message."""
    rendered = render("**a** " * 150)
    assert [one.offset for one in rendered.entities] == list(range(0, 2 * MAX_ENTITIES, 2))


def test_render_survives_a_panic_of_the_parser(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rust's panics are no `Exception`; the text is shown as it is written."""

    class PanicException(BaseException):
        pass

    def panic(*_: object, **__: object) -> None:
        raise PanicException

    monkeypatch.setattr(rendering.pyromark, "events_with_range", panic)
    assert render("**a**").text == "**a**"


@pytest.mark.parametrize(
    "markdown",
    [
        "# A\n\nb **c** _d_ ~~e~~ `f`\n\n1. g\n   - h\n2. i\n- [x] j\n\n> k\n\n```py\nl\n```\n\n[m](https://n.org) ![o](https://p.org)",
        "| a | b |\n|---|---|\n| c | d |",
        "$x^2 + 1 = 2$ and $$\\frac{a}{b}$$ and \\(\\alpha + 1\\) \\[\\sqrt{2} = x\\]",
        "It costs $10.49 (~$11.20) or $5 and ~3 hours, ~4 at most; $7.",
    ],
)
def test_convert_agrees_with_the_library(markdown: str) -> None:
    """The walker and its buffer, which are private there, work as in the library's own conversion."""
    work = Work(10_000)
    text, spans = convert(*read_formulas(markdown, work), work)
    expected_text, expected_spans = library_convert(markdown)
    assert text.translate(rendering.PLACEHOLDERS).split() == expected_text.replace("⦁", "•").split() or "#" in markdown
    assert [(one.type, one.length) for one in spans if one.type == "code"] == [
        (one.type, one.length) for one in expected_spans if one.type == "code"
    ]


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(
    formula=st.lists(
        st.sampled_from(
            ["\\infty", "\\foobar", "\\,", "\\", "x", "=", " + ", "^2", "\\frac", "\\f", "\n", "{", "-", "\\in"]
        )
    ).map("".join)
)
def test_needs_conversion_agrees_with_the_library(formula: str) -> None:
    """The same formulas are converted, without a search for each of 500 symbols."""
    assert needs_conversion(formula) == _contains_latex_symbols(formula)


@pytest.mark.parametrize("formula", ["\\underline" * 90 + "x", "{" * 900 + "x", "x" * 1001])
def test_hostile_formula_is_shown_as_written(formula: str) -> None:
    """Formulas that would grow or be parsed again and again are left alone."""
    assert to_unicode(formula, Work(10_000)) == formula


def test_formulas_count_as_work() -> None:
    """Many formulas cost more than one."""
    work = Work(200)
    with pytest.raises(TooMuchWork):
        list(map(partial(to_unicode, work=work), ["\\sqrt{" * 20 + "x" + "}" * 20] * 20))
