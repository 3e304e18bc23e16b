"""Bounds the work of rendering.

The work is counted rather than timed, so that a text renders the same on every machine and every time. A unit is one
event of the parser, or 64 characters that it reads: 2 to 3 µs of CPU (`benchmarks/rendering.py`).
"""

from dataclasses import dataclass
from typing import Final

CHARACTERS_PER_UNIT: Final = 64


@dataclass(frozen=True, slots=True)
class RenderLimits:
    """Limits of rendering; what exceeds them is shown as plain text.

    Args:
        update: units of one update of an answer, 30 to 40 ms.
        text: units of rendering one text.
        source: characters of Markdown that one page may hold: links may need many to show few.
    """

    update: int = 14_000
    text: int = 7_000
    source: int = 12_288


class TooMuchWork(Exception):
    """The text needs more work than it may cost."""


class Work:
    """Counts units of work up to a limit."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.spent = 0

    @property
    def left(self) -> int:
        """Units until the limit."""
        return max(0, self._limit - self.spent)

    def charge(self, units: int) -> None:
        """Counts units.

        Raises:
            TooMuchWork: the limit is exceeded.
        """
        self.spent += units
        if self.spent > self._limit:
            raise TooMuchWork

    def charge_text(self, text: str) -> None:
        """Counts a text that is read once.

        Raises:
            TooMuchWork: the limit is exceeded.
        """
        self.charge(1 + len(text) // CHARACTERS_PER_UNIT)
