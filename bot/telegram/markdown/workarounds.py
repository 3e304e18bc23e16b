"""Rewrites Markdown that telegramify-markdown would lose or change."""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, TypeAlias

from telegramify_markdown.latex_escape.helper import LatexToUnicodeHelper

from bot.telegram.markdown.parse import ANGLE, BACKSLASH, BREAK, Node, definitions, hide_angles, parse

TABLE_WIDTH: Final = 40
"""Characters of a monospaced line that a phone shows without wrapping."""

WEB_LINK: Final = re.compile(r"(?:https?://[^\s/?#.][^\s/?#]*|tg://[a-z]+)(?:[/?#]\S*)?", re.IGNORECASE)
"""An address that Telegram accepts as a link; a relative or odd one stays text."""

_MATH_BRACKET = re.compile(r"\\(?=[()\[\]])")
_LINE_BREAK_TAG = re.compile(rf"{ANGLE}br ?/?>", re.IGNORECASE)
_SPOILER = re.compile(r"(?<![\\|\w])\|\|(?=[^\s|])[^\n|]+(?<=[^\s|])\|\|(?![\w|])")
_PIPES = re.compile(r"(?<!\\)\|{2,}")
_INLINE_MATH = re.compile(r"\\\((.+?)\\\)|(?<![\\$\w])\$([^$\n]+?)\$(?![$\d])")
_FIRST_MARK = re.compile(r"\n[ \t>]*(-{1,2}|={1,2})[ \t]*$")
_NEEDS_A_LOOK = re.compile(rf"\\[(\[]|\||{ANGLE}br", re.IGNORECASE)

_Edit: TypeAlias = tuple[int, int, str]


def apply_workarounds(source: str) -> str:
    """Rewrites a `tidy` text so that the converter shows all of it. The result may contain placeholders."""
    text = _show_definitions(_delay_heading(hide_angles(source)))
    if not _NEEDS_A_LOOK.search(text):
        return text
    nodes = parse(text)
    if wide := [node for node in nodes if node.kind == "Table" and node.depth == 0 and _is_wide(text, node, nodes)]:
        text = _apply_edits(text, [(table.start, table.end, _as_list(text, table, nodes)) for table in wide])
        nodes = parse(text)
    code = [node for node in nodes if node.kind in {"Code", "CodeBlock"}]
    tables = [node for node in nodes if node.kind == "Table"]
    edits = [
        *_escape_code_brackets(text, code),
        *_replace_breaks(text, code, tables),
        *_escape_pipes(text, code, tables),
        *_convert_table_formulas(text, code, tables),
    ]
    return _apply_edits(text, sorted(edits))


def _apply_edits(text: str, edits: Iterable[_Edit]) -> str:
    parts: list[str] = []
    done = 0
    for start, end, replacement in edits:
        if start >= done:
            parts += (text[done:start], replacement)
            done = end
    return "".join([*parts, text[done:]])


def _inside(index: int, nodes: Iterable[Node]) -> bool:
    return any(node.start <= index < node.end for node in nodes)


def _delay_heading(text: str) -> str:
    """Keeps the first marker of a list from turning the paragraph before it into a heading in a growing text."""
    mark = _FIRST_MARK.search(text)
    if mark and any(node.kind == "Heading" and node.start < mark.start(1) < node.end for node in parse(text)):
        return _apply_edits(text, [(mark.start(1), mark.start(1), "\\")])
    return text


def _show_definitions(text: str) -> str:
    """Keeps `[1]: https://...` visible where nothing refers to it."""
    kept: dict[str, str] = {}
    # A second definition of a label is parsed only when the first one is out of the way.
    while found := definitions(text):
        for label, (_, address) in found.items():
            kept.setdefault(label, address)
        text = _apply_edits(text, sorted((start, start, "\\") for start, _ in found.values()))
    usable = (f"[{label}]: {address}\n" for label, address in kept.items() if WEB_LINK.fullmatch(address))
    return "".join(line for line in usable if line.count("\n") == 1) + "\n" + text if kept else text


def _escape_code_brackets(text: str, code: Iterable[Node]) -> Iterator[_Edit]:
    """Escapes brackets in code: the converter takes escaped ones for formulas, in code too."""
    for node in code:
        for found in _MATH_BRACKET.finditer(text, node.start, node.end):
            yield found.start(), found.end(), BACKSLASH


def _replace_breaks(text: str, code: Sequence[Node], tables: Sequence[Node]) -> Iterator[_Edit]:
    """Replaces `<br>`, the one HTML tag that models use on purpose, mostly in tables."""
    for found in _LINE_BREAK_TAG.finditer(text):
        if not _inside(found.start(), code):
            yield found.start(), found.end(), " " if _inside(found.start(), tables) else BREAK


def _escape_pipes(text: str, code: Sequence[Node], tables: Sequence[Node]) -> Iterator[_Edit]:
    """Escapes pipes: the converter takes any two pairs for a spoiler, as in `a || b` and tables with empty cells."""
    borders = {index for found in _SPOILER.finditer(text) for index in (found.start(), found.end() - 2)}
    for found in _PIPES.finditer(text):
        start, end = found.span()
        if start in borders or _inside(start, code):
            continue
        yield start, end, " ".join(found[0]) if _inside(start, tables) else "\\|" * (end - start)


def _convert_table_formulas(text: str, code: Sequence[Node], tables: Iterable[Node]) -> Iterator[_Edit]:
    """Converts formulas inside tables: the converter writes them in front of the table."""
    for table in tables:
        for found in _INLINE_MATH.finditer(text, table.start, table.end):
            if not _inside(found.start(), code):
                # The converter's own symbols and its own, untyped, function.
                formula = str(LatexToUnicodeHelper().convert(found[1] or found[2]))  # pyright: ignore[reportUnknownArgumentType, reportUnknownMemberType] - untyped there
                yield found.start(), found.end(), "`" + " ".join(formula.replace("|", "\\|").split()) + "`"


def _rows(text: str, table: Node, nodes: Sequence[Node]) -> list[list[str]]:
    rows: list[list[str]] = []
    for node in nodes:
        if table.start <= node.start and node.end <= table.end:
            if node.kind in {"TableHead", "TableRow"}:
                rows.append([])
            elif node.kind == "TableCell":
                rows[-1].append(" ".join(text[node.start : node.end].replace("\\|", "|").split()))
    return rows


def _is_wide(text: str, table: Node, nodes: Sequence[Node]) -> bool:
    rows = _rows(text, table, nodes)
    widths = [max(map(len, column)) for column in zip(*rows, strict=False)]
    return len(rows) > 1 and sum(widths) + 3 * (len(widths) - 1) > TABLE_WIDTH


def _as_list(text: str, table: Node, nodes: Sequence[Node]) -> str:
    """Writes a table whose rows would wrap as a list with an item per row."""
    header, *rows = _rows(text, table, nodes)
    lines: list[str] = []
    for row in rows:
        for index, (name, cell) in enumerate(zip(header, row, strict=False)):
            bold = cell and not index and not re.search(r"[*`]", cell)
            value = f"**{cell}**" if bold else cell
            lines.append(("  " if index else "") + "- " + (f"{name}: {value}" if name else value))
    return "\n" + "\n".join(lines) + "\n"
