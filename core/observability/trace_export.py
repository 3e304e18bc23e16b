"""Exports spans to an OTLP collector: sampled, batched in a thread, filtered by an allow-list of attributes.

Libraries record sensitive data in spans: an exception's message may quote the prompt or the key. Only attributes on the
allow-list are exported, and of an exception its type.
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
"""Timeout of an export request. It blocks the exporter's thread only, never the event loop."""
FLUSH_S = 4.0
"""Longest time that a shutdown waits for the last spans."""
QUEUE = 4096
"""Maximum of spans in the queue; the oldest are dropped."""
BATCH = 512
DELAY_MS = 1000

_ALLOWED = (
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
"""Attributes that are exported: full names, or prefixes that end in a dot."""


class Export:
    """A tracer provider that sends its spans to a collector.

    Args:
        endpoint: base URL of the collector; `/v1/traces` is appended, as in the OTLP specification.
        service: value of `service.name`.
        ratio: share of traces that are sampled, 0 to 1.
        secrets: values to mask in span names and attributes.
    """

    def __init__(
        self, *, endpoint: str, headers: Mapping[str, str], service: str, ratio: float, secrets: Iterable[str]
    ) -> None:
        # Export failures are logged by `_FilteringExporter`: once, and without the address.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
        exporter = OTLPSpanExporter(
            endpoint=f"{endpoint}/v1/traces",
            headers=headers,
            timeout=REQUEST_TIMEOUT_S,
            compression=Compression.Gzip,
        )
        self._processor = BatchSpanProcessor(
            _FilteringExporter(exporter, Redactor(secrets)), QUEUE, DELAY_MS, BATCH, 1000
        )
        self.provider = TracerProvider(
            sampler=ParentBased(TraceIdRatioBased(ratio)),
            resource=Resource.create({"service.name": service}),
            span_limits=_LIMITS,
            # `close` shuts the provider down.
            shutdown_on_exit=False,
        )
        self.provider.add_span_processor(self._processor)

    async def close(self) -> None:
        """Flushes the queue, for `FLUSH_S` at most."""
        loop = asyncio.get_running_loop()
        done = asyncio.Event()

        def shut_down() -> None:
            self.provider.shutdown()
            # A closed loop means that `close` timed out long ago.
            if not loop.is_closed():
                loop.call_soon_threadsafe(done.set)

        # Not in the loop's executor: the interpreter joins its threads at exit.
        threading.Thread(target=shut_down, name="tracing.close", daemon=True).start()
        try:
            async with asyncio.timeout(FLUSH_S):
                await done.wait()
        except TimeoutError:
            log.warning("tracing.flush_timed_out", within_s=FLUSH_S)


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
"""All limits are set, since each missing one is read from an environment variable, where an invalid value is fatal."""


class _FilteringExporter(SpanExporter):
    """Removes attributes that are not on the allow-list, and logs when exports begin to fail or succeed again."""

    def __init__(self, exporter: SpanExporter, redactor: Redactor) -> None:
        self._exporter = exporter
        self._redactor = redactor
        self._is_arriving = True

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        try:
            result = self._exporter.export([self._filter_span(span) for span in spans])
        except Exception as error:  # noqa: BLE001 - reported below; spans are never worth a failure
            result, reason = SpanExportResult.FAILURE, type(error).__name__
        else:
            reason = "not accepted in time"
        is_arriving = result is SpanExportResult.SUCCESS
        if is_arriving != self._is_arriving:
            self._is_arriving = is_arriving
            if is_arriving:
                log.info("tracing.export_recovered")
            else:
                log.warning("tracing.export_failed", reason=reason, lost=len(spans))
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._exporter.force_flush(timeout_millis)

    def _filter_span(self, span: ReadableSpan) -> ReadableSpan:
        return ReadableSpan(
            name=self._redactor.text(span.name),
            context=span.context,
            parent=span.parent,
            resource=span.resource,
            attributes=self._filter_attributes(span.attributes),
            events=[
                Event(recorded.name, self._filter_attributes(recorded.attributes), recorded.timestamp)
                for recorded in span.events
            ],
            kind=span.kind,
            # Without the description, which is an exception's message.
            status=Status(span.status.status_code),
            start_time=span.start_time,
            end_time=span.end_time,
            instrumentation_scope=span.instrumentation_scope,
        )

    def _filter_attributes(self, attributes: Attributes) -> dict[str, AttributeValue]:
        return {
            name: self._redactor.text(value) if isinstance(value, str) else value
            for name, value in (attributes or {}).items()
            if any(name.startswith(known) if known.endswith(".") else name == known for known in _ALLOWED)
        }
