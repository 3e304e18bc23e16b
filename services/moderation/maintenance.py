"""What has to happen although nobody writes: what waits is judged, what is unfinished done, what is old erased."""

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
from services.moderation.records.pending import PendingMessages

log = structlog.get_logger()

ROUND_S = 20.0
SWEEP_S = 600.0
"""How often what is old is looked for."""


class Warm(Protocol):
    """Something that takes a while when it is first used."""

    async def warm(self) -> None:
        """Let it take that while now."""
        ...


class Old(Protocol):
    """Something of which the old is of no use any more."""

    async def forget_old(self) -> None:
        """Forget it."""
        ...


@dataclass(frozen=True, slots=True)
class MaintenanceStores:
    """What is looked after.

    Args:
        groups: how each group wants it.
        waiting: what could not be judged.
        incidents: what may be unfinished, or old.
        old: what else may be old.
        scores: the local score.
    """

    groups: GroupStore
    waiting: PendingMessages
    incidents: IncidentStore
    old: tuple[Old, ...]
    scores: Warm


class Maintenance:
    """Looks after all groups. Several replicas may do so at once: each piece of work is taken by one of them.

    Args:
        cared: what is looked after.
        pipeline: judges.
        enforcement: finishes.
        cards: show what was erased.
        clock: the time.
    """

    def __init__(
        self, cared: MaintenanceStores, pipeline: Pipeline, enforcement: Enforcement, cards: Cards, clock: Clock
    ) -> None:
        self._groups = cared.groups
        self._waiting = cared.waiting
        self._incidents = cared.incidents
        self._old = cared.old
        self._scores = cared.scores
        self._pipeline = pipeline
        self._enforcement = enforcement
        self._cards = cards
        self._clock = clock
        self._sweep_at = 0.0

    async def run(self) -> None:
        """Go round until cancelled."""
        await self._warm()
        while True:
            try:
                await self.go_round()
            except StorageError as error:
                log.warning("moderation.round_failed", reason=str(error))
            except Exception:
                # One message that trips over a bug of ours must not end the care of all groups.
                log.exception("moderation.round_failed")
            await self._clock.sleep(ROUND_S)

    async def _warm(self) -> None:
        """Where a group is moderated, its first message need not wait seconds for the local score."""
        try:
            if await self._groups.are_any_on():
                await self._scores.warm()
        except StorageError as error:
            log.warning("moderation.not_warm", reason=str(error))

    async def go_round(self) -> None:
        """Do everything that is due."""
        await self._rejudge()
        await self._finish()
        if self._clock.time() >= self._sweep_at:
            self._sweep_at = self._clock.time() + SWEEP_S
            await self._sweep()

    async def _rejudge(self) -> None:
        for waiting in await self._waiting.take_due():
            settings = await self._groups.get(waiting.message.group_id)
            if settings is None:
                await self._waiting.done(waiting.message, waiting.version)
                continue
            outcome = await self._pipeline.rejudge(waiting.message, waiting.version, settings)
            log.info("moderation.rejudged", group_id=settings.group_id, stage=outcome.stage.value)
            if outcome.stage is Stage.WAITS:
                # Nobody is back yet: the rest need not find that out one by one.
                return

    async def _finish(self) -> None:
        for incident in await self._incidents.unfinished():
            settings = await self._groups.get(incident.finding.group_id)
            if settings is not None:
                await self._enforcement.finish(incident, settings)

    async def _sweep(self) -> None:
        while old := await self._incidents.to_erase():
            for incident in old:
                settings = await self._groups.get(incident.finding.group_id)
                erased = await self._incidents.erase(incident.id)
                if erased is not None and settings is not None:
                    await self._cards.refresh(erased, settings)
        for each in self._old:
            await each.forget_old()
