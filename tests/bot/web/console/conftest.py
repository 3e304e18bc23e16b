"""The console over HTTP: real services, a database file, the embedded Redis, and providers on loopback."""

import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest
from pydantic_ai.direct import model_request
from pydantic_ai.messages import ModelRequest

from bot.composition.services import Services, open_services
from bot.composition.web import serve_web
from tests.support.fake_llm import server as llm
from tests.support.fake_llm.server import LLMServer
from tests.support.processes.redis_server import free_port
from tests.support.settings import settings_for

TOKEN = "a-long-random-word-for-tests"
SECRETS_KEY = "a-random-text-of-more-than-32-characters"
BOT_TOKEN = "42:token-of-loopback"
ADMIN = 1000
FORM = re.compile(r'name="form" value="([^"]+)"')
REVISION = re.compile(r'name="revision" value="([^"]+)"')


@dataclass
class ConsoleBrowser:
    """A browser without scripts: it keeps cookies, follows redirects and sends the hidden fields of the last page."""

    services: Services
    servers: Mapping[str, LLMServer]
    http: aiohttp.ClientSession
    base: str
    page: str = ""
    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict[str, str])

    async def open(self, path: str) -> str:
        """Open a page and return it."""
        async with self.http.get(f"{self.base}{path}") as response:
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

    async def answered_by(self) -> str:
        """Return the provider that answers the next request."""
        before = {name: len(server.requests) for name, server in self.servers.items()}
        model = self.services.llm.models.create_llm_model_with_fallback("chat")
        await model_request(model, [ModelRequest.user_text_prompt("Hello?")])
        return next(name for name, server in self.servers.items() if len(server.requests) > before[name])

    async def _see(self, response: aiohttp.ClientResponse) -> str:
        self.page, self.status, self.headers = await response.text(), response.status, dict(response.headers)
        return self.page


@pytest.fixture
async def browser(tmp_path: Path) -> AsyncIterator[ConsoleBrowser]:
    """A signed-out browser at a running console with the providers `alpha` and `beta`."""
    async with LLMServer() as alpha, LLMServer() as beta:
        servers = {"alpha": alpha, "beta": beta}
        for name, server in servers.items():
            server.default = llm.answer(f"from {name}")
        port = free_port()
        settings = settings_for(
            tmp_path / "data",
            {name: server.url for name, server in servers.items()},
            WEB_PORT=str(port),
            WEB_TOKEN=TOKEN,
            WEB_PUBLIC_URL=f"http://127.0.0.1:{port}",
            TELEGRAM_BOT_TOKEN=BOT_TOKEN,
            ADMIN_IDS=str(ADMIN),
            SECRETS_KEY=SECRETS_KEY,
            TIMEZONE="UTC",
        )
        async with (
            open_services(settings) as services,
            serve_web(services, {}),
            aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as http,
        ):
            yield ConsoleBrowser(services, servers, http, f"http://127.0.0.1:{port}")
