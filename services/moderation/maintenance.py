"""Periodic work: judges pending messages, finishes orphaned incidents, erases and deletes expired data."""

import asyncio
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import Protocol

import structlog

from core.clock import Clock
from core.errors import StorageError
from services.moderation.domain.ports import Cards
from services.moderation.enforcement import Enforcement
from services.moderation.pipeline import Pipeline, Stage
from services.moderation.records.groups import GroupStore
from services.moderation.records.incidents import IncidentStore
from services.moderation.records.pending import PendingMessage, PendingMessages

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class MaintenanceTiming:
    """Intervals in seconds.

    Args:
        round_s: between two rounds.
        retention_s: between two passes over expired data.
        probes: pending messages that are judged first in a round; the outage goes on if none of them gets a verdict.
        parallel: pending messages that are judged at once after that.
    """

    round_s: float = 20.0
    retention_s: float = 600.0
    probes: int = 3
    parallel: int = 8


class Warmable(Protocol):
    """A component with a slow first use."""

    async def warm(self) -> None:
        """Prepares it."""
        ...


class Expiring(Protocol):
    """A store with old rows to delete."""

    async def delete_expired(self) -> None:
        """Deletes rows past their retention."""
        ...


class Retention:
    """Erases the text of old incidents, in the database and on their cards, and deletes expired rows."""

    def __init__(self, groups: GroupStore, incidents: IncidentStore, cards: Cards, stores: Sequence[Expiring]) -> None:
        self._groups = groups
        self._incidents = incidents
        self._cards = cards
        self._stores = stores

    async def apply(self) -> None:
        """Removes everything that has expired."""
        while expired := await self._incidents.list_expired():
            for incident in expired:
                settings = await self._groups.get(incident.finding.group_id)
                erased = await self._incidents.erase(incident.id)
                if erased is not None and settings is not None:
                    await self._cards.refresh(erased, settings)
        for store in self._stores:
            await store.delete_expired()


class Maintenance:
    """Maintains all groups. Several replicas may run it at once: each piece of work is leased to one of them."""

    def __init__(
        self,
        groups: GroupStore,
        pending: PendingMessages,
        pipeline: Pipeline,
        enforcement: Enforcement,
        retention: Retention,
        scores: Warmable,
        clock: Clock,
        timing: MaintenanceTiming,
    ) -> None:
        self._groups = groups
        self._pending = pending
        self._pipeline = pipeline
        self._enforcement = enforcement
        self._retention = retention
        self._scores = scores
        self._clock = clock
        self._timing = timing
        self._retention_due = 0.0

    async def run(self) -> None:
        """Runs until cancelled."""
        await self._warm()
        while True:
            await self.run_once()
            await self._clock.sleep(self._timing.round_s)

    async def run_once(self) -> None:
        """Does everything that is due. A step that fails is logged and leaves the others alone."""
        await self._run_step("orphans", self._enforcement.finish_orphans(self._groups))
        if self._clock.time() >= self._retention_due:
            self._retention_due = self._clock.time() + self._timing.retention_s
            await self._run_step("retention", self._retention.apply())
        await self._run_step("pending", self._rejudge_pending())

    async def _run_step(self, step: str, work: Awaitable[None]) -> None:
        try:
            await work
        except StorageError as error:
            log.warning("moderation.maintenance_failed", step=step, reason=str(error))
        except Exception:
            # A bug that one message triggers must not end the maintenance of all groups.
            log.exception("moderation.maintenance_failed", step=step)

    async def _warm(self) -> None:
        """Prepares the local score if a group is moderated, which saves its first message some seconds."""
        try:
            if await self._groups.are_any_on():
                await self._scores.warm()
        except StorageError as error:
            log.warning("moderation.warm_up_failed", reason=str(error))

    async def _rejudge_pending(self) -> None:
        """Judges due messages side by side until none is left; while an outage goes on, only the probes."""
        limit = self._timing.probes
        while due := await self._pending.take_due(limit):
            has_verdicts = await asyncio.gather(*map(self._rejudge, due))
            if not any(has_verdicts):
                return
            limit = self._timing.parallel

    async def _rejudge(self, pending: PendingMessage) -> bool:
        """Judges one message again; returns whether it waits no longer. A bug that it triggers is its own."""
        group_id = pending.message.group_id
        try:
            settings = await self._groups.get(group_id)
            if settings is None:
                await self._pending.delete(pending.message, pending.version)
                return True
            outcome = await self._pipeline.rejudge(pending.message, pending.version, settings)
        except StorageError as error:
            log.warning("moderation.rejudge_failed", group_id=group_id, reason=str(error))
            return False
        except Exception:
            log.exception("moderation.rejudge_failed", group_id=group_id)
            return False
        log.info("moderation.rejudged", group_id=group_id, stage=outcome.stage.value)
        return outcome.stage is not Stage.WAITS
