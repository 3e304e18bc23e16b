"""Assembles one tool call from its pieces, in the ways that servers cut and repeat them."""

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any

from core.bounded_json import parse_json

_MAX_PARSES = 32
"""Times that the arguments of one call are parsed: a server may repeat its name with each of 80,000 pieces."""


@dataclass
class CallPieces:
    """The latest tool call under one index."""

    key: Hashable
    call_id: str | None = None
    name: str | None = None
    args: list[str | dict[str, Any]] = field(default_factory=list[str | dict[str, Any]])
    parses_left: int = _MAX_PARSES

    def is_another(self, call_id: str | None, name: str | None) -> bool:
        """Returns whether a delta begins another call: a name with another id, or without ids, after whole arguments.

        Some servers invent an id for each piece; the name comes with the first one only.
        """
        if call_id and self.call_id:
            return bool(name) and call_id != self.call_id
        return bool(name) and not call_id and self._has_whole_args()

    def add_name(self, name: str | None) -> str | None:
        """Returns what a delta adds to the name, which servers repeat or grow in each piece."""
        known = self.name or ""
        if not name:
            return None
        added = name.removeprefix(known)
        self.name = known + added
        return added or None

    def find_whole_args(self) -> str | None:
        """Returns the arguments in place of their joined pieces; None where these are valid, or cannot be repaired.

        Each piece repeats those before it, the last one repeats them all, or the whole is encoded twice.
        """
        pieces = [piece for piece in self.args if isinstance(piece, str)]
        text = "".join(pieces)
        value = _parse(text)
        if isinstance(value, str) and isinstance(_parse(value), dict):
            return value
        if value is not None or len(pieces) <= 1:
            return None  # one piece repeats nothing
        *before, last = pieces
        if pieces[0].strip() == "{}":
            # Converters from Anthropic's protocol begin with the empty object.
            rest = "".join(pieces[1:])
            return rest if isinstance(_parse(rest), dict) else None
        is_repeated = "".join(before) == last or all(last.startswith(piece) for piece in before)
        return last if is_repeated and isinstance(_parse(last), dict) else None

    def _has_whole_args(self) -> bool:
        if any(isinstance(part, dict) for part in self.args):
            return True
        if not str(self.args[-1] if self.args else "").rstrip().endswith("}") or not self.parses_left:
            return False
        self.parses_left -= 1
        return _parse("".join(part for part in self.args if isinstance(part, str))) is not None


def _parse(text: str) -> object:
    """Returns the value of a JSON text; None where it is none."""
    try:
        return parse_json(text)
    except ValueError:
        return None
