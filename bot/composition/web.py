"""Builds the HTTP server; without WEB_PORT there is none."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial

from bot.composition.services import Services
from bot.web.endpoints import Endpoints
from bot.web.readiness import Check, Readiness, check_database, check_providers, check_redis
from bot.web.server import HttpRoute, WebServer
from core.observability.log import Redactor


@asynccontextmanager
async def serve_web(
    services: Services, checks: Mapping[str, Check], routes: Sequence[HttpRoute] = ()
) -> AsyncGenerator[None]:
    """Serves HTTP while the context lasts.

    Args:
        services: shown by the endpoints.
        checks: readiness checks beside those of Redis, the database and the providers.
        routes: further routes, a webhook for example.

    Raises:
        StartupError: WEB_PORT cannot be listened on.
    """
    infra, llm = services.infra, services.llm
    settings = infra.settings
    if settings.web_port is None:
        yield
        return
    readiness = Readiness(
        {
            "redis": partial(check_redis, infra.redis),
            "database": partial(check_database, infra.database),
            "providers": partial(check_providers, llm.fallback),
            **checks,
        },
        infra.clock,
    )
    endpoints = Endpoints(readiness, infra.metrics, llm.fallback, services.operators.totals, Redactor(settings.secrets))
    server = WebServer(
        host=settings.web_host,
        port=settings.web_port,
        token=settings.web_token,
        routes=(*endpoints.routes, *routes),
    )
    await server.start()
    try:
        yield
    finally:
        await server.close()
