"""Markdown on a terminal: wrapping and styles, independent of how the stream is cut."""

import re
import time

import pytest

from bot.console.markdown import BOLD, CODE, PLAIN, MarkdownStream, cell_width

TEXT = (
    "# Leap years\n\nA **leap year** has `366` days, and 2**3 stays.\n\n- one\n- two\n\n"
    "```python\nx = 1  # a long line of code\n```\n"
    "See [the docs](https://example.org/a), a[0] and `[x](y)`.\n\n| a | b |\n|---|--:|\n| **one** | 2 |\n\nEnd"
)


def formatted(text: str, width: int = 80, size: int = 1000) -> str:
    """Formats a text that arrives in pieces of this size."""
    stream = MarkdownStream(lambda: width)
    return "".join(stream.feed(text[at : at + size]) for at in range(0, len(text), size)) + stream.finish()


def test_markdown_becomes_styles() -> None:
    assert formatted(TEXT) == (
        f"{BOLD}Leap years{PLAIN}\n\n"
        f"A {BOLD}leap year{PLAIN} has {CODE}366{PLAIN} days, and 2**3 stays.\n\n"
        f"- one\n- two\n\n```python{CODE}\nx = 1  # a long line of code\n```{PLAIN}\n"
        f"See the docs (https://example.org/a), a[0] and {CODE}[x](y){PLAIN}.\n\n"
        f"{BOLD}a    b{PLAIN}\n───  ─\none  2\n\nEnd"
    )


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_pieces_make_no_difference(size: int) -> None:
    assert formatted(TEXT, 20, size) == formatted(TEXT, 20)


@pytest.mark.parametrize("width", [20, 40, 120])
def test_words_wrap_at_the_edge(width: int) -> None:
    """No line is wider than the terminal, no word is cut, and code keeps its lines."""
    words = "Every fourth year has one day more than the others, except for most centuries."
    lines = formatted(words, width).split("\n")
    assert " ".join(lines) == words
    assert all(cell_width(line) <= width for line in lines)
    code = "```\n" + "x" * 200 + " y\n```\n"
    assert "x" * 200 + " y" in formatted(code, width)


def test_wide_characters_count_twice() -> None:
    lines = formatted("日本 日本 日本", 10).split("\n")
    assert lines == ["日本 日本", "日本"]


@pytest.mark.parametrize("text", ["**", "a ** b", "`", "** x", "x **", "2 ** 3 ** 4", "__init__", "snake__case", ""])
def test_marks_that_are_none_stay(text: str) -> None:
    assert formatted(text).replace(BOLD, "").replace(PLAIN, "").replace(CODE, "") in {text, "init"}


def test_an_unfinished_mark_ends_with_the_answer() -> None:
    assert formatted("a **bold end").endswith(PLAIN)


def test_a_word_that_stands_still_is_printed_once() -> None:
    stream = MarkdownStream(lambda: 80)
    assert (stream.feed("The aud"), stream.flush(), stream.flush()) == ("The", " aud", "")
    assert stream.feed("ience **") == "ience"
    assert stream.flush() == "", "it may be half a mark"
    assert stream.feed("hears** it ") + stream.finish() == f" {BOLD}hears{PLAIN} it"


def test_items_of_a_list_hang() -> None:
    assert (
        formatted("- one two three four five\n2. one two three", 20) == "- one two three four\n  five\n2. one two three"
    )


def test_a_quotation_goes_on_as_one() -> None:
    assert formatted("> one two three four five", 12) == "> one two\n> three four\n> five"


@pytest.mark.parametrize("text", ["call f(**kwargs) or **x", "a **b", "see `x"])
def test_a_mark_that_is_not_closed_styles_its_own_paragraph_only(text: str) -> None:
    assert PLAIN in formatted(f"{text}\n\nThe rest").partition("The rest")[0]


ROWS = "| Sort | Best | Worst |\n|---|:-:|--:|\n| Timsort | O(n) | O(n log n) |\n| Quick \\| Dual | | O(n²) |\n"


def shown(text: str, width: int) -> list[str]:
    """The lines on a terminal, without styles."""
    return [line.rstrip() for line in re.sub("\x1b\\[[0-9]*m", "", formatted(text, width)).splitlines()]


def test_a_table_has_columns() -> None:
    assert shown(ROWS, 40) == [
        "Sort          Best       Worst",
        "────────────  ────  ──────────",
        "Timsort       O(n)  O(n log n)",
        "Quick | Dual             O(n²)",
    ]


def test_a_wide_cell_wraps_in_its_column() -> None:
    text = "| a | b |\n|---|---|\n| one two three four five six | x |\n"
    assert shown(text, 20) == ["a                  b", "─────────────────  ─", "one two three      x", "four five six"]


def test_a_table_on_a_narrow_terminal_is_a_list_of_its_rows() -> None:
    assert shown(ROWS, 20) == [
        "Timsort", "  Best: O(n)", "  Worst: O(n log n)", "Quick | Dual", "  Worst: O(n²)",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "text",
    ["|x| is a value", "| a | b |\nno rule", "| a |\n| b |", "```\n| a |\n|---|\n```", "|" * 99 + "\n" + "|-" * 99],
)
def test_lines_with_bars_that_are_no_table_stay(text: str) -> None:
    assert " ".join(shown(text, 300)) == " ".join(text.splitlines())


@pytest.mark.parametrize(
    "text",
    [
        "| `a` " * 3000 + "\\",  # code in cells, and half an escape
        "| a | b |\n|---|---|\n" + "| x " * 10_000,
        f"| a | b |\n|---|---|\n| {'x' * 20_000} | y |\n",
        "[" * 30_000 + " x",
        "[a](b" * 5_000 + " x",
        "a [b " * 3_000,
    ],
)
def test_the_work_is_linear_in_the_text(text: str) -> None:
    began = time.process_time()
    formatted(text, 80, 100)
    assert time.process_time() - began < 0.5
