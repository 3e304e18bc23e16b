"""Spans on their way to a collector: sampled, batched in a thread, and stripped of everything that is not known.

Libraries put into spans what is nobody's business: an exception's message may quote the prompt or the key. So nothing
leaves but attributes whose names are known to be harmless, and of an exception its type.
"""

import asyncio
import logging
import threading
from collections.abc import Iterable, Mapping, Sequence

import structlog
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import Status
from opentelemetry.util.types import Attributes, AttributeValue

from core.observability.log import Redactor

log = structlog.get_logger()

REQUEST_TIMEOUT_S = 3.0
"""How long a collector may take; a dead one costs a thread that much, and nobody else anything."""
FLUSH_S = 4.0
"""How long a shutdown waits for the last spans."""
QUEUE = 4096
"""Spans that may wait; the oldest give way."""
BATCH = 512
DELAY_MS = 1000

_HARMLESS = (
    "db.system.name",
    "error.type",
    "exception.type",
    "gen_ai.agent.name",
    "gen_ai.aggregated_usage.",
    "gen_ai.client.",
    "gen_ai.operation.name",
    "gen_ai.provider.name",
    "gen_ai.request.model",
    "gen_ai.response.finish_reasons",
    "gen_ai.response.model",
    "gen_ai.system",
    "gen_ai.usage.",
    "operation.cost",
    "telegram.",
    "understudy.",
)
"""Attributes that may leave: names, or beginnings of names that end in a dot."""


class Export:
    """A provider of spans that sends them to a collector.

    Args:
        endpoint: the collector's base address; `/v1/traces` is appended, as the standard has it.
        headers: sent along.
        service: the name of this service.
        ratio: the share of traces that are kept, 0 to 1.
        secrets: what must be in no span.
    """

    def __init__(
        self, *, endpoint: str, headers: Mapping[str, str], service: str, ratio: float, secrets: Iterable[str]
    ) -> None:
        # Its failures are told by us, once, and without the address.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
        exporter = OTLPSpanExporter(
            endpoint=f"{endpoint}/v1/traces",
            headers=headers,
            timeout=REQUEST_TIMEOUT_S,
            compression=Compression.Gzip,
        )
        self._processor = BatchSpanProcessor(_Discreet(exporter, Redactor(secrets)), QUEUE, DELAY_MS, BATCH, 1000)
        self.provider = TracerProvider(
            sampler=ParentBased(TraceIdRatioBased(ratio)),
            resource=Resource.create({"service.name": service}),
            span_limits=_LIMITS,
            # The process ends when `close` says so.
            shutdown_on_exit=False,
        )
        self.provider.add_span_processor(self._processor)

    async def close(self) -> None:
        """Send what waits, for some seconds at the most."""
        loop = asyncio.get_running_loop()
        done = asyncio.Event()

        def shut_down() -> None:
            self.provider.shutdown()
            # Where the loop has gone meanwhile, nobody waits any more.
            if not loop.is_closed():
                loop.call_soon_threadsafe(done.set)

        # Not in the loop's own executor, whose threads a process waits for at its end.
        threading.Thread(target=shut_down, name="tracing.close", daemon=True).start()
        try:
            async with asyncio.timeout(FLUSH_S):
                await done.wait()
        except TimeoutError:
            log.warning("tracing.not_flushed", within_s=FLUSH_S)


_LIMITS = SpanLimits(
    max_span_attributes=64,
    max_event_attributes=16,
    max_link_attributes=16,
    max_events=32,
    max_links=16,
    max_span_attribute_length=256,
    max_attribute_length=256,
    max_attributes=64,
)
"""All of them, since what is not given here is read from variables whose mistakes end the start with a traceback."""


class _Discreet(SpanExporter):
    """Takes out of spans what is not known to be harmless, and tells when they do not arrive."""

    def __init__(self, exporter: SpanExporter, redactor: Redactor) -> None:
        self._exporter = exporter
        self._redactor = redactor
        self._arrives = True

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        try:
            result = self._exporter.export([self._clean(span) for span in spans])
        except Exception as error:  # noqa: BLE001 - reported below; spans are never worth a failure
            result, reason = SpanExportResult.FAILURE, type(error).__name__
        else:
            reason = "not accepted in time"
        arrives = result is SpanExportResult.SUCCESS
        if arrives != self._arrives:
            self._arrives = arrives
            if arrives:
                log.info("tracing.exported_again")
            else:
                log.warning("tracing.not_exported", reason=reason, lost=len(spans))
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._exporter.force_flush(timeout_millis)

    def _clean(self, span: ReadableSpan) -> ReadableSpan:
        return ReadableSpan(
            name=self._redactor.text(span.name),
            context=span.context,
            parent=span.parent,
            resource=span.resource,
            attributes=self._harmless(span.attributes),
            events=[Event(each.name, self._harmless(each.attributes), each.timestamp) for each in span.events],
            kind=span.kind,
            # Without its description, which is an exception's message.
            status=Status(span.status.status_code),
            start_time=span.start_time,
            end_time=span.end_time,
            instrumentation_scope=span.instrumentation_scope,
        )

    def _harmless(self, attributes: Attributes) -> dict[str, AttributeValue]:
        return {
            name: self._redactor.text(value) if isinstance(value, str) else value
            for name, value in (attributes or {}).items()
            if any(name.startswith(known) if known.endswith(".") else name == known for known in _HARMLESS)
        }
