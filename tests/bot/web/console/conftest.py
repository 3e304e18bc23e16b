"""The console over HTTP, as a browser without scripts uses it."""

import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest

from tests.support.console_harness import ADMIN, BOT_TOKEN, TOKEN, RunningConsole, running_console

__all__ = ["ADMIN", "BOT_TOKEN", "TOKEN"]

FORM = re.compile(r'name="form" value="([^"]+)"')
REVISION = re.compile(r'name="revision" value="([^"]+)"')


@dataclass
class ConsoleBrowser(RunningConsole):
    """A browser without scripts: it keeps cookies, follows redirects and sends the hidden fields of the last page."""

    http: aiohttp.ClientSession
    page: str = ""
    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict[str, str])

    async def open(self, path: str, **headers: str) -> str:
        """Open a page and return it."""
        async with self.http.get(f"{self.base}{path}", headers=headers) as response:
            return await self._see(response)

    async def submit(self, path: str, *, hidden: Mapping[str, str] | None = None, **fields: str) -> str:
        """Submit a form of the page that is open."""
        data = dict(hidden) if hidden is not None else self.hidden()
        async with self.http.post(f"{self.base}{path}", data={**data, **fields}) as response:
            return await self._see(response)

    async def sign_in(self, token: str = TOKEN) -> str:
        """Sign in by WEB_TOKEN."""
        return await self.submit("/console/sign-in", hidden={}, token=token)

    def hidden(self) -> dict[str, str]:
        """Return the hidden fields of the page that is open."""
        form, revision = FORM.search(self.page), REVISION.search(self.page)
        return {
            **({"form": form[1]} if form else {}),
            **({"revision": revision[1]} if revision else {}),
        }

    async def _see(self, response: aiohttp.ClientResponse) -> str:
        self.page, self.status, self.headers = await response.text(), response.status, response.headers
        return self.page


@pytest.fixture
async def browser(tmp_path: Path) -> AsyncIterator[ConsoleBrowser]:
    """A signed-out browser at a running console with the providers `alpha` and `beta`."""
    async with (
        running_console(tmp_path / "data") as console,
        aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as http,
    ):
        yield ConsoleBrowser(console.services, console.servers, console.base, console.daemon, http)
