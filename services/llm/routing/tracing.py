"""A span of each attempt, within the span of the turn that it belongs to."""

from opentelemetry.trace import Tracer

from core.observability.tracing import record_span
from services.llm.routing.events import AttemptEnded, AttemptResult, LLMEvent

_WELL = frozenset({AttemptResult.ANSWERED, AttemptResult.CANCELLED})


class AttemptSpans:
    """Makes spans of what the fallback service tells.

    Args:
        tracer: makes them.
    """

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    def note(self, happening: LLMEvent) -> None:
        """Make a span of an attempt that is over."""
        if not isinstance(happening, AttemptEnded):
            return
        attributes: dict[str, str | float] = {
            "understudy.provider": happening.provider,
            "understudy.model": happening.model,
            "understudy.context": happening.context,
            "understudy.result": happening.result.value,
        }
        if happening.fault is not None:
            attributes["understudy.fault"] = happening.fault.value
        if happening.first_output_s is not None:
            attributes["understudy.first_output_s"] = round(happening.first_output_s, 6)
        record_span(
            self._tracer,
            f"attempt {happening.provider}",
            int(happening.began * 1e9),
            happening.seconds,
            attributes,
            failed=happening.result not in _WELL,
        )
