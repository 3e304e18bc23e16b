"""The web side of a house, put together: on where WEB_PORT is set."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial

from bot.composition.services import Services
from bot.web.endpoints import Endpoints
from bot.web.readiness import Check, Readiness, check_database, check_providers, check_redis
from bot.web.server import Route, WebServer
from core.observability.log import Redactor


@asynccontextmanager
async def serve_web(house: Services, checks: Mapping[str, Check], routes: Sequence[Route] = ()) -> AsyncGenerator[None]:
    """Serve as long as the context lasts; nothing at all without WEB_PORT.

    Args:
        house: what is shown.
        checks: what else has to be there for the bot to be ready, beside Redis, the database and a provider.
        routes: more of them, a webhook for example.

    Raises:
        StartupError: the port is taken, or not to be had.
    """
    settings = house.settings
    if settings.web_port is None:
        yield
        return
    readiness = Readiness(
        {
            "redis": partial(check_redis, house.redis),
            "database": partial(check_database, house.database),
            "providers": partial(check_providers, house.fallback),
            **checks,
        },
        house.clock,
    )
    pages = Endpoints(readiness, house.metrics, house.fallback, house.accounts, Redactor(settings.secrets))
    web = WebServer(
        host=settings.web_host,
        port=settings.web_port,
        token=settings.web_token,
        routes=(*pages.routes, *routes),
    )
    await web.start()
    try:
        yield
    finally:
        await web.close()
