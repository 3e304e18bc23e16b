"""Exponential backoff."""

import pytest

from core.backoff import Backoff

PAUSES = [
    # failures in a row, pause
    (0, 2.0),  # none yet: the same as after the first
    (1, 2.0),
    (2, 4.0),
    (3, 8.0),
    (5, 32.0),
    (6, 60.0),  # 64 s exceeds the limit
    (10**6, 60.0),  # 2.0**1024 would overflow a float
]


@pytest.mark.parametrize(("failures", "pause_s"), PAUSES)
def test_backoff_doubles_from_the_first_pause_to_the_longest(failures: int, pause_s: float) -> None:
    assert Backoff(first_s=2.0, longest_s=60.0).pause_s(failures) == pause_s


def test_backoff_limits_the_first_pause_too() -> None:
    assert Backoff(first_s=5.0, longest_s=1.0).pause_s(1) == 1.0
