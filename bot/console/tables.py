"""Tables of an answer on a terminal: columns where they fit, else one value a line."""

import re
from collections.abc import Callable, Sequence
from unicodedata import category, east_asian_width

MIN_COLUMN = 12
"""Columns that a wrapped cell keeps at least; below it a row is shown as a list."""
GAP = "  "
MAX_COLUMNS = 30
"""A table of more is shown as it was written: its cells could be a thousand times its source."""
_CELL = re.compile(r"((?:[^|\\]|\\.?)*)(?:\||$)")
_RULE = re.compile(r":?-+:?")


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
