"""What is written to the terminal, or to whatever takes its place."""

import os
import re
from typing import TextIO

_PLAIN, _DIM, _NOTED = "\x1b[0m", "\x1b[2m", "\x1b[33m"

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""All but tab and newline: what a model or a server wrote must not move the cursor, or worse, do more."""


class Terminal:
    """Lines and pieces of answers; styled only on a terminal that shows styles.

    Args:
        stream: where to.
        styled: whether to send ANSI codes; decided by the stream and the environment when None.
    """

    def __init__(self, stream: TextIO, *, styled: bool | None = None) -> None:
        self._stream = stream
        self._styled = _shows_styles(stream) if styled is None else styled
        self._in_line = False

    def say(self, text: str) -> None:
        """A text on lines of its own."""
        self._lines(text)

    def aside(self, text: str) -> None:
        """Something beside the conversation: dim."""
        self._lines(text, _DIM)

    def note(self, text: str) -> None:
        """Something beside the conversation that is worth seeing."""
        self._lines(text, _NOTED)

    def piece(self, text: str) -> None:
        """The next piece of an answer, at once."""
        clean = _CONTROL.sub("", text)
        if clean:
            self._stream.write(clean)
            self._in_line = not clean.endswith("\n")
        self._stream.flush()

    def end_line(self) -> None:
        """Go on at the beginning of a line."""
        if self._in_line:
            self._stream.write("\n")
            self._stream.flush()
            self._in_line = False

    def gap(self) -> None:
        """An empty line."""
        self.end_line()
        self._stream.write("\n")
        self._stream.flush()

    def _lines(self, text: str, style: str | None = None) -> None:
        self.end_line()
        clean = _CONTROL.sub("", text)
        self._stream.write(f"{style}{clean}{_PLAIN}\n" if style and self._styled else f"{clean}\n")
        self._stream.flush()


def _shows_styles(stream: TextIO) -> bool:
    return stream.isatty() and os.environ.get("TERM") != "dumb" and not os.environ.get("NO_COLOR")
