"""Spans of Telegram: one of each update while it is handled, and in it those of the calls that this took."""

from collections.abc import Awaitable, Callable
from typing import Any

from aiogram.types import TelegramObject, Update
from opentelemetry.trace import Tracer

from bot.telegram.api.errors import ApiFailure
from bot.telegram.observability.metrics import kind_of
from core.observability.tracing import record_span


class UpdateSpans:
    """Makes a span of each update: an outer middleware of the dispatcher.

    Args:
        tracer: makes them.
    """

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    async def __call__(
        self,
        handler: Callable[[TelegramObject, dict[str, Any]], Awaitable[Any]],
        update: TelegramObject,
        data: dict[str, Any],
    ) -> Any:  # noqa: ANN401 - whatever the handler returns
        """Handle an update."""
        with self._tracer.start_as_current_span("update", record_exception=False) as span:
            if isinstance(update, Update):
                span.set_attribute("telegram.update", kind_of(update.model_fields_set))
            return await handler(update, data)


class CallSpans:
    """Makes a span of each call of the Bot API.

    Args:
        tracer: makes them.
    """

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    def called(self, method: str, began_ns: int, seconds: float, fault: ApiFailure | None) -> None:
        """Make a span of a call that is over."""
        attributes = {"telegram.method": method}
        if fault is not None:
            attributes["telegram.fault"] = fault.name.lower()
        record_span(self._tracer, f"telegram {method}", began_ns, seconds, attributes, failed=fault is not None)
