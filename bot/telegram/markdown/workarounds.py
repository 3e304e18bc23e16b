"""Rewrites Markdown that telegramify-markdown would lose or change."""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, TypeAlias

from bot.telegram.markdown.formulas import find_bracketed, to_unicode
from bot.telegram.markdown.render import ANGLE, BACKSLASH, BREAK, COLON, PIPE, WEB_LINK, Work
from bot.telegram.markdown.structure import Node, Spans, definitions, hide_angles, parse

TABLE_WIDTH: Final = 40
"""Characters of a monospaced line that a phone shows without wrapping."""


_MATH_BRACKET = re.compile(r"\\(?=[()\[\]])")
_LINE_BREAK_TAG = re.compile(rf"{ANGLE}br ?/?>", re.IGNORECASE)
_SPOILER = re.compile(r"(?<![\\|\w])\|\|(?=[^\s|])[^\n|]+(?<=[^\s|])\|\|(?![\w|])")
_PIPES = re.compile(r"(?<!\\)\|{2,}")
_DOLLAR_MATH = re.compile(r"(?<![\\$\w])\$([^$\n]+)\$(?![$\d])")
_FIRST_MARK = re.compile(r"\n[ \t>]*(-{1,2}|={1,2})[ \t]*$")
_TABLE_RULE = re.compile(r"[ \t>]*[|:-][|: \t-]*")
NEEDED: Final = re.compile(rf"[|<]|\]:|\\[(\[]|{_FIRST_MARK.pattern}")
"""Found in each text that `apply_workarounds` changes."""
_NEEDS_A_LOOK = re.compile(rf"\\[(\[]|\||{ANGLE}br", re.IGNORECASE)

_DEFINITION_PASSES = 4
"""Definitions of one label that are kept visible one by one."""
_CELLS = 4096
"""Cells of a table; the parser fills rows that are shorter than the header."""
_TABLE_SIZE = 32_768
"""Characters of a table if every column had the width of its longest line."""

_Edit: TypeAlias = tuple[int, int, str]


def apply_workarounds(source: str, work: Work) -> str:
    """Rewrites a `tidy` text so that the converter shows all of it. The result may contain placeholders.

    Raises:
        TooMuchWork: it needs more than `work` allows.
    """
    text = _show_definitions(_delay_heading(hide_angles(_hide_vast_tables(source)), work), work)
    if not _NEEDS_A_LOOK.search(text):
        return text
    nodes = parse(text, work)
    if wide := [(table, rows) for table, rows in _top_tables(text, nodes) if _is_wide(rows)]:
        text = _apply_edits(text, [(table.start, table.end, _as_list(rows)) for table, rows in wide])
        nodes = parse(text, work)
    code_nodes = [node for node in nodes if node.kind in {"Code", "CodeBlock"}]
    table_nodes = [node for node in nodes if node.kind == "Table"]
    code, tables = Spans(code_nodes), Spans(table_nodes)
    edits = [
        *_escape_code_brackets(text, code_nodes),
        *_replace_breaks(text, code, tables),
        *_mark_spoilers(text, code, tables),
        *_convert_table_formulas(text, code, table_nodes, work),
    ]
    work.charge(len(edits))
    return _apply_edits(text, sorted(edits))


def _hide_vast_tables(text: str) -> str:
    """Hides the pipes of tables that would grow: a wide column, or many, in each of many rows."""
    if "|" not in text:
        return text
    lines = text.split("\n")
    start = 0
    while start < len(lines):
        end = start
        while end < len(lines) and lines[end].strip(" \t>"):
            end += 1
        block = lines[start:end]
        if any("|" in line and _TABLE_RULE.fullmatch(line) for line in block):
            columns, width = max(line.count("|") for line in block) + 1, max(map(len, block))
            if columns * len(block) > _CELLS or width * len(block) > _TABLE_SIZE:
                lines[start:end] = [line.replace("|", PIPE) for line in block]
        start = end + 1
    return "\n".join(lines)


def _apply_edits(text: str, edits: Iterable[_Edit]) -> str:
    parts: list[str] = []
    done = 0
    for start, end, replacement in edits:
        if start >= done:
            parts += (text[done:start], replacement)
            done = end
    return "".join([*parts, text[done:]])


def _delay_heading(text: str, work: Work) -> str:
    """Keeps the first marker of a list from turning the paragraph before it into a heading in a growing text."""
    mark = _FIRST_MARK.search(text)
    if mark and any(node.kind == "Heading" and node.start < mark.start(1) < node.end for node in parse(text, work)):
        return _apply_edits(text, [(mark.start(1), mark.start(1), "\\")])
    return text


