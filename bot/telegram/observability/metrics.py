"""Metrics of Telegram: updates, Bot API calls, refusals, retries and lost messages."""

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from bot.telegram.api.errors import ApiFailure
from bot.telegram.api.updates import UPDATE_TYPES, UpdateSink
from core.observability.metrics import OTHER, QUICK_SECONDS, Metrics


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

    def record_call(self, method: str, began_ns: int, seconds: float, failure: ApiFailure | None) -> None:  # noqa: ARG002 - tracers need the instant
        """Counts a finished call."""
        self._calls.labels(method).observe(seconds)
        if failure is not None:
            self._refusals.labels(method, failure.name.lower()).inc()

    def count_retry(self, failure: ApiFailure) -> None:
        """Counts a retried call."""
        self._retries.labels(failure.name.lower()).inc()

    def count_lost(self, act: str) -> None:
        """Counts a message that was given up."""
        self._lost.labels(act).inc()
