"""Extracts the text of a document. Runs in a child process only, since parsers are native code or trust the file.

The content decides the kind, and only the parser of that kind is imported.
"""

import io
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from html.parser import HTMLParser
from importlib import import_module
from types import ModuleType
from typing import Any
from urllib.parse import urljoin
from xml.etree import ElementTree as ET

from services.files.child import Answer, Options, Refused
from services.files.encodings import MARKS, decode

MB = 1 << 20
MOST_UNPACKED = 256 * MB
MOST_MEMBERS = 10_000
MOST_XML = 64 * MB
_SPREADSHEET = "sheet"
_LIBRARIES = {
    "pdf": ("pypdfium2",),
    # It imports the second one with its first document, when nothing can be imported any more.
    "docx": ("mammoth", "xml.dom.expatbuilder"),
    _SPREADSHEET: ("python_calamine",),
}
_INSIDES = {
    "word/document.xml": "docx",
    "xl/workbook.xml": _SPREADSHEET,
    "xl/workbook.bin": _SPREADSHEET,
    "ppt/presentation.xml": "pptx",
}
_OLE2 = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_ENCRYPTED_STREAM = "EncryptedPackage".encode("utf-16-le")
_WORKBOOK_STREAM = "Workbook".encode("utf-16-le")
_ODS = b"application/vnd.oasis.opendocument.spreadsheet"
_PDF_PASSWORD = 4
"""PDFium's error code for a document that needs a password."""
_EXACT = 1e15
"""Integers below this are exact as floats."""
_DRAWING = "{http://schemas.openxmlformats.org/drawingml/2006/main}"
_SLIDE = re.compile(r"ppt/slides/slide(\d+)\.xml")
_CHARSET = re.compile(rb"""<meta[^>]{0,200}charset\s*=\s*["']?([\w-]{1,20})""", re.IGNORECASE)

Pieces = Iterator[str]
"""Pieces of the text: a page, a row or a slide each."""


def load(data: bytes, options: Options) -> Callable[[], Answer]:
    """Imports the parser of a document. Returns the function that extracts its text.

    Args:
        data: the file.
        options: `kind`, which its name promises, `most`, the characters that are read; `base`, the address of a page,
            whose links are kept then.

    Raises:
        Refused: it is encrypted, a bomb, or of another kind than its name says.
    """
    kind = find_kind(data) or ("html" if options["kind"] == "html" and _is_text(data) else None)
    if kind is None:
        raise Refused("mislabelled")
    modules = [import_module(name) for name in _LIBRARIES.get(kind, ())]
    parser = modules[0] if modules else None
    if kind == "html":
        # Its codec and the guess of it are loaded now, as long as files can be opened.
        page = _decode(data)
        return lambda: _collect(_html_text(page, str(options.get("base") or "")), kind, options["most"])
    return lambda: _collect(_READERS[kind](data, parser), kind, options["most"])


def find_kind(data: bytes) -> str | None:
    """Returns the kind of a document by its content; None where it is none that can be read.

    Raises:
        Refused: it is encrypted, damaged or a bomb.
    """
    if b"%PDF-" in data[:1024]:
        return "pdf"
    if data.startswith(_OLE2):
        if _ENCRYPTED_STREAM in data:
            raise Refused("encrypted")
        return _SPREADSHEET if _WORKBOOK_STREAM in data else None
    if not data.startswith(b"PK\x03\x04"):
        return None
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = archive.infolist()
            if len(members) > MOST_MEMBERS or sum(member.file_size for member in members) > MOST_UNPACKED:
                raise Refused("too-much")
            if any(member.flag_bits & 1 for member in members):
                raise Refused("encrypted")
            names = {member.filename for member in members}
            if "mimetype" in names and archive.getinfo("mimetype").file_size < len(_ODS) + 16:
                return _SPREADSHEET if archive.read("mimetype").startswith(_ODS) else None
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise Refused("broken") from error
    return next((kind for name, kind in _INSIDES.items() if name in names), None)


def _collect(pieces: Pieces, kind: str, most: int) -> Answer:
    """Joins the pieces up to the longest text; says whether something was left."""
    texts: list[str] = []
    left = most
    for piece in pieces:
        texts.append(piece[:left])
        left -= len(piece)
        if left <= 0:
            break
    text = "".join(texts).replace("\0", "").strip()
    if not text:
        raise Refused("empty")
    return {"kind": kind, "is_cut": left <= 0}, text.encode("utf-8", "replace")


def _read_pdf(data: bytes, pdfium: ModuleType) -> Pieces:
    try:
        document = pdfium.PdfDocument(data)
    except pdfium.PdfiumError as error:
        raise Refused("encrypted" if error.err_code == _PDF_PASSWORD else "broken") from error
    for page in document:
        content = page.get_textpage()
        yield content.get_text_bounded().replace("\r\n", "\n") + "\n\n"
        content.close()
        page.close()


def _read_docx(data: bytes, mammoth: ModuleType) -> Pieces:
    without_images = mammoth.images.img_element(_omit_image)
    found = mammoth.convert_to_html(io.BytesIO(data), convert_image=without_images, external_file_access=False)
    yield from _html_text(found.value)


def _omit_image(_: object) -> Mapping[str, str]:
    return {}


def _read_sheet(data: bytes, calamine: ModuleType) -> Pieces:
    try:
        book = calamine.CalamineWorkbook.from_filelike(io.BytesIO(data))
    except calamine.PasswordError as error:
        raise Refused("encrypted") from error
    for name in book.sheet_names:
        heading = f"## {name}\n"
        for row in book.get_sheet_by_name(name).iter_rows():
            line = "\t".join(_cell(value) for value in row).rstrip()
            if line:
                yield heading + line + "\n"
                heading = ""
        if not heading:
            yield "\n"


