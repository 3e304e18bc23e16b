"""Markdown on a terminal: wrapping and styles, whatever the pieces of the stream."""

import pytest

from bot.console.markdown import BOLD, CODE, PLAIN, MarkdownStream, cell_width

TEXT = (
    "# Leap years\n\nA **leap year** has `366` days, and 2**3 stays.\n\n- one\n- two\n\n"
    "```python\nx = 1  # a long line of code\n```\nEnd"
)


def formatted(text: str, width: int = 80, size: int = 1000) -> str:
    """Formats a text that arrives in pieces of this size."""
    stream = MarkdownStream(lambda: width)
    return "".join(stream.feed(text[at : at + size]) for at in range(0, len(text), size)) + stream.finish()


def test_markdown_becomes_styles() -> None:
    assert formatted(TEXT) == (
        f"{BOLD}Leap years{PLAIN}\n\n"
        f"A {BOLD}leap year{PLAIN} has {CODE}366{PLAIN} days, and 2**3 stays.\n\n"
        f"- one\n- two\n\n```python{CODE}\nx = 1  # a long line of code\n```{PLAIN}\nEnd"
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
