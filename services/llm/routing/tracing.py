"""One span per attempt, within the span of its turn."""

from opentelemetry.trace import Tracer

from core.observability.tracing import record_span
from services.llm.routing.events import AttemptEnded, AttemptResult, LLMEvent

_NOT_FAILED = frozenset({AttemptResult.ANSWERED, AttemptResult.CANCELLED})


class AttemptSpans:
    """Records attempts as spans."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    def note(self, event: LLMEvent) -> None:
        """Records the span of an attempt that has ended."""
        if not isinstance(event, AttemptEnded):
            return
        attributes: dict[str, str | float] = {
            "understudy.provider": event.provider,
            "understudy.model": event.model,
            "understudy.context": event.purpose,
            "understudy.result": event.result.value,
        }
        if event.fault is not None:
            attributes["understudy.fault"] = event.fault.value
        if event.first_output_s is not None:
            attributes["understudy.first_output_s"] = round(event.first_output_s, 6)
        record_span(
            self._tracer,
            f"attempt {event.provider}",
            int(event.began * 1e9),
            event.seconds,
            attributes,
            failed=event.result not in _NOT_FAILED,
        )
