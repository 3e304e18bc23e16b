"""What an operator sees of the daemon: where its life stands, its calls, its figures."""

from collections.abc import Mapping
from enum import StrEnum
from functools import partial

from aiogram import Bot

from bot.telegram.calls import Calls
from bot.telegram.metrics import TelegramMetrics
from bot.telegram.spans import CallSpans
from bot.web.health import Check
from core.clock import Clock
from core.telemetry import Metrics
from core.tracing import Tracing


class Phase(StrEnum):
    """Where the daemon's life stands."""

    STARTING = "starting"
    SERVING = "serving"
    STOPPING = "stopping"


class Watch:
    """Sees a bot from before its first call to after its last.

    Args:
        bot: whose calls are watched.
        clock: the time.
        metrics: where they are counted.
        tracing: where their spans go.
    """

    def __init__(self, bot: Bot, clock: Clock, metrics: Metrics, tracing: Tracing) -> None:
        self.phase = Phase.STARTING
        self.figures = TelegramMetrics(metrics)
        self._bot = bot
        self._calls = Calls(clock)
        self._calls.watch(self.figures)
        if tracing.on:
            self._calls.watch(CallSpans(tracing.tracer))
        bot.session.middleware(self._calls)

    @property
    def checks(self) -> Mapping[str, Check]:
        """What has to be there for the bot to be ready."""
        return {"telegram": partial(self._calls.silence, self._bot), "bot": self._why_not_serving}

    async def _why_not_serving(self) -> str | None:
        return None if self.phase is Phase.SERVING else self.phase.value
