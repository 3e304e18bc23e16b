"""Readiness: every part is checked concurrently, under a deadline, and the report is cached for a few seconds."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import structlog
from redis.asyncio import Redis
from sqlalchemy import text

from core.clock import Clock
from core.db.database import Database
from core.errors import StorageError
from core.redis.client import REDIS_ERRORS, describe_redis_error
from services.llm.routing.fallback import LLMProviderFallback
from services.llm.routing.status import ProviderState

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class ReadinessTiming:
    """Intervals of the readiness checks, in seconds.

    Attributes:
        fresh_s: how long a report is reused, so that the probes of several systems cost one check.
        check_timeout_s: the deadline of each check.
    """

    fresh_s: float = 3.0
    check_timeout_s: float = 2.5


Check = Callable[[], Awaitable[str | None]]
"""Returns why a part is not ready, or None if it is."""

_UNAVAILABLE = frozenset({ProviderState.COOLING, ProviderState.NOT_CONFIGURED})


@dataclass(frozen=True, slots=True)
class ReadinessReport:
    """The result of each check: None for a part that is ready, else the reason."""

    parts: Mapping[str, str | None]

    @property
    def ready(self) -> bool:
        """True if all parts are ready."""
        return all(reason is None for reason in self.parts.values())


class Readiness:
    """Runs the checks, one per part by its name."""

    def __init__(self, checks: Mapping[str, Check], clock: Clock, timing: ReadinessTiming | None = None) -> None:
        self._checks = checks
        self._clock = clock
        self._timing = timing or ReadinessTiming()
        self._report = ReadinessReport({})
        self._checked_at: float | None = None
        self._lock = asyncio.Lock()

    async def check(self) -> ReadinessReport:
        """Returns the state of all parts, at most `fresh_s` old; concurrent callers share one run."""
        async with self._lock:
            if self._checked_at is None or self._clock.monotonic() - self._checked_at >= self._timing.fresh_s:
                reasons = await asyncio.gather(*(self._run(name, check) for name, check in self._checks.items()))
                before, self._report = self._report, ReadinessReport(dict(zip(self._checks, reasons, strict=True)))
                self._checked_at = self._clock.monotonic()
                if before.ready != self._report.ready or not before.parts:
                    report = log.info if self._report.ready else log.warning
                    report("web.readiness", ready=self._report.ready, parts=dict(self._report.parts))
            return self._report

    async def _run(self, name: str, check: Check) -> str | None:
        try:
            async with asyncio.timeout(self._timing.check_timeout_s):
                return await check()
        except TimeoutError:
            return f"no answer within {self._timing.check_timeout_s:g} s"
        except Exception:
            log.exception("web.check_failed", part=name)
            return "the check itself failed; see the log"


async def check_redis(redis: Redis) -> str | None:
    """Returns why Redis is unreachable, or None; the embedded store is always reachable."""
    try:
        await cast("Any", redis.ping())  # typed as maybe not awaitable, since a pipeline's is not
    except REDIS_ERRORS as error:
        # Not the error's own text: some contain the address with its credentials.
        return describe_redis_error(error)
    return None


async def check_database(database: Database) -> str | None:
    """Returns why the database cannot be read, or None."""
    try:
        async with database.reading() as session:
            await session.execute(text("SELECT 1"))
    except StorageError as error:
        return str(error)
    return None


async def check_providers(fallback: LLMProviderFallback) -> str | None:
    """Returns why every provider is unavailable, or None; reads the known state and calls no provider."""
    statuses = fallback.get_provider_status().providers
    if any(status.state not in _UNAVAILABLE for status in statuses):
        return None
    return "; ".join(f"{status.provider}: {status.state.value} ({status.reason})" for status in statuses)