def _cell(value: object) -> str:
    """Returns a cell on one line; whole numbers without the point that every number of a sheet has."""
    if isinstance(value, float) and value.is_integer() and abs(value) < _EXACT:
        return str(int(value))
    return " ".join(str(value).split())


def _read_slides(data: bytes, _: object) -> Pieces:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        slides = sorted((int(found[1]), name) for name in archive.namelist() if (found := _SLIDE.fullmatch(name)))
        for number, name in slides:
            with archive.open(name) as member:
                content = member.read(MOST_XML + 1)
            if len(content) > MOST_XML:
                raise Refused("too-much")
            # In a child with limits; expat itself refuses entities that grow.
            paragraphs = ET.fromstring(content).iter(f"{_DRAWING}p")  # noqa: S314 - see above
            lines = ["".join(run.text or "" for run in each.iter(f"{_DRAWING}t")) for each in paragraphs]
            text = "\n".join(line for line in lines if line.strip())
            if text:
                yield f"## {number}\n{text}\n\n"


def _html_text(source: str, base: str = "") -> Pieces:
    reader = _HtmlText(base)
    # In pieces, so that a page is read only as far as it is wanted.
    for start in range(0, len(source), 65_536):
        reader.feed(source[start : start + 65_536])
        yield reader.take()
    reader.close()
    yield reader.take()


class _HtmlText(HTMLParser):
    """Collects the text that a page shows, a block a line.

    Args:
        base: address of the page; links outside its menus are written as in Markdown then.
    """

    HIDDEN = frozenset({"script", "style", "head", "template", "noscript", "svg"})
    CELLS = frozenset({"td", "th"})
    BLOCKS: Mapping[str, str] = {
        **dict.fromkeys(("p", "div", "br", "tr", "section", "article", "table", "ul", "ol", "pre", "blockquote"), "\n"),
        **{f"h{level}": f"\n\n{'#' * level} " for level in range(1, 7)},
        "li": "\n- ",
    }

    MENUS = frozenset({"nav", "header", "footer", "aside"})
    LONGEST_LINK = 300

    def __init__(self, base: str = "") -> None:
        super().__init__(convert_charrefs=True)
        self._base = base
        self._link: str | None = None
        self._menus = 0
        self._pieces: list[str] = []
        self._hidden = 0
        self._is_in_cell = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Begins a block, a cell, a link, or an element that is not shown."""
        if self._base:
            self._begin_link(tag, attrs)
        if tag in self.HIDDEN:
            self._hidden += 1
        elif tag in self.CELLS:
            self._is_in_cell = True
            self._pieces.append("\t")
        elif tag in self.BLOCKS:
            self._is_in_cell = self._is_in_cell and tag != "tr"
            # A row stays on one line: line breaks in cells are replaced.
            self._pieces.append(" " if self._is_in_cell else self.BLOCKS[tag])

    def _begin_link(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in self.MENUS:
            self._menus += 1
        if tag != "a" or self._menus or self._hidden or self._link is not None:
            return
        try:
            link = urljoin(self._base, next((value or "" for name, value in attrs if name == "href"), ""))
        except ValueError:
            return
        if link.startswith(("http://", "https://")) and len(link) <= self.LONGEST_LINK and link.isprintable():
            self._link = link
            self._pieces.append("[")

    def handle_endtag(self, tag: str) -> None:
        """Ends it."""
        if tag in self.MENUS:
            self._menus = max(self._menus - 1, 0)
        elif tag == "a" and self._link is not None:
            self._pieces.append(f"]({self._link})")
            self._link = None
        if tag in self.HIDDEN:
            self._hidden = max(self._hidden - 1, 0)
        elif tag in self.CELLS or tag in {"tr", "table"}:
            self._is_in_cell = False
        elif tag in self.BLOCKS and tag != "br" and not self._is_in_cell:
            self._pieces.append("\n")

    def handle_data(self, data: str) -> None:
        """Takes text."""
        if not self._hidden:
            self._pieces.append(re.sub(r"\s+", " ", data))

    def take(self) -> str:
        """Returns the text since the last call, with at most one empty line in a row."""
        lines = (re.sub(r" *\t *", "\t", line).strip(" ") for line in "".join(self._pieces).split("\n"))
        self._pieces.clear()
        return re.sub(r"\n{3,}", "\n\n", "\n".join(line.removeprefix("\t") for line in lines))


def _is_text(data: bytes) -> bool:
    return b"\0" not in data[:4096] or data.startswith((b"\xff\xfe", b"\xfe\xff"))


def _decode(data: bytes) -> str:
    """Decodes a page by its byte order mark, its declaration, or as a text file.

    Raises:
        Refused: it is no text in any known encoding.
    """
    declared = _CHARSET.search(data[:2048])
    if declared is not None and not data.startswith(tuple(mark for mark, _ in MARKS)):
        # A declaration that is not there in its own encoding is wrong, such as that of UTF-16 in a page of bytes.
        with suppress(LookupError, UnicodeError):
            encoding = declared[1].decode()
            if declared[0].decode(encoding) == declared[0].decode():
                return data.decode(encoding)
    found = decode(data)
    if found is None:
        raise Refused("mislabelled")
    return found.text


_READERS: Mapping[str, Callable[[bytes, Any], Pieces]] = {
    "pdf": _read_pdf,
    "docx": _read_docx,
    _SPREADSHEET: _read_sheet,
    "pptx": _read_slides,
}
