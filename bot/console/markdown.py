"""Prints Markdown on a terminal while it streams: words wrap at the edge, emphasis and code become styles.

A word is printed once it is complete, a link and a table too; nothing that was printed is taken back.
"""

import re
from collections.abc import Callable, Sequence
from unicodedata import category, east_asian_width

MIN_COLUMN = 12
"""Minimum width of a wrapped cell in columns; narrower rows are shown as lists."""
GAP = "  "
MAX_COLUMNS = 30
"""Maximum columns of a formatted table; a larger one is shown as written, since its cells may expand a thousandfold."""
_CELL = re.compile(r"((?:[^|\\]|\\.?)*)(?:\||$)")
_RULE = re.compile(r":?-+:?")
_LINK = re.compile(r"!?\[([^\]\n]{1,200})\]\(([^()\s]{1,1000})\)")
_WORD = re.compile(rf"\n|[ \t]+|[^\s\[]*{_LINK.pattern}\S*|\S+")
_BEGUN_LINK = re.compile(r"[^\s\[]*\[[^\]\n]{0,200}(\](\([^()\s]{0,1000})?)?$")
_LONGEST_LINK = 1300
_FENCE = re.compile(r"\s*(```|~~~)")
_ITEM = re.compile(r"[-*+]|\d{1,3}[.)]")
_STYLE = re.compile("\x1b\\[[0-9]*m")
_MARK = re.compile(r"\*\*|__|`")


def cell_width(text: str) -> int:
    """Returns the columns that a text takes on a terminal."""
    return sum(
        0 if category(each) in {"Mn", "Me", "Cf"} else 2 if east_asian_width(each) in "WF" else 1 for each in text
    )


def is_table(lines: Sequence[str]) -> bool:
    """Returns whether lines that begin with a bar are a table: its second line divides the head from the rows."""
    return (
        len(lines) > 1
        and all(map(_RULE.fullmatch, _split_row(lines[1])))
        and 0 < len(_split_row(lines[0])) <= MAX_COLUMNS
    )


def format_table(lines: Sequence[str], width: int, show: Callable[[str], str], head: Callable[[str], str]) -> str:
    """Returns a table for a terminal, with a newline behind each line.

    Args:
        lines: head, rule and rows as the model wrote them.
        width: columns of the terminal.
        show: returns the words of a cell without their marks.
        head: styles a heading.
    """
    names, *rows = [[show(cell) for cell in _split_row(line)] for number, line in enumerate(lines) if number != 1]
    rows = [[*row, *[""] * len(names)][: len(names)] for row in rows]
    is_right = [rule.endswith(":") and not rule.startswith(":") for rule in _split_row(lines[1])]
    is_right = [*is_right, *[False] * len(names)][: len(names)]
    widths = _fit([max(map(cell_width, column)) for column in zip(names, *rows, strict=True)], width)
    if widths is None:
        return "".join(_list_row(names, row, width, head) for row in rows)
    rule = GAP.join("─" * each for each in widths)
    shown = [_lay_out(names, widths, is_right, head), f"{rule}\n", *(_lay_out(row, widths, is_right) for row in rows)]
    return "".join(shown)


def wrap(text: str, width: int) -> list[str]:
    """Returns the lines of a text that is broken between words; a longer word is broken where the line ends."""
    lines, used = [""], 0
    for word in text.split():
        gap, length = " " if lines[-1] else "", cell_width(word)
        if used + len(gap) + length <= width:
            lines[-1] += gap + word
            used += len(gap) + length
            continue
        if lines[-1]:
            lines.append("")
            used = 0
        for character in word:
            length = cell_width(character)
            if used + length > width:
                lines.append("")
                used = 0
            lines[-1] += character
            used += length
    return lines


def _split_row(line: str) -> list[str]:
    inner = line.strip().removeprefix("|")
    if inner.endswith("|") and not inner.endswith("\\|"):
        inner = inner[:-1]
    cells = [match[1] for match in _CELL.finditer(inner)]
    # The pattern also matches the empty text at the end.
    return [cell.strip().replace("\\|", "|") for cell in cells[:-1] or cells]


def _fit(widths: list[int], width: int) -> list[int] | None:
    """Returns the widths of the columns, the widest ones narrowed until they fit; None if they cannot."""
    fitted = [min(each, width) for each in widths]
    while sum(fitted) + len(GAP) * (len(fitted) - 1) > width:
        widest = fitted.index(max(fitted))
        if fitted[widest] <= MIN_COLUMN:
            return None
        fitted[widest] -= 1
    return fitted


def _lay_out(
    cells: Sequence[str], widths: Sequence[int], is_right: Sequence[bool], style: Callable[[str], str] = str
) -> str:
    wrapped = [wrap(cell, width) for cell, width in zip(cells, widths, strict=True)]
    lines: list[str] = []
    for number in range(max(map(len, wrapped))):
        parts = [lines_of_cell[number] if number < len(lines_of_cell) else "" for lines_of_cell in wrapped]
        padded = [
            " " * (width - cell_width(part)) + part if right else part + " " * (width - cell_width(part))
            for part, width, right in zip(parts, widths, is_right, strict=True)
        ]
        lines.append(style(GAP.join(padded).rstrip()) + "\n")
    return "".join(lines)


def _list_row(names: Sequence[str], row: Sequence[str], width: int, head: Callable[[str], str]) -> str:
    """Returns the first value as a heading, and each of the others with the name of its column."""
    first, *others = [
        (name, value) for number, (name, value) in enumerate(zip(names, row, strict=True)) if value or number == 0
    ]
    lines = [head(line) for line in wrap(first[1], width)]
    for name, value in others:
        begun, *rest = wrap(f"{name}: {value}" if name else value, width - 2)
        lines += [f"{GAP}{begun}", *(f"{GAP}{line}" for line in rest)]
    return "".join(f"{line}\n" for line in lines)


