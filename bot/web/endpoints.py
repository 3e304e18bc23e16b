"""Endpoints: liveness, readiness, metrics, and the state of the providers."""

import asyncio
import dataclasses
import json
import statistics
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from aiohttp import web
from aiohttp.hdrs import ACCEPT, CACHE_CONTROL

from bot.web.readiness import Readiness
from bot.web.server import HttpRoute
from core.errors import StorageError
from core.observability.log import Redactor
from core.observability.metrics import Metrics
from services.llm.routing.fallback import LLMProviderFallback
from services.llm.routing.status import ProviderStatus, ServiceStatus, percentile_95
from services.usage.totals import UsageTotal, UsageTotals

NOT_STORED = {CACHE_CONTROL: "no-store"}


class Endpoints:
    """Handlers of the built-in routes."""

    def __init__(
        self,
        readiness: Readiness,
        metrics: Metrics,
        fallback: LLMProviderFallback,
        usage_totals: UsageTotals,
        redactor: Redactor,
    ) -> None:
        self._readiness = readiness
        self._metrics = metrics
        self._fallback = fallback
        self._usage_totals = usage_totals
        self._redactor = redactor
        self._lag = metrics.gauge("event_loop_lag_seconds", "How long what is ready had to wait just now")

    @property
    def routes(self) -> tuple[HttpRoute, ...]:
        """The routes and their handlers."""
        return (
            HttpRoute("GET", "/healthz", self.health, is_guarded=False),
            HttpRoute("GET", "/readyz", self.ready, is_guarded=False),
            HttpRoute("GET", "/metrics", self.metrics),
            HttpRoute("GET", "/llm/status", self.status),
        )

    async def health(self, _request: web.Request) -> web.Response:
        """Liveness: an answer proves that the event loop runs."""
        return self._json({"alive": True})

    async def ready(self, _request: web.Request) -> web.Response:
        """Readiness of each part: 200 if all are ready, else 503 with the reasons."""
        report = await self._readiness.check()
        body = {
            "ready": report.ready,
            "parts": {name: "ok" if reason is None else reason for name, reason in report.parts.items()},
        }
        return self._json(body, 200 if report.ready else 503)

    async def metrics(self, request: web.Request) -> web.Response:
        """All metrics in Prometheus format; measures the event loop's lag on the way."""
        # The event loop's own clock stands still within a pass.
        began = time.perf_counter()
        # One pass of the loop, behind everything that is ready.
        await asyncio.sleep(0)
        self._lag.set(time.perf_counter() - began)
        body, content_type = self._metrics.exposition(request.headers.get(ACCEPT))
        return web.Response(body=body, headers={"Content-Type": content_type, **NOT_STORED})

    async def status(self, _request: web.Request) -> web.Response:
        """The providers by priority, with their usage of today."""
        try:
            today = await self._usage_totals.by_provider(self._usage_totals.today)
        except StorageError:
            today = None
        return self._json(provider_status(self._fallback.get_provider_status(), today))

    def _json(self, body: object, status: int = 200) -> web.Response:
        text = self._redactor.text(json.dumps(body, ensure_ascii=False, indent=2))
        return web.Response(status=status, text=text + "\n", content_type="application/json", headers=NOT_STORED)


def provider_status(status: ServiceStatus, today: Mapping[str, UsageTotal] | None) -> dict[str, object]:
    """Returns the state of the providers as JSON values: instants in ISO 8601, durations in seconds.

    Args:
        status: the known state; its requests and failures are those of this process since its start.
        today: usage per provider of all replicas today (in TIMEZONE); None if the database cannot be read.
    """
    return {
        "forced": status.forced,
        "preferred": status.preferred,
        "shared": status.shared,
        "providers": [_provider(provider, today) for provider in status.providers],
    }


def _provider(provider: ProviderStatus, today: Mapping[str, UsageTotal] | None) -> dict[str, object]:
    fields = dataclasses.asdict(provider)
    latest: Sequence[float] = fields.pop("first_output_s")
    until = provider.until
    used = None if today is None else today.get(provider.provider, UsageTotal())
    return {
        **fields,
        "until": datetime.fromtimestamp(until, UTC).isoformat(timespec="seconds") if until is not None else None,
        "first_output_median_s": round(statistics.median(latest), 3) if latest else None,
        "first_output_p95_s": round(percentile_95(latest), 3) if latest else None,
        "requests_today": used.requests if used is not None else None,
        "failures_today": used.failures if used is not None else None,
        "cost_today_usd": used.cost_usd if used is not None else None,
    }
