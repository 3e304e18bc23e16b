"""The services of the Telegram daemon that the console uses while the daemon runs in the same process."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import structlog

from bot.operators.dead_letters import DeadLetterCommands
from services.admin.audit import Audit, AuditDetail
from services.moderation.actions import ModerationActions, ResolveResult
from services.moderation.domain.incident import Incident, Resolution
from services.moderation.domain.policy import Sanction
from services.moderation.domain.ports import AdminDirectory, Standing
from services.moderation.records.counts import FigureReader, ModerationFigures
from services.moderation.records.groups import GroupStore
from services.moderation.records.incidents import IncidentStore

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class QueuedIncident:
    """An incident of the queue, as one operator may see it.

    Args:
        is_admin: whether the operator is an admin of its group now: only they see its text and decide.
        open: the decisions that can still be made.
    """

    incident: Incident
    is_admin: bool
    open: tuple[Resolution, ...]


class NotAnAdmin(Exception):
    """The operator is no admin of the incident's group, or Telegram did not confirm it."""


class ModerationQueue:
    """The incidents of all groups for operators. Each act is recorded in the audit log.

    Args:
        titles_s: longest wait for the titles of groups; a page that is shown later has them from the cache.
    """

    def __init__(
        self,
        incidents: IncidentStore,
        actions: ModerationActions,
        groups: GroupStore,
        admins: AdminDirectory,
        audit: Audit,
        figures: FigureReader,
        titles_s: float = 1.0,
    ) -> None:
        self._incidents = incidents
        self._actions = actions
        self._groups = groups
        self._admins = admins
        self._audit = audit
        self._figures = figures
        self._titles_s = titles_s

    async def read_figures(self) -> ModerationFigures:
        """Returns the counts of all groups, which every operator may see.

        Raises:
            StorageError: the database fails.
        """
        return await self._figures.read()

    async def count(self, limit: int) -> int:
        """Returns the number of incidents that wait, at most `limit`.

        Raises:
            StorageError: the database fails.
        """
        return await self._incidents.count_undecided(limit)

    async def list(self, actor_id: int, *, is_decided: bool = False) -> Sequence[QueuedIncident]:
        """Returns the newest incidents that wait, or that were decided.

        Whether the operator is an admin is asked for anew, once for each group.

        Raises:
            StorageError: the database fails.
        """
        found = await (self._incidents.list_decided() if is_decided else self._incidents.list_undecided())
        groups = list({incident.finding.group_id for incident in found})
        allowed = await asyncio.gather(*(self._is_admin(group, actor_id) for group in groups))
        rights = dict(zip(groups, allowed, strict=True))
        return [QueuedIncident(each, rights[each.finding.group_id], _open_decisions(each)) for each in found]

    async def find_titles(self, groups: Iterable[int]) -> Mapping[int, str]:
        """Returns the titles of groups by id, without those that Telegram does not tell in time."""
        lookups = {group: asyncio.ensure_future(self._admins.get_admins(group)) for group in set(groups)}
        if lookups:
            await asyncio.wait(lookups.values(), timeout=self._titles_s)
        for lookup in lookups.values():
            lookup.cancel()
        found = {group: lookup.result() for group, lookup in lookups.items() if lookup.done()}
        return {group: each.title for group, each in found.items() if each is not None and each.title}

    async def resolve(self, incident_id: int, resolution: Resolution, actor_id: int) -> ResolveResult | None:
        """Carries out a decision as a button of the card does; None if the incident or its group is gone.

        Raises:
            NotAnAdmin: the operator may not decide in this group.
            StorageError: the database fails.
        """
        incident = await self._incidents.get(incident_id)
        settings = await self._groups.get(incident.finding.group_id) if incident is not None else None
        if incident is None or settings is None:
            return None
        if not await self._is_admin(settings.group_id, actor_id):
            raise NotAnAdmin
        result, _ = await self._actions.resolve(incident, resolution, settings, f"{actor_id}")
        if result is ResolveResult.DONE:
            action, target = f"moderation.{resolution.value}", str(settings.group_id)
            log.info("admin.acted", action=action, target=target, actor_id=actor_id)
            await self._audit.try_record(actor_id, action, target, AuditDetail("incident", {"id": incident.id}))
        return result

    async def _is_admin(self, group_id: int, actor_id: int) -> bool:
        # Operators who signed in by WEB_TOKEN have no Telegram id.
        return actor_id > 0 and await self._admins.fetch_standing(group_id, actor_id) is Standing.ADMIN


class WorkQueue(Protocol):
    """Messages and presses of this process."""

    @property
    def running(self) -> int:
        """Number of those being handled."""
        ...

    @property
    def waiting(self) -> int:
        """Number of those claimed by this process and not begun."""
        ...


FileSender = Callable[[int, str, bytes], Awaitable[bool]]
"""Sends a file of this name to a person, once; returns whether it arrived."""


@dataclass(slots=True)
class DaemonServices:
    """Services that exist while the daemon works; None before its start, and in processes without Telegram."""

    dead_letters: DeadLetterCommands | None = None
    moderation: ModerationQueue | None = None
    work: WorkQueue | None = None
    send_file: FileSender | None = None


def _open_decisions(incident: Incident) -> tuple[Resolution, ...]:
    if incident.undone_by is not None or incident.is_erased:
        return ()
    decisions = [Resolution.UNDO]
    if incident.confirmed_by is None:
        decisions.insert(0, Resolution.CONFIRM)
    if incident.banned_by is None and incident.finding.plan.sanction is not Sanction.BAN:
        decisions.append(Resolution.BAN)
    return tuple(decisions)
