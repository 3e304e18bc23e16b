import pytest

from core.shortening import shorten, shorten_line


@pytest.mark.parametrize(
    ("text", "longest", "shown"),
    [
        ("", 3, ""),
        ("abc", 3, "abc"),
        ("abcd", 3, "ab…"),
        ("a\nb", 3, "a\nb"),
    ],
)
def test_shorten_ends_a_cut_text_with_an_ellipsis(text: str, longest: int, shown: str) -> None:
    assert shorten(text, longest) == shown


def test_shorten_line_counts_after_white_space_is_collapsed() -> None:
    assert shorten_line("  a \n\n b\t", 3) == "a b"
    assert shorten_line("a\nb c", 4) == "a b…"
