"""The Jinja2 environment of the console: every value is escaped, and a missing one is an error."""

from functools import cache
from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("bot.web.console"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )


@cache
def _icons() -> Markup:
    return Markup((files("bot.web.console") / "templates" / "icons.svg").read_text("utf-8"))  # noqa: S704 - our own file


def render(template: str, **values: object) -> str:
    """Returns a page as HTML."""
    return _environment().get_template(template).render(icons=_icons(), **values)
