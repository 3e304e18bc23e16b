"""Console output, styled where the terminal supports it."""

import io
import os
import re
import shutil
import textwrap
from typing import TextIO

from bot.console.markdown import MarkdownStream, cell_width

_PLAIN, _DIM, _NOTED = "\x1b[0m", "\x1b[2m", "\x1b[33m"
_CLEAR_LINE = "\r\x1b[K"

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
        self._has_status = False
        # Answers are formatted on a terminal only: in a pipe they are what the model wrote.
        self._is_formatted = self._styled and stream.isatty()
        self._answer: MarkdownStream | None = None
        self._held: list[str] = []

    def error_stream(self) -> TextIO:
        """Returns a stream for log lines: those that are written during an answer follow it."""
        return _ErrorStream(self)

    def write_log(self, text: str) -> None:
        """Writes log lines now, or after the answer that is being written."""
        if self._is_formatted and (self._in_line or self._answer is not None):
            self._held.append(text)
            return
        self.clear_status()
        self._remarks.write(text)
        self._remarks.flush()

    def show_status(self, text: str) -> None:
        """Shows a status line on a terminal; the next output replaces it."""
        if not self._is_formatted or self._in_line:
            return
        width = _columns() - 1
        while cell_width(text) > width:
            text = text[:-1]
        self._stream.write(f"{_CLEAR_LINE}{_DIM}{_CONTROL.sub('', text)}{_PLAIN}")
        self._stream.flush()
        self._has_status = True

    def clear_status(self) -> None:
        """Removes the status line."""
        if self._has_status:
            self._stream.write(_CLEAR_LINE)
            self._stream.flush()
            self._has_status = False

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
        if self._is_formatted and clean:
            self._answer = self._answer or MarkdownStream(_columns)
            clean = self._answer.feed(clean)
        self._put(clean)

    def flush_word(self) -> None:
        """Prints the buffered part of a word when an answer pauses within it."""
        if self._answer is not None:
            self._put(self._answer.flush())

    def _put(self, text: str) -> None:
        if text:
            self.clear_status()
            self._stream.write(text)
            self._in_line = not text.endswith("\n")
        self._stream.flush()

    def end_line(self) -> None:
        """Ends an answer, and moves to the start of a line."""
        if self._answer is not None:
            rest, self._answer = self._answer.finish(), None
            self._put(rest)
        self.clear_status()
        if self._in_line:
            self._stream.write("\n")
            self._stream.flush()
            self._in_line = False
        held, self._held = self._held, []
        self._remarks.writelines(held)

    def print_blank_line(self) -> None:
        """Prints an empty line."""
        self.end_line()
        self._remarks.write("\n")
        self._remarks.flush()

    def _print(self, text: str, style: str | None = None) -> None:
        self.end_line()
        clean = _CONTROL.sub("", text)
        if self._is_formatted:
            clean = "\n".join(_wrap(line, _columns()) for line in clean.split("\n"))
        self._remarks.write(f"{style}{clean}{_PLAIN}\n" if style and self._styled else f"{clean}\n")
        self._remarks.flush()


class _ErrorStream(io.StringIO):
    def __init__(self, terminal: Terminal) -> None:
        super().__init__()
        self._terminal = terminal

    def write(self, text: str, /) -> int:
        self._terminal.write_log(text)
        return len(text)

    def isatty(self) -> bool:
        return True


def _wrap(line: str, width: int) -> str:
    if cell_width(line) <= width:
        return line
    return textwrap.fill(
        line, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False, drop_whitespace=True
    )


def _columns() -> int:
    return max(shutil.get_terminal_size().columns, 20)


def _supports_styles(stream: TextIO) -> bool:
    return stream.isatty() and os.environ.get("TERM") != "dumb" and not os.environ.get("NO_COLOR")
