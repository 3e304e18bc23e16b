"""Spans of database transactions that end in every way."""

import asyncio

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from core.db.database import Database
from core.observability.tracing import trace_transactions

pytestmark = pytest.mark.integration


async def test_cancelled_transaction_stays_cancelled_and_has_a_failed_span(database: Database) -> None:
    """The driver's connection is gone when the rollback is traced; an error there would swallow the cancellation."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("test")
    trace_transactions(tracer, database.engines)

    is_open = asyncio.Event()

    async def hold() -> None:
        with tracer.start_as_current_span("turn"):
            async with database.session() as session:
                connection = await session.connection()
                await connection.invalidate()
                is_open.set()
                await asyncio.Event().wait()

    task = asyncio.create_task(hold())
    await is_open.wait()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    transaction = exporter.get_finished_spans()[0]
    assert (transaction.name, transaction.status.status_code) == ("transaction", StatusCode.ERROR)
