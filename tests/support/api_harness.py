"""The endpoint for other programs over LLM servers on loopback, and the official client of OpenAI."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import openai
from pydantic import SecretStr

from bot.composition.services import Services, open_services
from bot.composition.web_server import build_api_routes
from bot.web.server import HttpRoute, WebServer, WebTiming
from core.clock import Clock
from services.api.tokens import TokenStore
from tests.support.settings import settings_for
from tests.support.sqlite_file import place_database
from tests.support.web_client import WebClient

TOKEN = "editor-token-0123456789"
OTHER = "script-token-0123456789"
WEB_TOKEN = "web-token-0123456789-of-the-operator"


@dataclass
class ApiHarness:
    """A running endpoint."""

    services: Services
    port: int
    client: openai.AsyncOpenAI
    """The official client with the token `editor`."""

    @property
    def url(self) -> str:
        """The base URL that a client is given."""
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def web(self) -> WebClient:
        """A plain client with the token `editor`."""
        return WebClient(self.port, TOKEN)

    def token_store(self) -> TokenStore:
        """Return the tokens as another replica has them, which knows `editor` alone of the environment."""
        infra, budgets = self.services.infra, self.services.llm.budgets
        return TokenStore(infra.database, infra.clock, {"editor": TOKEN}, budgets)

    def client_with(self, token: str) -> openai.AsyncOpenAI:
        """Return an official client with another token; close it after use."""
        return openai.AsyncOpenAI(api_key=token, base_url=self.url, max_retries=0)


@asynccontextmanager
async def endpoint(
    directory: Path,
    providers: Mapping[str, str],
    *,
    clock: Clock | None = None,
    timing: WebTiming | None = None,
    routes: tuple[HttpRoute, ...] = (),
    **variables: str,
) -> AsyncIterator[ApiHarness]:
    """Run the endpoint over these providers, with the tokens `editor` and `script`."""
    variables.setdefault("API_TOKENS", f"editor={TOKEN},script={OTHER}")
    variables.setdefault("LIMIT_MESSAGES_PER_MINUTE", "0")
    settings = settings_for(directory, providers, **variables)
    place_database(directory)
    async with open_services(settings, clock) as services:
        tokens = TokenStore(
            services.infra.database, services.infra.clock, settings.named_api_tokens, services.llm.budgets
        )
        server = WebServer(
            host="127.0.0.1",
            port=0,
            token=SecretStr(WEB_TOKEN),
            routes=(*build_api_routes(services, tokens), *routes),
            timing=timing,
        )
        await server.start()
        client = openai.AsyncOpenAI(api_key=TOKEN, base_url=f"http://127.0.0.1:{server.port}/v1", max_retries=0)
        try:
            yield ApiHarness(services, server.port, client)
        finally:
            await client.close()
            await server.close()
