"""Exponential backoff."""

from dataclasses import dataclass

# 2.0**1024 overflows a float; every pause reaches its limit long before that.
_LARGEST_EXPONENT = 64


@dataclass(frozen=True, slots=True)
class Backoff:
    """Pauses that double from `first_s` up to `longest_s`, in seconds."""

    first_s: float
    longest_s: float

    def pause_s(self, failures: int) -> float:
        """Return the pause after this many failures in a row, the first of which counts as 1."""
        return min(self.first_s * 2.0 ** min(max(failures - 1, 0), _LARGEST_EXPONENT), self.longest_s)
