"""Observes the daemon: metrics and traces of updates and Bot API calls, and whether the bot is ready."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import StrEnum
from functools import partial
from typing import Any, Protocol

from aiogram import Bot
from opentelemetry.trace import Tracer

from bot.telegram.api.errors import ApiFailure
from bot.telegram.api.session import ApiCallMiddleware
from bot.telegram.api.updates import UPDATE_TYPES, UpdateSink
from bot.web.readiness import Check
from core.clock import Clock
from core.observability.metrics import OTHER, QUICK_SECONDS, Metrics
from core.observability.tracing import Tracing, record_span
from services.inbox.lease import ReplicaLease


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


def update_kind(fields: Iterable[str]) -> str:
    """Returns the kind of an update that has these fields: `message`, `callback_query`, ..."""
    return next((kind for kind in fields if kind in UPDATE_TYPES), OTHER)


class TelegramMetrics:
    """Declares the metrics of Telegram and counts."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._updates = metrics.counter("updates", "Updates taken, by kind", ("kind",))
        self._calls = metrics.histogram("telegram_call_seconds", "Time of Bot API calls", ("method",), QUICK_SECONDS)
        self._refusals = metrics.counter(
            "telegram_refusals", "Bot API calls that did not end well, by kind of fault", ("method", "kind")
        )
        self._retries = metrics.counter("telegram_retries", "Calls made once more, by kind of fault", ("kind",))
        self._lost = metrics.counter("telegram_lost", "Messages that were given up, by what was to be done", ("act",))
        self._retries.labels(ApiFailure.FLOOD.name.lower())
        for act in ("send", "edit"):
            self._lost.labels(act)

    def show_queue(self, queue: QueueSize) -> None:
        """Exposes the queue's size, read at each scrape."""
        expose = self._metrics.reading
        expose("jobs_running", "Messages and presses that are at work", lambda: float(queue.running))
        expose("jobs_waiting", "Those that were taken in here and wait for their turn", lambda: float(queue.waiting))

    def count_updates(self, sink: UpdateSink) -> UpdateSink:
        """Wraps a sink so that each update it stored is counted."""

        async def store(batch: Sequence[dict[str, Any]]) -> None:
            await sink(batch)
            # A batch that was not stored comes again.
            for update in batch:
                self._updates.labels(update_kind(update)).inc()

        return store

    def record_call(self, method: str, began_ns: int, seconds: float, failure: ApiFailure | None) -> None:
        """Counts a finished call. The instant of its beginning is for spans."""
        del began_ns
        self._calls.labels(method).observe(seconds)
        if failure is not None:
            self._refusals.labels(method, failure.name.lower()).inc()

    def count_retry(self, failure: ApiFailure) -> None:
        """Counts a retried call."""
        self._retries.labels(failure.name.lower()).inc()

    def count_lost(self, act: str) -> None:
        """Counts a message that was given up."""
        self._lost.labels(act).inc()


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
