"""The templates and static files of the pages."""

import hashlib
from functools import cache
from importlib.resources import files
from typing import Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from bot.web.console.frame.responses import HOME

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
