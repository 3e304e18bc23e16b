"""Is the bot ready? Each of its parts is asked, all at once, briefly, and not more often than every few seconds."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisClusterException, RedisError
from sqlalchemy import text

from core.clock import Clock
from core.db.database import Database
from core.errors import StorageError
from services.llm.routing.fallback import LLMProviderFallback
from services.llm.routing.status import ProviderState

log = structlog.get_logger()

FRESH_S = 3.0
"""So long an answer holds: probes of several systems cost one look."""
PATIENCE_S = 2.5
"""How long a part may take to answer."""

Check = Callable[[], Awaitable[str | None]]
"""Why a part is not ready; None where it is."""

_OUT = frozenset({ProviderState.COOLING, ProviderState.NOT_CONFIGURED})


@dataclass(frozen=True, slots=True)
class ReadinessReport:
    """What each part said: None where it is ready, else why it is not."""

    parts: Mapping[str, str | None]

    @property
    def ready(self) -> bool:
        """Whether all of them are."""
        return all(reason is None for reason in self.parts.values())


class Readiness:
    """Asks the parts.

    Args:
        checks: one for each part, by its name.
        clock: tells how old an answer is.
    """

    def __init__(self, checks: Mapping[str, Check], clock: Clock) -> None:
        self._checks = checks
        self._clock = clock
        self._report = ReadinessReport({})
        self._looked_at: float | None = None
        self._looking = asyncio.Lock()

    async def look(self) -> ReadinessReport:
        """The state of all parts, at most some seconds old."""
        async with self._looking:
            if self._looked_at is None or self._clock.monotonic() - self._looked_at >= FRESH_S:
                reasons = await asyncio.gather(*(_asked(name, check) for name, check in self._checks.items()))
                before, self._report = self._report, ReadinessReport(dict(zip(self._checks, reasons, strict=True)))
                self._looked_at = self._clock.monotonic()
                if before.ready != self._report.ready or not before.parts:
                    log.info("web.readiness", ready=self._report.ready, parts=dict(self._report.parts))
            return self._report


async def _asked(name: str, check: Check) -> str | None:
    try:
        async with asyncio.timeout(PATIENCE_S):
            return await check()
    except TimeoutError:
        return f"no answer within {PATIENCE_S:g} s"
    except Exception:
        log.exception("web.check_failed", part=name)
        return "the check itself failed; the log tells more"


async def check_redis(redis: Redis) -> str | None:
    """Why Redis cannot be used; the embedded store always can."""
    try:
        await cast("Any", redis.ping())  # typed as maybe not awaitable, since a pipeline's is not
    except (RedisError, RedisClusterException, OSError, TimeoutError) as error:
        # Not in its own words: some name the address with all that is in it.
        cause = error.__cause__ or error
        return "connection refused" if isinstance(cause, ConnectionRefusedError) else type(error).__name__
    return None


async def check_database(database: Database) -> str | None:
    """Why the database cannot be read."""
    try:
        async with database.reading() as session:
            await session.execute(text("SELECT 1"))
    except StorageError as error:
        return str(error)
    return None


async def check_providers(fallback: LLMProviderFallback) -> str | None:
    """Why no provider can be asked, as far as it is known without asking one."""
    statuses = fallback.get_provider_status().providers
    if any(status.state not in _OUT for status in statuses):
        return None
    return "; ".join(f"{status.provider}: {status.state.value} ({status.reason})" for status in statuses)
