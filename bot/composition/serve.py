"""Serves the endpoint for other programs without Telegram: `python -m bot serve`."""

import asyncio

import structlog

from bot.composition.services import Services, open_services
from bot.composition.web import serve_web
from bot.process import enlarge_thread_pool, raise_open_files_limit, stop_on_signals, tune_garbage_collection
from bot.web.server import WebTiming
from core.background import cancel_and_wait
from core.config.settings import Settings
from core.errors import StartupError
from services.llm.providers.probe import check_providers

log = structlog.get_logger()


async def run_endpoint(settings: Settings) -> int:
    """Serves until SIGTERM or SIGINT. Returns the exit code.

    Raises:
        ConfigurationError: no provider can be used.
        StartupError: WEB_PORT is not set or is taken, or the database cannot be used.
    """
    settings.require_provider()
    if settings.web_port is None:
        raise StartupError("WEB_PORT: is not set, and the endpoint listens on it, for example WEB_PORT=8080")
    if settings.api_tokens is None:
        log.warning("api.no_token", detail="API_TOKENS is not set: only tokens made at run time open the endpoint")
    raise_open_files_limit()
    enlarge_thread_pool()
    with stop_on_signals() as stop:
        async with open_services(settings) as services:
            await services.warm()
            tune_garbage_collection()
            async with serve_web(services, {}, timing=WebTiming(shutdown_s=settings.shutdown_timeout)):
                probe = asyncio.create_task(_probe(services), name="provider.probe")
                try:
                    await stop.wait()
                finally:
                    await cancel_and_wait(probe)
    return 0


async def _probe(services: Services) -> None:
    llm = services.llm
    await check_providers(llm.catalog, llm.fallback.providers, services.infra.clock, llm.fallback.recorder.pass_over)
