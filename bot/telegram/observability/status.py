"""Observes one bot: lifecycle phase, Bot API calls, metrics and spans."""

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
    """Lifecycle phase of the daemon."""

    STARTING = "starting"
    SERVING = "serving"
    STOPPING = "stopping"


class DaemonStatus:
    """Installs the observers of a bot's calls and reports whether the bot is ready."""

    def __init__(self, bot: Bot, clock: Clock, metrics: Metrics, tracing: Tracing) -> None:
        self.phase = DaemonPhase.STARTING
        self.metrics = TelegramMetrics(metrics)
        self._bot = bot
        self._calls = ApiCallMiddleware(clock)
        self._calls.watch(self.metrics)
        if tracing.on:
            self._calls.watch(CallSpans(tracing.tracer))
        bot.session.middleware(self._calls)

    @property
    def checks(self) -> Mapping[str, Check]:
        """The readiness checks of the bot, by part."""
        return {"telegram": partial(self._calls.check, self._bot), "bot": self._check_phase}

    async def _check_phase(self) -> str | None:
        return None if self.phase is DaemonPhase.SERVING else self.phase.value
