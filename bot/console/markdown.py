"""Prints Markdown on a terminal while it streams: words wrap at the edge, emphasis and code become styles.

A word is printed once it is complete; nothing that was printed is taken back.
"""

import re
from collections.abc import Callable
from unicodedata import combining, east_asian_width

BOLD, CODE, PLAIN = "\x1b[1m", "\x1b[36m", "\x1b[0m"
_WORD = re.compile(r"\n|[ \t]+|[^\s]+")
_FENCE = re.compile(r"\s*(```|~~~)")
_ITEM = re.compile(r"[-*+]|\d{1,3}[.)]")
_STYLE = re.compile("\x1b\\[[0-9]*m")
_MARK = re.compile(r"\*\*|__|`")


def cell_width(text: str) -> int:
    """Returns the columns that a text takes on a terminal."""
    return sum(0 if combining(each) else 2 if east_asian_width(each) in "WF" else 1 for each in text)


class MarkdownStream:
    """Formats one answer.

    Args:
        width: returns the columns of the terminal, which may change.
    """

    def __init__(self, width: Callable[[], int]) -> None:
        self._width = width
        self._pending = ""
        self._column = 0
        self._line = ""
        """The text of the line so far, as the model wrote it."""
        self._gap = ""
        self._hang = 0
        """Columns under which the text of a list's item goes on."""
        self._is_fenced = False
        self._is_heading = False
        self._is_bold = False
        self._is_code = False

    def feed(self, text: str) -> str:
        """Returns what can be printed now."""
        self._pending += text
        end = max(self._pending.rfind(" "), self._pending.rfind("\n")) + 1
        ready, self._pending = self._pending[:end], self._pending[end:]
        return "".join(self._piece(piece) for piece in _WORD.findall(ready))

    def flush(self) -> str:
        """Returns the buffered part of a word, unless it may end within a mark."""
        if not self._pending or self._pending[-1] in "*_`#":
            return ""
        begun, self._pending = self._pending, ""
        return self._word(begun)

    def finish(self) -> str:
        """Returns the rest, and ends every style."""
        ready, self._pending = self._pending, ""
        rest = "".join(self._piece(piece) for piece in _WORD.findall(ready))
        is_styled = self._is_bold or self._is_code or self._is_heading or self._is_fenced
        self._is_bold = self._is_code = self._is_heading = self._is_fenced = False
        return f"{rest}{PLAIN}" if is_styled else rest

    def _piece(self, piece: str) -> str:
        if piece == "\n":
            return self._end_line()
        if piece.isspace():
            self._line += piece
            if self._is_fenced or not self._line.strip():
                # Indentation, and code as it stands.
                self._column += len(piece)
                return piece
            self._gap = " "
            return ""
        return self._word(piece)

    def _end_line(self) -> str:
        is_fence = _FENCE.match(self._line) is not None
        if is_fence:
            self._is_fenced = not self._is_fenced
        style = CODE if is_fence and self._is_fenced else PLAIN if is_fence or self._is_heading else ""
        self._is_heading, self._line, self._column, self._gap, self._hang = False, "", 0, "", 0
        return f"{style}\n"

    def _word(self, word: str) -> str:
        is_first = not self._line.strip()
        self._line += word
        if self._is_fenced or (is_first and _FENCE.match(word)):
            self._column += cell_width(word)
            return f"{self._take_gap()}{word}"
        before = ""
        if is_first and _ITEM.fullmatch(word):
            self._hang = self._column + len(word) + 1
        if is_first and set(word) == {"#"}:
            self._is_heading, before = True, BOLD
            word = ""
        shown = self._style(word)
        length = cell_width(_STYLE.sub("", shown))
        gap = self._take_gap() if self._column else ""
        if gap and self._column + len(gap) + length > self._width():
            gap, self._column = "\n" + " " * self._hang, self._hang
        elif gap:
            self._column += len(gap)
        self._column += length
        return f"{before}{gap}{shown}"

    def _take_gap(self) -> str:
        gap, self._gap = self._gap, ""
        return gap

    def _style(self, word: str) -> str:
        """Returns a word with its marks as styles; a mark within a word, as in 2**3, stays."""
        shown, position = "", 0
        for mark in _MARK.finditer(word):
            before, after = word[: mark.start()], word[mark.end() :]
            opens = not before[-1:].isalnum() and after[:1] not in {"", mark[0][0]}
            closes = before[-1:] not in {"", mark[0][0]} and not after[:1].isalnum()
            change = self._toggle(mark[0], opens=opens, closes=closes)
            if change is not None:
                shown += word[position : mark.start()] + change
                position = mark.end()
        return shown + word[position:]

    def _toggle(self, mark: str, *, opens: bool, closes: bool) -> str | None:
        """Returns the style that a mark begins or ends; None if it is no mark here."""
        if mark == "`":
            if not (closes if self._is_code else opens):
                return None
            self._is_code = not self._is_code
            return CODE if self._is_code else self._resume()
        if self._is_code or not (closes if self._is_bold else opens):
            return None
        self._is_bold = not self._is_bold
        return BOLD if self._is_bold else self._resume()

    def _resume(self) -> str:
        return PLAIN + (BOLD if self._is_bold or self._is_heading else "")
