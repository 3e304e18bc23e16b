"""OpenTelemetry collector on loopback: receives spans over HTTP and keeps every byte."""

import asyncio
import gzip
from dataclasses import dataclass, field
from typing import Any, Self

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


@dataclass(frozen=True)
class ReceivedSpan:
    """A received span."""

    name: str
    id: bytes
    parent: bytes
    trace: bytes
    attributes: dict[str, Any]
    failed: bool


@dataclass
class OTLPReceiver:
    """The collector. `status` is its response status; with `hangs` it never responds."""

    status: int = 200
    hangs: bool = False
    port: int = 0
    bodies: list[bytes] = field(default_factory=list[bytes])
    headers: list[dict[str, str]] = field(default_factory=list[dict[str, str]])

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_post("/v1/traces", self._receive)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port)
        await site.start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def spans(self) -> list[ReceivedSpan]:
        """All received spans, in order."""
        found: list[ReceivedSpan] = []
        for body in self.bodies:
            request = ExportTraceServiceRequest.FromString(body)
            for resource in request.resource_spans:
                for scope in resource.scope_spans:
                    for span in scope.spans:
                        attributes = {each.key: _value(each.value) for each in span.attributes}
                        found.append(
                            ReceivedSpan(
                                span.name, span.span_id, span.parent_span_id, span.trace_id, attributes,
                                span.status.code == span.status.STATUS_CODE_ERROR,
                            )
                        )  # fmt: skip
        return found

    @property
    def resource(self) -> dict[str, Any]:
        """Resource attributes of the last request."""
        request = ExportTraceServiceRequest.FromString(self.bodies[-1])
        return {each.key: _value(each.value) for each in request.resource_spans[0].resource.attributes}

    async def _receive(self, request: web.Request) -> web.Response:
        body = await request.read()
        if self.hangs:
            await asyncio.sleep(3600)
        if self.status == 200:
            zipped = request.headers.get("Content-Encoding") == "gzip" and body[:2] == b"\x1f\x8b"
            self.bodies.append(gzip.decompress(body) if zipped else body)
            self.headers.append(dict(request.headers))
        return web.Response(status=self.status)


def _value(value: Any) -> Any:
    return getattr(value, value.WhichOneof("value"))