BOLD, CODE, PLAIN = "\x1b[1m", "\x1b[36m", "\x1b[0m"


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
        self._margin = ""
        """Begins the further lines of a list's item and of a quotation."""
        self._table: list[str] = []
        """The lines of a table, or of the possible beginning of one."""
        self._is_fenced = False
        self._is_heading = False
        self._is_bold = False
        self._is_code = False

    def feed(self, text: str) -> str:
        """Returns the text that is complete enough to print."""
        self._pending += text
        end = max(self._pending.rfind(" "), self._pending.rfind("\n")) + 1
        if begun := _BEGUN_LINK.search(self._pending, max(0, end - _LONGEST_LINK), end):
            end = begun.start()
        ready, self._pending = self._pending[:end], self._pending[end:]
        return self._pieces(ready)

    def flush(self) -> str:
        """Returns the buffered part of a word, unless it may end within a mark."""
        if not self._pending or self._pending[-1] in "*_`#" or "[" in self._pending or self._is_in_table(self._pending):
            return ""
        begun, self._pending = self._pending, ""
        return self._word(begun)

    def finish(self) -> str:
        """Returns the rest, and ends every style."""
        ready, self._pending = self._pending, ""
        rest = self._pieces(ready) + self._end_table(is_line_open=True)
        is_styled = self._is_bold or self._is_code or self._is_heading or self._is_fenced
        self._is_bold = self._is_code = self._is_heading = self._is_fenced = False
        return f"{rest}{PLAIN}" if is_styled else rest

    def _pieces(self, ready: str) -> str:
        return "".join(self._piece(match[0]) for match in _WORD.finditer(ready))

    def _piece(self, piece: str) -> str:
        if self._is_in_table(piece):
            return self._take_cell(piece)
        return self._end_table() + self._running_piece(piece)

    def _running_piece(self, piece: str) -> str:
        if piece == "\n":
            return self._end_line()
        if " " in piece.strip():
            return self._link(piece)
        if piece.isspace():
            self._line += piece
            if self._is_fenced or not self._line.strip():
                # Indentation, and code as it stands.
                self._column += len(piece)
                return piece
            self._gap = " "
            return ""
        return self._word(piece)

    def _link(self, piece: str) -> str:
        """Returns a link as its words with the address behind them; in code it stays."""
        is_code = self._is_fenced or self._is_code or "`" in piece
        shown = piece if is_code else _LINK.sub(_spell_out, piece)
        return "".join(map(self._running_piece, re.findall(r"[ \t]+|\S+", shown)))

    def _is_in_table(self, piece: str) -> bool:
        """Returns whether a piece belongs to a table: its line began with a bar, or begins with one."""
        if self._table and not self._table[-1].endswith("\n"):
            return True
        return not self._is_fenced and not self._line.strip() and piece.startswith("|")

    def _take_cell(self, piece: str) -> str:
        if not self._table or self._table[-1].endswith("\n"):
            self._table.append("")
        self._table[-1] += piece
        self._line = ""
        return ""

    def _end_table(self, *, is_line_open: bool = False) -> str:
        """Returns the table that has ended; its lines unchanged where they are no table."""
        if not self._table:
            return ""
        lines, self._table = self._table, []
        if not is_table(lines):
            return "".join(self._running_piece(match[0]) for line in lines for match in _WORD.finditer(line))
        shown = format_table(lines, self._width(), _plain, lambda name: f"{BOLD}{name}{PLAIN}")
        return shown.removesuffix("\n") if is_line_open and not lines[-1].endswith("\n") else shown

    def _end_line(self) -> str:
        is_fence = _FENCE.match(self._line) is not None
        if is_fence:
            self._is_fenced = not self._is_fenced
        # Emphasis does not go on in another paragraph: a mark that is never closed must not style the rest.
        is_left_open = not self._line.strip() and (self._is_bold or self._is_code)
        if is_left_open:
            self._is_bold = self._is_code = False
        ends_style = is_fence or self._is_heading or is_left_open
        style = CODE if is_fence and self._is_fenced else PLAIN if ends_style else ""
        self._is_heading, self._line, self._column, self._gap, self._margin = False, "", 0, "", ""
        return f"{style}\n"

    def _word(self, word: str) -> str:
        is_first = not self._line.strip()
        self._line += word
        if self._is_fenced or (is_first and _FENCE.match(word)):
            self._column += cell_width(word)
            return f"{self._take_gap()}{word}"
        before = ""
        if is_first and _ITEM.fullmatch(word):
            self._margin = " " * (self._column + len(word) + 1)
        if is_first and word == ">":
            self._margin = " " * self._column + "> "
        if is_first and set(word) == {"#"}:
            self._is_heading, before = True, BOLD
            word = ""
        shown = self._style(word)
        length = cell_width(_STYLE.sub("", shown))
        gap = self._take_gap() if self._column else ""
        if gap and self._column + len(gap) + length > self._width():
            gap, self._column = f"\n{self._margin}", len(self._margin)
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


def _spell_out(link: re.Match[str]) -> str:
    text, address = link[1], link[2]
    return address if text == address else f"{text} ({address})"


def _plain(cell: str) -> str:
    """Returns the words of a cell of a table without marks."""
    stream = MarkdownStream(lambda: len(cell) + 1000)
    return _STYLE.sub("", stream.feed(cell) + stream.finish()).replace("<br>", " ")
