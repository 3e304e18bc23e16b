"""Durations as operators write and read them."""

import pytest

from core.durations import format_duration, parse_duration


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("90s", 90),
        ("10m", 600),
        ("2h", 7200),
        ("5", 300),  # a plain number is minutes
        ("10M", 600),
        (" 1s ", 1),
        ("168h", 604_800),  # a week, the longest
        ("169h", None),
        ("0", None),
        ("", None),
        ("m", None),
        ("-5m", None),
        ("1.5h", None),
        ("1d", None),
        ("10 m", None),  # the command joins the words first
        ("٣m", None),  # digits of another script
        ("9999999999999999s", None),
    ],
)
def test_parse_duration(written: str, seconds: float | None) -> None:
    assert parse_duration(written) == seconds


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.2, "1s"),  # rounded up, never early
        (45, "45s"),
        (59.5, "1m"),
        (260, "4m 20s"),
        (600, "10m"),
        (3599.9, "1h"),
        (7500, "2h 5m"),
        (7201, "2h 1m"),
        (-3, "0s"),
    ],
)
def test_format_duration(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text
