"""What an operator sees of the daemon: where its life stands, its calls, its figures."""

from collections.abc import Mapping
from enum import StrEnum
from functools import partial

from aiogram import Bot

from bot.telegram.observability.api_calls import ApiCallMiddleware
from bot.telegram.observability.metrics import TelegramMetrics
from bot.telegram.observability.tracing import CallSpans
from bot.web.readiness import Check
from core.clock import Clock
from core.observability.metrics import Metrics
from core.observability.tracing import Tracing


class DaemonPhase(StrEnum):
    """Where the daemon's life stands."""

    STARTING = "starting"
    SERVING = "serving"
    STOPPING = "stopping"


class DaemonStatus:
    """Sees a bot from before its first call to after its last.

    Args:
        bot: whose calls are watched.
        clock: the time.
        metrics: where they are counted.
        tracing: where their spans go.
    """

    def __init__(self, bot: Bot, clock: Clock, metrics: Metrics, tracing: Tracing) -> None:
        self.phase = DaemonPhase.STARTING
        self.figures = TelegramMetrics(metrics)
        self._bot = bot
        self._calls = ApiCallMiddleware(clock)
        self._calls.watch(self.figures)
        if tracing.on:
            self._calls.watch(CallSpans(tracing.tracer))
        bot.session.middleware(self._calls)

    @property
    def checks(self) -> Mapping[str, Check]:
        """What has to be there for the bot to be ready."""
        return {"telegram": partial(self._calls.silence, self._bot), "bot": self._why_not_serving}

    async def _why_not_serving(self) -> str | None:
        return None if self.phase is DaemonPhase.SERVING else self.phase.value
