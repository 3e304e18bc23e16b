"""Renders whole texts, as a page does."""

from bot.telegram.markdown.pages import render_plain, render_within
from bot.telegram.markdown.render import Rendered, RenderLimits, Work


def render(markdown: str) -> Rendered:
    """Renders a text; one that would take more work than its share is returned as it is."""
    return render_within(markdown, Work(RenderLimits().text)) or render_plain(markdown)


def plain(markdown: str) -> str:
    """Renders a text without its formatting."""
    return render(markdown).text
