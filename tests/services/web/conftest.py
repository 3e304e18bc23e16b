"""Fixture: a web server on loopback."""

from collections.abc import AsyncIterator

import pytest

from tests.support.web_pages import WebServer, serve_pages


@pytest.fixture
async def server() -> AsyncIterator[WebServer]:
    """Pages and a search server."""
    async with serve_pages() as served:
        yield served
