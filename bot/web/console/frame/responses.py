"""Parts of responses: templates and static files, redirects after acts, headers, files; and the fields of a form."""

import csv
import hashlib
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from http import HTTPStatus
from importlib.resources import files
from typing import Final
from urllib.parse import urlencode

from aiohttp import web
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

HOME: Final = "/console"
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'"
    "; form-action 'self'; base-uri 'none'; frame-ancestors "
)
HEADERS: Final = {
    "Content-Security-Policy": f"{POLICY}'none'",
    "X-Content-Type-Options": "nosniff",
    # With "no-referrer" browsers would not name the origin of a form, see `is_of_another_site`.
    "Referrer-Policy": "strict-origin",
    "Cache-Control": "no-store",
}
DONE: Final = frozenset(
    {
        "forced",
        "released",
        "cooled",
        "reset",
        "moved",
        "saved",
        "removed",
        "reset-setting",
        "undone",
        "decided",
        "let-through",
        "retried",
        "retried-all",
        "dropped",
        "token-changed",
        "token-revoked",
        "budget-set",
        "file-sent",
        "broadcast-drafted",
        "broadcast-send",
        "broadcast-stop",
        "broadcast-discard",
    }
)
"""Acts that a page reports after its redirect."""
UNDO_PATHS: Final = re.compile(r"undo/\d{1,16}|acts/[\w-]{1,64}/undo|moderation/\d{1,16}/undo", re.ASCII)
"""Paths that undo an act. A page offers no other one, even if its address names it."""
PACKAGE: Final = "bot.web.console"
STATIC: Final = {
    "tokens.css": "text/css",
    "frame.css": "text/css",
    "console.css": "text/css",
    "plots.css": "text/css",
    "console.js": "text/javascript",
    "order.js": "text/javascript",
    "idiomorph-0.8.0.min.js": "text/javascript",
    "favicon.svg": "image/svg+xml",
}


async def read_form(request: web.Request) -> Mapping[str, object]:
    """Returns the fields of a submitted form.

    Raises:
        HTTPBadRequest: they are no text, or in an encoding that does not exist.
    """
    try:
        form = await request.post()
        for name, value in form.items():
            f"{name}{value}".encode()
    except (ValueError, LookupError, AssertionError):  # a UnicodeError is a ValueError
        raise web.HTTPBadRequest(headers=HEADERS) from None
    return form


def read_number(text: str) -> int | None:
    """Returns a number of an address or a form, such as an id; None if it is none, or too long for one."""
    return int(text) if text.isdecimal() and len(text) <= len(str(2**53)) else None


def done(did: str, about: str = "", *, page: str = "providers", undo: str | None = None) -> web.Response:
    """Returns the redirect after an act; the page then says that it was done, and offers to undo it.

    Args:
        undo: the path of the act that undoes it, see `UNDO_PATHS`.
    """
    query = {"did": did, "about": about} | ({"undo": undo} if undo is not None else {})
    return redirect(f"{HOME}/{page}?{urlencode(query)}")


def undo_path(act_id: str | None) -> str | None:
    """Returns the path of the form that undoes an act of `UndoStore`."""
    return None if act_id is None else f"acts/{act_id}/undo"


def redirect(path: str) -> web.Response:
    """Returns a redirect that is fetched by GET."""
    return web.Response(status=HTTPStatus.SEE_OTHER, headers={**HEADERS, "Location": path})


def file_name(response: web.Response) -> str:
    """Returns the name of a file to be saved."""
    return response.headers["Content-Disposition"].partition('"')[2].rstrip('"')


def to_csv(names: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Returns a table as CSV, with no cell that a spreadsheet takes for a formula."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(names)
    writer.writerows([_as_text(cell) if isinstance(cell, str) else cell for cell in row] for row in rows)
    return out.getvalue()


def _as_text(cell: str) -> str:
    return f"'{cell}" if cell[:1] in {"=", "+", "-", "@", "\t", "\r"} else cell


def download(text: str, content_type: str, name: str) -> web.Response:
    """Returns a file to be saved."""
    headers = {**HEADERS, "Content-Disposition": f'attachment; filename="{name}"'}
    return web.Response(text=text, content_type=content_type, headers=headers)


@cache
def environment() -> Environment:
    """Returns the templates: every value is escaped, and a missing one is an error."""
    return Environment(loader=PackageLoader(PACKAGE), autoescape=True, undefined=StrictUndefined, trim_blocks=True)


@cache
def static_file(name: str) -> bytes:
    """Returns a file of `STATIC`."""
    return (files(PACKAGE) / "static" / name).read_bytes()


@cache
def asset(name: str) -> str:
    """Returns the address of a file, which changes with its content."""
    return f"{HOME}/static/{name}?v={digest(static_file(name))}"


@cache
def icons() -> Markup:
    """Returns the sprite of all icons."""
    return Markup((files(PACKAGE) / "templates" / "icons.svg").read_text("utf-8"))  # noqa: S704 - our own file


def digest(content: bytes) -> str:
    """Returns a short hash, for addresses and entity tags."""
    return hashlib.blake2b(content, digest_size=8).hexdigest()
