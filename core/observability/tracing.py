"""OpenTelemetry tracing: exported if an endpoint is set, otherwise a no-op tracer.

Other packages use the API only, through an injected `Tracer`. The SDK is imported only if spans are exported.
"""

import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Protocol
from weakref import WeakKeyDictionary

from opentelemetry.trace import NoOpTracerProvider, Status, StatusCode, Tracer, TracerProvider, get_current_span
from opentelemetry.util.types import Attributes
from pydantic import SecretStr
from sqlalchemy import Connection, Engine, event

from core.config.fields import parse_headers

SCOPE = "understudy"


class TracingSettings(Protocol):
    """The settings that tracing depends on."""

    @property
    def otel_exporter_otlp_endpoint(self) -> str | None:
        """Base URL of the collector; None disables tracing."""
        ...

    @property
    def otel_exporter_otlp_headers(self) -> SecretStr | None:
        """Headers of the export requests, `name=value,name=value`."""
        ...

    @property
    def otel_service_name(self) -> str:
        """Value of `service.name`."""
        ...

    @property
    def otel_traces_sampler_arg(self) -> float:
        """Share of traces that are sampled, 0 to 1."""
        ...

    @property
    def secrets(self) -> tuple[str, ...]:
        """Values to mask in spans."""
        ...


@dataclass(frozen=True, slots=True)
class Tracing:
    """The tracer provider and its shutdown.

    Args:
        provider: passed to libraries that record spans of their own.
        on: whether spans are exported.
        close: flushes the queue, in bounded time.
    """

    provider: TracerProvider
    on: bool
    close: Callable[[], Awaitable[None]]

    @property
    def tracer(self) -> Tracer:
        """The application's tracer."""
        return self.provider.get_tracer(SCOPE)


def open_tracing(settings: TracingSettings) -> Tracing:
    """Returns the configured tracing."""
    if settings.otel_exporter_otlp_endpoint is None:
        return Tracing(NoOpTracerProvider(), on=False, close=_close_nothing)
    from core.observability.trace_export import Export

    headers = settings.otel_exporter_otlp_headers
    export = Export(
        endpoint=settings.otel_exporter_otlp_endpoint,
        headers=parse_headers(headers.get_secret_value()) if headers is not None else {},
        service=settings.otel_service_name,
        ratio=settings.otel_traces_sampler_arg,
        secrets=settings.secrets,
    )
    return Tracing(export.provider, on=True, close=export.close)


def record_span(
    tracer: Tracer, name: str, began_ns: int, seconds: float, attributes: Attributes, *, failed: bool = False
) -> None:
    """Records a span of a finished operation as a child of the current one; does nothing without a current span.

    Args:
        tracer: source of the span.
        name: span name.
        began_ns: start, in nanoseconds since the epoch.
        seconds: duration.
        attributes: must hold no user content.
        failed: sets the error status.
    """
    if not get_current_span().is_recording():
        return
    span = tracer.start_span(name, start_time=began_ns, attributes=attributes)
    if failed:
        span.set_status(Status(StatusCode.ERROR))
    span.end(end_time=began_ns + int(seconds * 1e9))


def trace_transactions(tracer: Tracer, engines: Iterable[Engine]) -> None:
    """Records a span of each database transaction within the current trace."""
    # Not in `Connection.info`, which raises once the connection was invalidated, as by a cancellation.
    starts: WeakKeyDictionary[Connection, int] = WeakKeyDictionary()

    def began(connection: Connection) -> None:
        starts[connection] = time.time_ns()

    def record(connection: Connection, *, is_committed: bool) -> None:
        began_ns = starts.pop(connection, None)
        if began_ns is not None:
            seconds = (time.time_ns() - began_ns) / 1e9
            name = connection.dialect.name
            record_span(tracer, "transaction", began_ns, seconds, {"db.system.name": name}, failed=not is_committed)

    def committed(connection: Connection) -> None:
        record(connection, is_committed=True)

    def rolled_back(connection: Connection) -> None:
        record(connection, is_committed=False)

    for engine in engines:
        event.listen(engine, "begin", began)
        event.listen(engine, "commit", committed)
        event.listen(engine, "rollback", rolled_back)


async def _close_nothing() -> None:
    """Does nothing: the no-op tracer has no queue."""