def _show_definitions(text: str, work: Work) -> str:
    """Keeps `[1]: https://...` visible where nothing refers to it."""
    kept: dict[str, str] = {}
    # A second definition of a label is parsed only when the first one is out of the way.
    for _ in range(_DEFINITION_PASSES):
        found = definitions(text, work)
        if not found:
            break
        for label, (_, address) in found.items():
            kept.setdefault(label, address)
        text = _apply_edits(text, sorted((start, start, "\\") for start, _ in found.values()))
    else:
        text = text.replace("]:", "]" + COLON)
    usable = (f"[{label}]: {address}\n" for label, address in kept.items() if WEB_LINK.fullmatch(address))
    return "".join(line for line in usable if line.count("\n") == 1) + "\n" + text if kept else text


def _escape_code_brackets(text: str, code: Iterable[Node]) -> Iterator[_Edit]:
    """Escapes brackets in code: the converter takes escaped ones for formulas, in code too."""
    for node in code:
        for found in _MATH_BRACKET.finditer(text, node.start, node.end):
            yield found.start(), found.end(), BACKSLASH


def _replace_breaks(text: str, code: Spans, tables: Spans) -> Iterator[_Edit]:
    """Replaces `<br>`, the one HTML tag that models use on purpose, mostly in tables."""
    for found in _LINE_BREAK_TAG.finditer(text):
        if found.start() not in code:
            yield found.start(), found.end(), " " if found.start() in tables else BREAK


def _mark_spoilers(text: str, code: Spans, tables: Spans) -> Iterator[_Edit]:
    """Writes spoilers as the tags that the converter knows, and escapes all other pairs of pipes."""
    borders: dict[int, str] = {}
    for found in _SPOILER.finditer(text):
        start, end = found.start(), found.end() - 2
        if start not in code and end not in code:
            borders |= {start: "<tg-spoiler>", end: "</tg-spoiler>"}
    for found in _PIPES.finditer(text):
        start, end = found.span()
        if start in code:
            continue
        if (tag := borders.get(start)) is not None:
            yield start, start + 2, tag
        else:
            yield start, end, " ".join(found[0]) if start in tables else "\\|" * (end - start)


def _convert_table_formulas(text: str, code: Spans, tables: Iterable[Node], work: Work) -> Iterator[_Edit]:
    """Converts formulas inside tables: the converter writes them in front of the table."""
    for table in tables:
        dollars = (
            (found.start(), found.end(), found[1]) for found in _DOLLAR_MATH.finditer(text, table.start, table.end)
        )
        brackets = find_bracketed(text, "(", table.start, table.end)
        for start, end, formula in sorted([*dollars, *brackets]):
            if start not in code and "\n" not in formula:
                shown = to_unicode(formula, work).replace("|", "\\|")
                yield start, end, "`" + " ".join(shown.split()) + "`"


def _top_tables(text: str, nodes: Iterable[Node]) -> Iterator[tuple[Node, list[list[str]]]]:
    """Yields the tables that are in no list or quote, with the cells of their rows."""
    table: Node | None = None
    rows: list[list[str]] = []
    for node in nodes:
        if table is not None and node.start >= table.end:
            yield table, rows
            table = None
        if node.kind == "Table" and node.depth == 0:
            table, rows = node, []
        elif table is not None and node.kind in {"TableHead", "TableRow"}:
            rows.append([])
        elif table is not None and node.kind == "TableCell":
            rows[-1].append(" ".join(text[node.start : node.end].replace("\\|", "|").split()))
    if table is not None:
        yield table, rows


def _is_wide(rows: Sequence[Sequence[str]]) -> bool:
    widths = [max(map(len, column)) for column in zip(*rows, strict=False)]
    return len(rows) > 1 and sum(widths) + 3 * (len(widths) - 1) > TABLE_WIDTH


def _as_list(rows: Sequence[Sequence[str]]) -> str:
    """Writes a table with rows that would wrap as a list with an item per row."""
    header = rows[0]
    lines: list[str] = []
    for row in rows[1:]:
        for index, (name, cell) in enumerate(zip(header, row, strict=False)):
            bold = cell and not index and not re.search(r"[*`]", cell)
            value = f"**{cell}**" if bold else cell
            lines.append(("  " if index else "") + "- " + (f"{name}: {value}" if name else value))
    return "\n" + "\n".join(lines) + "\n"
