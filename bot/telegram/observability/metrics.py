"""What is counted of Telegram."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Protocol

from bot.telegram.api.errors import ApiFailure
from bot.telegram.api.updates import UPDATE_TYPES
from core.observability.metrics import OTHER, QUICK_SECONDS, Metrics

Sink = Callable[[Sequence[dict[str, Any]]], Awaitable[None]]
"""Takes a batch of updates as Telegram sent them."""


class QueueFigures(Protocol):
    """What is shown of the inbox."""

    @property
    def running(self) -> int:
        """Jobs that are being done here."""
        ...

    @property
    def waiting(self) -> int:
        """Jobs that were taken in here and not begun yet."""
        ...


def kind_of(fields: Iterable[str]) -> str:
    """What an update with these fields is: `message`, `callback_query`, ..."""
    return next((kind for kind in fields if kind in UPDATE_TYPES), OTHER)


class TelegramMetrics:
    """Counts updates, calls, refusals and what was lost.

    Args:
        metrics: where it is shown.
    """

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

    def follow(self, inbox: QueueFigures) -> None:
        """Show what is at work and what waits, whenever that is asked for."""
        show = self._metrics.reading
        show("jobs_running", "Messages and presses that are at work", lambda: float(inbox.running))
        show("jobs_waiting", "Those that were taken in here and wait for their turn", lambda: float(inbox.waiting))

    def counted(self, sink: Sink) -> Sink:
        """The sink, with each update counted that it took."""

        async def take(batch: Sequence[dict[str, Any]]) -> None:
            await sink(batch)
            # A batch that was not stored comes again.
            for update in batch:
                self._updates.labels(kind_of(update)).inc()

        return take

    def called(self, method: str, began_ns: int, seconds: float, fault: ApiFailure | None) -> None:  # noqa: ARG002 - tracers need the instant
        """Count a call."""
        self._calls.labels(method).observe(seconds)
        if fault is not None:
            self._refusals.labels(method, fault.name.lower()).inc()

    def retried(self, fault: ApiFailure) -> None:
        """Count a call that is made once more."""
        self._retries.labels(fault.name.lower()).inc()

    def lost(self, act: str) -> None:
        """Count a message that was given up."""
        self._lost.labels(act).inc()
