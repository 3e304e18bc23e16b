"""The daemon with a clock that runs twenty times as fast: a minute of pauses takes three seconds."""

import asyncio
import time
from collections.abc import Sequence

from bot.composition.services import open_services
from bot.composition.telegram import run_daemon
from bot.event_loop import run
from core.clock import SystemClock
from core.config.settings import load_settings
from core.observability.log import configure_logging

SPEED = 20.0


class FastClock(SystemClock):
    """Shortens pauses; the date is the real one."""

    def monotonic(self) -> float:
        return time.monotonic() * SPEED

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds / SPEED)


def main(arguments: Sequence[str]) -> int:
    """Run `python -m bot telegram`; return its exit code."""
    del arguments
    settings = load_settings(None)
    configure_logging(settings.log_level, settings.log_format, secrets=settings.secrets)
    settings.require_daemon()

    async def serve() -> int:
        async with open_services(settings, FastClock()) as services:
            return await run_daemon(services)

    return run(serve())
