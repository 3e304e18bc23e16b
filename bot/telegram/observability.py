"""Observes the daemon: traces of Bot API calls, the size of the queue, and whether the bot is ready."""

from collections.abc import Callable, Mapping
from enum import StrEnum
from functools import partial
from typing import Protocol

from aiogram import Bot
from opentelemetry.trace import Tracer

from bot.telegram.api.errors import ApiFailure
from bot.telegram.api.session import ApiCallMiddleware, TelegramMetrics
from bot.web.readiness import Check
from core.clock import Clock
from core.observability.metrics import Metrics
from core.observability.tracing import Tracing, record_span
from services.inbox.lease import ReplicaLease


class CallSpans:
    """Records a span for each Bot API call."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    def record_call(self, method: str, began_ns: int, seconds: float, failure: ApiFailure | None) -> None:
        """Records a finished call."""
        attributes = {"telegram.method": method}
        if failure is not None:
            attributes["telegram.fault"] = failure.name.lower()
        record_span(self._tracer, f"telegram {method}", began_ns, seconds, attributes, failed=failure is not None)


class QueueSize(Protocol):
    """The inbox, as far as metrics read it."""

    @property
    def running(self) -> int:
        """Jobs that run in this process."""
        ...

    @property
    def waiting(self) -> int:
        """Jobs that this process stored and that have not started."""
        ...


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
        self._expose = metrics.reading
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

    def watch_queue(self, queue: QueueSize, problem: Callable[[], str | None]) -> None:
        """Includes the queue in the readiness checks, and exposes its size, read at each scrape.

        Args:
            problem: returns why the queue does not work, or None.
        """
        self._queue_problem = problem
        self._expose("jobs_running", "Messages and presses that are at work", lambda: float(queue.running))
        self._expose(
            "jobs_waiting", "Those that were taken in here and wait for their turn", lambda: float(queue.waiting)
        )

    async def _check_bot(self) -> str | None:
        if self.phase is not DaemonPhase.SERVING:
            return self.phase.value
        if not self._lease.is_held:
            return "the lease of this replica has lapsed: another one may have taken its work over"
        problem = self._queue_problem()
        return None if problem is None else f"the queue does not work: {problem}"
