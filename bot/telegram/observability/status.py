"""Observes one bot: lifecycle phase, Bot API calls, metrics and spans."""

from collections.abc import Callable, Mapping
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
from services.inbox.lease import ReplicaLease


class DaemonPhase(StrEnum):
    """Lifecycle phase of the daemon."""

    STARTING = "starting"
    SERVING = "serving"
    STOPPING = "stopping"


class DaemonStatus:
    """Installs the observers of a bot's calls and reports whether the bot is ready.

    Args:
        lease: right of this process to act; while it has lapsed the bot is not ready.
    """

    def __init__(self, bot: Bot, clock: Clock, metrics: Metrics, tracing: Tracing, lease: ReplicaLease) -> None:
        self._lease = lease
        self.phase = DaemonPhase.STARTING
        self.metrics = TelegramMetrics(metrics)
        self._bot = bot
        self._queue_problem: Callable[[], str | None] = lambda: None
        self._calls = ApiCallMiddleware(clock)
        self._calls.watch(self.metrics)
        if tracing.on:
            self._calls.watch(CallSpans(tracing.tracer))
        bot.session.middleware(self._calls)

    @property
    def checks(self) -> Mapping[str, Check]:
        """The readiness checks of the bot, by part."""
        return {"telegram": partial(self._calls.check, self._bot), "bot": self._check_bot}

    def watch_queue(self, problem: Callable[[], str | None]) -> None:
        """Includes the queue in the readiness checks.

        Args:
            problem: returns why the queue does not work, or None.
        """
        self._queue_problem = problem

    async def _check_bot(self) -> str | None:
        if self.phase is not DaemonPhase.SERVING:
            return self.phase.value
        if not self._lease.is_held:
            return "the lease of this replica has lapsed: another one may have taken its work over"
        problem = self._queue_problem()
        return None if problem is None else f"the queue does not work: {problem}"
