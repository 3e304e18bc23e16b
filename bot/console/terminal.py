"""Console output, styled where the terminal supports it."""

import os
import re
from typing import TextIO

_PLAIN, _DIM, _NOTED = "\x1b[0m", "\x1b[2m", "\x1b[33m"

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""Control characters except tab and newline: text of a model or server must not control the terminal."""


class Terminal:
    """Writes chunks of answers, and lines of remarks: all that is no answer.

    Args:
        stream: gets the answers.
        remarks: gets the remarks; None: the same stream.
        styled: whether to use ANSI codes; None decides by the stream and the environment.
    """

    def __init__(self, stream: TextIO, remarks: TextIO | None = None, *, styled: bool | None = None) -> None:
        self._stream = stream
        self._remarks = remarks or stream
        self._styled = _supports_styles(self._remarks) if styled is None else styled
        self._in_line = False

    def print(self, text: str) -> None:
        """Prints text on its own lines."""
        self._print(text)

    def print_dimmed(self, text: str) -> None:
        """Prints a dimmed remark."""
        self._print(text, _DIM)

    def print_highlighted(self, text: str) -> None:
        """Prints a highlighted remark."""
        self._print(text, _NOTED)

    def write(self, text: str) -> None:
        """Prints the next chunk of an answer without buffering."""
        clean = _CONTROL.sub("", text)
        if clean:
            self._stream.write(clean)
            self._in_line = not clean.endswith("\n")
        self._stream.flush()

    def end_line(self) -> None:
        """Moves to the start of a line."""
        if self._in_line:
            self._stream.write("\n")
            self._stream.flush()
            self._in_line = False

    def print_blank_line(self) -> None:
        """Prints an empty line."""
        self.end_line()
        self._remarks.write("\n")
        self._remarks.flush()

    def _print(self, text: str, style: str | None = None) -> None:
        self.end_line()
        clean = _CONTROL.sub("", text)
        self._remarks.write(f"{style}{clean}{_PLAIN}\n" if style and self._styled else f"{clean}\n")
        self._remarks.flush()


def _supports_styles(stream: TextIO) -> bool:
    return stream.isatty() and os.environ.get("TERM") != "dumb" and not os.environ.get("NO_COLOR")
