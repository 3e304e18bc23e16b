"""The web side of a house, put together: on where WEB_PORT is set."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial

from bot.app import House
from bot.web.app import Route, WebSide
from bot.web.health import Check, Readiness, database_silence, provider_silence, redis_silence
from bot.web.pages import Pages
from core.log import Redactor


@asynccontextmanager
async def web_side(house: House, checks: Mapping[str, Check], routes: Sequence[Route] = ()) -> AsyncGenerator[None]:
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
            "redis": partial(redis_silence, house.redis),
            "database": partial(database_silence, house.database),
            "providers": partial(provider_silence, house.fallback),
            **checks,
        },
        house.clock,
    )
    pages = Pages(readiness, house.metrics, house.fallback, house.accounts, Redactor(settings.secrets))
    web = WebSide(
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
