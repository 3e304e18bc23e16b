"""Serves HTTP where WEB_PORT is set; without it nothing of the server is imported."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from bot.composition.services import Services
from bot.web.healthcheck import LOOPBACK
from core.config.settings import Settings

if TYPE_CHECKING:
    from bot.operators.daemon_services import DaemonServices
    from bot.web.readiness import Check
    from bot.web.server import HttpRoute, WebTiming


@asynccontextmanager
async def serve_web(
    services: Services,
    checks: "Mapping[str, Check]",
    routes: "Sequence[HttpRoute]" = (),
    timing: "WebTiming | None" = None,
    daemon: "DaemonServices | None" = None,
) -> AsyncGenerator[None]:
    """Serves HTTP while the context lasts.

    Args:
        services: shown by the endpoints.
        checks: readiness checks beside those of Redis, the database and the providers.
        routes: further routes, a webhook for example.
        timing: deadlines of connections.
        daemon: services of the Telegram daemon, for the console.

    Raises:
        StartupError: WEB_PORT cannot be listened on.
    """
    port = services.infra.settings.web_port
    if port is None:
        yield
        return
    from bot.composition.web_server import open_server

    async with open_server(services, port, checks, routes, timing, daemon):
        yield


def console_address(settings: Settings) -> str | None:
    """Returns the address of the console; None while it is off."""
    if settings.web_port is None or settings.web_token is None:
        return None
    if settings.web_public_url is not None:
        return settings.web_public_url
    host = LOOPBACK.get(settings.web_host, settings.web_host)
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.web_port}"
