"""Looks for model servers on this machine, at the ports on which they usually listen."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from core.config.providers import ProviderKind, ProviderSettings
from services.llm.providers.catalog import Catalog, CatalogError

USUAL_PORTS: Final[Mapping[int, str]] = {
    11434: "ollama",
    1234: "lmstudio",
    8080: "llamacpp",
    8000: "vllm",
    4000: "litellm",
    1337: "jan",
    5001: "koboldcpp",
    5000: "textgen",
    30000: "sglang",
}
"""Ports with the server that listens there by default; another one may."""
TIMEOUT_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class LocalServer:
    """A server that was found.

    Args:
        name: proposed as the provider's id.
        models: those that it lists; empty if it wants a key for that.
    """

    name: str
    kind: ProviderKind
    base_url: str
    models: Sequence[str]
    wants_key: bool


async def find_local_servers(
    catalog: Catalog, ports: Mapping[int, str] = USUAL_PORTS, *, own_port: int | None = None
) -> Sequence[LocalServer]:
    """Asks every port for a model list at the same time.

    Args:
        catalog: asks the servers.
        ports: names by port.
        own_port: port of this program, which is not probed.
    """

    async def ask(port: int, name: str) -> LocalServer | None:
        kind = ProviderKind.OLLAMA if name == "ollama" else ProviderKind.OPENAI_COMPATIBLE
        url = f"http://127.0.0.1:{port}/v1"
        provider = ProviderSettings(id=name, kind=kind, models=("any",), base_url=url, remote=False)
        try:
            models = await catalog.live_models(provider, timeout_s=TIMEOUT_S)
        except CatalogError as error:
            if error.status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
                return LocalServer(name, kind, url, (), wants_key=True)
            return None
        return LocalServer(name, kind, url, models, wants_key=False)

    asked = [ask(port, name) for port, name in ports.items() if port != own_port]
    return [server for server in await asyncio.gather(*asked) if server is not None]
