"""Documents as other programs make them, and some that are made to harm."""

import io
import zipfile
from collections.abc import Mapping

import docx
import openpyxl
from reportlab.lib.pdfencrypt import StandardEncryption
from reportlab.pdfgen.canvas import Canvas

DRAWING = 'xmlns:a="http://schemas.openxmlformats.org/drawingml/2006/main"'
PAGE = (
    "<html><head><title>T</title><script>bad()</script></head><body><h1>Fish &amp; chips</h1><p>A<b>B</b></body></html>"
)


def pdf(*pages: str, password: str | None = None) -> bytes:
    """Returns a PDF with a line on each page."""
    target = io.BytesIO()
    canvas = Canvas(target, encrypt=StandardEncryption(password) if password else None)
    for line in pages or ("A page of a PDF",):
        canvas.drawString(72, 720, line)
        canvas.showPage()
    canvas.save()
    return target.getvalue()


def word(*paragraphs: str) -> bytes:
    """Returns a DOCX with a heading, paragraphs and a table."""
    document = docx.Document()
    document.add_heading("A heading", 1)
    for paragraph in paragraphs:
        document.add_paragraph(paragraph)
    cells = document.add_table(1, 2).rows[0].cells
    cells[0].text, cells[1].text = "left", "right"
    return _saved(document)


def sheet(*rows: tuple[object, ...], far_cell: bool = False) -> bytes:
    """Returns an XLSX; `far_cell` fills the last cell that a sheet can have."""
    book = openpyxl.Workbook()
    page = book.worksheets[0]
    page.title = "Costs"
    for row in rows:
        page.append(row)
    if far_cell:
        page["XFD1048576"] = 1
    return _saved(book)


def slides(*texts: str) -> bytes:
    """Returns the parts of a PPTX that hold its text."""
    pages = {
        f"ppt/slides/slide{number}.xml": f"<p {DRAWING}><a:p><a:r><a:t>{text}</a:t></a:r></a:p></p>".encode()
        for number, text in enumerate(texts, start=1)
    }
    return archive({"ppt/presentation.xml": b"<p/>", **pages})


def archive(members: Mapping[str, bytes], said_size: int | None = None) -> bytes:
    """Returns a ZIP; its directory says another size of its last member."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in members.items():
            file.writestr(name, data)
        if said_size is not None:
            file.filelist[-1].file_size = said_size
    return target.getvalue()


def bomb() -> bytes:
    """Returns a small DOCX that says that it unpacks to 300 MB."""
    return archive({"word/document.xml": bytes(1 << 20)}, 300 << 20)


def entities() -> bytes:
    """Returns a PPTX whose entities grow to a billion letters."""
    levels = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 10))
    text = f'<!DOCTYPE p [<!ENTITY e0 "lol">{levels}]><p {DRAWING}><a:p><a:r><a:t>&e9;</a:t></a:r></a:p></p>'
    return archive({"ppt/presentation.xml": b"<p/>", "ppt/slides/slide1.xml": text.encode()})


def locked_office() -> bytes:
    """Returns the beginning of an office file with a password: an OLE2 container with an encrypted package."""
    return b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(504) + "EncryptedPackage".encode("utf-16-le") + bytes(512)


def _saved(document: object) -> bytes:
    target = io.BytesIO()
    document.save(target)
    return target.getvalue()
