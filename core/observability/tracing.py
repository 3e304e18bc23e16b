"""Traces: OpenTelemetry spans where an endpoint is set, and nothing at all where none is.

The rest of the house knows the API alone: a `Tracer` that is handed to it. What exports is imported when there is
somewhere to send spans to.
"""

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from opentelemetry.trace import NoOpTracerProvider, Status, StatusCode, Tracer, TracerProvider, get_current_span
from opentelemetry.util.types import Attributes
from pydantic import SecretStr
from sqlalchemy import Connection, event
from sqlalchemy.ext.asyncio import AsyncEngine

from core.config.fields import parse_headers

SCOPE = "understudy"
_BEGAN = "understudy_began_ns"


class TracingSettings(Protocol):
    """What the settings say about traces."""

    @property
    def otel_exporter_otlp_endpoint(self) -> str | None:
        """Where a collector listens; None: no traces."""
        ...

    @property
    def otel_exporter_otlp_headers(self) -> SecretStr | None:
        """`name=value,name=value` to send along."""
        ...

    @property
    def otel_service_name(self) -> str:
        """What this service is called."""
        ...

    @property
    def otel_traces_sampler_arg(self) -> float:
        """The share of traces that are kept."""
        ...

    @property
    def secrets(self) -> tuple[str, ...]:
        """What must be in no span."""
        ...


@dataclass(frozen=True, slots=True)
class Tracing:
    """Where spans come from.

    Args:
        provider: makes tracers, for libraries that have spans of their own.
        on: whether spans go anywhere.
        close: sends what has not been sent, in bounded time.
    """

    provider: TracerProvider
    on: bool
    close: Callable[[], Awaitable[None]]

    @property
    def tracer(self) -> Tracer:
        """The tracer of this house."""
        return self.provider.get_tracer(SCOPE)


def open_tracing(settings: TracingSettings) -> Tracing:
    """Spans as the settings want them."""
    if settings.otel_exporter_otlp_endpoint is None:
        return Tracing(NoOpTracerProvider(), on=False, close=_nothing)
    from core.observability.trace_export import Export  # noqa: PLC0415 - the SDK, for those who want traces

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
    """A span of what is over already, within the trace that is under way; where none is, it is not worth one.

    Args:
        tracer: makes it.
        name: of the span.
        began_ns: nanoseconds since the epoch.
        seconds: how long it took.
        attributes: what there is to say, without words of anybody.
        failed: whether it did not end well.
    """
    if not get_current_span().is_recording():
        return
    span = tracer.start_span(name, start_time=began_ns, attributes=attributes)
    if failed:
        span.set_status(Status(StatusCode.ERROR))
    span.end(end_time=began_ns + int(seconds * 1e9))


def trace_transactions(tracer: Tracer, engine: AsyncEngine) -> None:
    """A span of each transaction with the database, within the trace that is under way."""

    def began(connection: Connection) -> None:
        connection.info[_BEGAN] = time.time_ns()

    def ended(connection: Connection, *, kept: bool) -> None:
        began_ns = connection.info.pop(_BEGAN, None)
        if began_ns is not None:
            seconds = (time.time_ns() - began_ns) / 1e9
            name = connection.dialect.name
            record_span(tracer, "transaction", began_ns, seconds, {"db.system.name": name}, failed=not kept)

    def committed(connection: Connection) -> None:
        ended(connection, kept=True)

    def rolled_back(connection: Connection) -> None:
        ended(connection, kept=False)

    event.listen(engine.sync_engine, "begin", began)
    event.listen(engine.sync_engine, "commit", committed)
    event.listen(engine.sync_engine, "rollback", rolled_back)


async def _nothing() -> None:
    """There is nothing to send."""
