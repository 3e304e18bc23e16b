"""Traces of Telegram: a span for each update, and in it one for each Bot API call."""

from collections.abc import Awaitable, Callable
from typing import Any

from aiogram.types import TelegramObject, Update
from opentelemetry.trace import Tracer

from bot.telegram.api.errors import ApiFailure
from bot.telegram.observability.metrics import update_kind
from core.observability.tracing import record_span


class UpdateSpans:
    """Opens a span around each update: an outer middleware of the dispatcher."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    async def __call__(
        self,
        handler: Callable[[TelegramObject, dict[str, Any]], Awaitable[Any]],
        update: TelegramObject,
        data: dict[str, Any],
    ) -> Any:  # noqa: ANN401 - the handler's result
        """Handles an update within a span."""
        with self._tracer.start_as_current_span("update", record_exception=False) as span:
            if isinstance(update, Update):
                span.set_attribute("telegram.update", update_kind(update.model_fields_set))
            return await handler(update, data)


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
