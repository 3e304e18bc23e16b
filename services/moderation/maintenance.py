"""Periodic work: judges pending messages, finishes orphaned incidents, ends raids, erases and deletes expired data."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import structlog

from core.clock import Clock
from core.errors import StorageError
from services.moderation.case import Stage
from services.moderation.enforcement import Enforcement
from services.moderation.newcomers.newcomers import Newcomers
from services.moderation.pipeline import Pipeline
from services.moderation.records.groups import GroupStore
from services.moderation.records.incidents import IncidentStore
from services.moderation.records.pending import PendingMessage, PendingMessages
from services.moderation.reporting import IncidentReporter

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class MaintenanceTiming:
    """Intervals in seconds.

    Args:
        round_s: pause between scans for pending messages, orphaned incidents and ended raids.
        retention_s: pause between deletions of expired data.
        step_s: the longest pass of a step; the next one does the rest.
        probes: pending messages that are judged first in a round; the outage goes on if none of them gets a verdict.
        parallel: pending messages that are judged at once after that.
    """

    round_s: float = 20.0
    retention_s: float = 600.0
    step_s: float = 600.0
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
    """Erases the text of old incidents, in the database and on their cards, and deletes expired rows.

    Args:
        reporter: edits the cards, at the pace that Telegram allows.
    """

    def __init__(self, incidents: IncidentStore, reporter: IncidentReporter, stores: Sequence[Expiring]) -> None:
        self._incidents = incidents
        self._reporter = reporter
        self._stores = stores

    async def apply(self) -> None:
        """Removes everything that has expired. A failure leaves the rest alone."""
        for store in self._stores:
            await _attempt(type(store).__name__, store.delete_expired())
        while expired := await self._incidents.list_expired():
            for incident in expired:
                erased = await self._incidents.erase(incident.id)
                if erased is not None and erased.card_message_id is not None:
                    self._reporter.put_changed(erased)


@dataclass(frozen=True, slots=True)
class Step:
    """A part of the maintenance, with a pace of its own."""

    name: str
    work: Callable[[], Awaitable[None]]
    pause_s: float

    async def run(self) -> None:
        """Does the work once. A failure is logged."""
        await _attempt(self.name, self.work())


class Maintenance:
    """Maintains all groups. Several replicas may run it at once: each piece of work is leased to one of them."""

    def __init__(  # noqa: PLR0913 - each step maintains another part
        self,
        groups: GroupStore,
        pending: PendingMessages,
        pipeline: Pipeline,
        enforcement: Enforcement,
        retention: Retention,
        scores: Warmable,
        newcomers: Newcomers,
        *,
        clock: Clock,
        timing: MaintenanceTiming,
    ) -> None:
        self._groups = groups
        self._pending = pending
        self._pipeline = pipeline
        self._enforcement = enforcement
        self._scores = scores
        self._clock = clock
        self._timing = timing
        self.steps = (
            Step("orphans", self._finish_orphans, timing.round_s),
            Step("retention", retention.apply, timing.retention_s),
            Step("pending", self._rejudge_pending, timing.round_s),
            Step("raids", partial(newcomers.end_raids, groups), timing.round_s),
        )

    async def run(self) -> None:
        """Runs until cancelled; each step at its own pace, so that none waits for another."""
        await self._warm()
        async with asyncio.TaskGroup() as steps:
            for step in self.steps:
                steps.create_task(self._repeat(step))

    async def _repeat(self, step: Step) -> None:
        while True:
            try:
                async with asyncio.timeout(self._timing.step_s):
                    await step.run()
            except TimeoutError:
                log.warning("moderation.maintenance_failed", step=step.name, reason="timeout")
            await self._clock.sleep(step.pause_s)

    async def _warm(self) -> None:
        """Prepares the local score if a group is moderated, which saves its first message some seconds."""
        try:
            if await self._groups.are_any_on():
                await self._scores.warm()
        except StorageError as error:
            log.warning("moderation.warm_up_failed", reason=str(error))

    async def _finish_orphans(self) -> None:
        """Finishes incidents whose replica died or was cut off; one that fails is tried again after its lease."""
        for incident in await self._enforcement.incidents.list_orphans():
            settings = await self._groups.get(incident.finding.group_id)
            if settings is not None:
                await _attempt("orphan", self._enforcement.finish(incident, settings))

    async def _rejudge_pending(self) -> None:
        """Judges due messages side by side until none is left; while an outage goes on, only the probes."""
        probes = await self._pending.take_due(self._timing.probes)
        if any(await asyncio.gather(*map(self._rejudge, probes))):
            await asyncio.gather(*(self._work() for _ in range(self._timing.parallel)))

    async def _work(self) -> None:
        """Judges until none is left; a failure ends this worker alone."""
        await _attempt("pending", self._rejudge_until_outage())

    async def _rejudge_until_outage(self) -> None:
        """Judges due messages one after the other: beside others of its kind, a slow one holds up no other."""
        while due := await self._pending.take_due(1):
            if not await self._rejudge(due[0]):
                return

    async def _rejudge(self, pending: PendingMessage) -> bool:
        """Judges one message again; returns whether judging works. A bug that the message triggers is its own."""
        message = pending.message
        try:
            settings = await self._groups.get(message.group_id)
            if settings is None:
                await self._pending.delete(message, pending.version)
                return True
            outcome = await self._pipeline.rejudge(message, pending.version, settings, is_last=pending.is_last)
        except StorageError as error:
            log.warning("moderation.rejudge_failed", group_id=message.group_id, reason=str(error))
            return False
        except Exception:
            log.exception("moderation.rejudge_failed", group_id=message.group_id)
            if pending.is_last:
                await _attempt("give up", self._pending.delete(message, pending.version))
            return True
        log.info("moderation.rejudged", group_id=message.group_id, stage=outcome.stage.value)
        return outcome.stage is not Stage.WAITS


async def _attempt(step: str, work: Awaitable[object]) -> None:
    """Awaits a task. A failure is logged, and ends neither the maintenance nor the tasks after it."""
    try:
        await work
    except StorageError as error:
        log.warning("moderation.maintenance_failed", step=step, reason=str(error))
    except Exception:
        # A bug that one message triggers must not end the maintenance of all groups.
        log.exception("moderation.maintenance_failed", step=step)
