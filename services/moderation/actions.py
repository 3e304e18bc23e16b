"""What people do: admins resolve incidents and mark messages, members report them."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

import structlog

from core.clock import Clock
from services.moderation.domain.incident import (
    Charge,
    Finding,
    Incident,
    Resolution,
    Source,
    create_finding,
    shown_text,
)
from services.moderation.domain.message import AuthorKind, GroupMessage
from services.moderation.domain.policy import CARD, DELETE, WARNINGS_TO_MUTE
from services.moderation.domain.ports import Cards, Sanctions, StaffList
from services.moderation.domain.settings import GroupSettings
from services.moderation.domain.verdict import Category
from services.moderation.enforcement import Enforcement, Records
from services.moderation.pipeline import Pipeline
from services.moderation.records.counts import Counts
from services.moderation.records.reports import Reported, ReportStore
from services.moderation.records.versions import message_version
from services.moderation.screening.exemptions import exempt
from services.moderation.screening.features import features
from services.moderation.screening.known_ham import KnownHam
from services.moderation.text.normalise import Normal, normalise

log = structlog.get_logger()


class ScoreTrainer(Protocol):
    """Learns what spam is in a group."""

    async def learn(self, group_id: int, normal: Normal, features: frozenset[str], *, is_spam: bool) -> None:
        """Remember what an admin said of a message."""
        ...


class Resolved(StrEnum):
    """What came of pressing a button."""

    DONE = "done"
    TOO_LATE = "too_late"
    """It was done before, or undone."""


class ReportResult(StrEnum):
    """What came of a report."""

    TAKEN = "taken"
    AGAIN = "again"
    TOO_MANY = "too_many"
    EXEMPT = "exempt"
    """Admins and the group's own channel are not judged."""


@dataclass(frozen=True, slots=True)
class Warned:
    """How many warnings somebody has now, and whether that was once too often."""

    count: int
    is_muted: bool


@dataclass(frozen=True, slots=True)
class ActionServices:
    """What the desk works with."""

    records: Records
    enforcement: Enforcement
    pipeline: Pipeline
    reports: ReportStore
    precedents: KnownHam
    teacher: ScoreTrainer
    staff: StaffList
    sanctions: Sanctions
    cards: Cards
    clock: Clock


class ModerationActions:
    """Carries out what people ask for; who may ask is for the caller to know.

    Args:
        tools: what it works with.
        self_id: the bot itself.
    """

    def __init__(self, tools: ActionServices, self_id: int) -> None:
        self._tools = tools
        self._self_id = self_id

    async def resolve(
        self, incident: Incident, resolution: Resolution, settings: GroupSettings, by: str
    ) -> tuple[Resolved, Incident]:
        """An admin confirms an incident, undoes it, or bans its author. Each is effective once.

        Args:
            incident: which.
            resolution: what.
            settings: of its group.
            by: the admin's name, for the card.
        """
        tools = self._tools
        resolved = await tools.records.incidents.resolve(incident.id, resolution, by)
        if resolved is None:
            return Resolved.TOO_LATE, await tools.records.incidents.get(incident.id) or incident
        log.info("moderation.resolved", incident=incident.id, group_id=settings.group_id, resolution=resolution.value)
        concluded = await tools.enforcement.conclude(resolved, settings)
        if resolution is Resolution.UNDO:
            await tools.records.statistics.count(settings.group_id, Counts(undone=1))
        await self._learn(concluded, is_spam=resolution is not Resolution.UNDO)
        return Resolved.DONE, concluded

    async def spam(self, message: GroupMessage, settings: GroupSettings, by: str) -> Incident | None:
        """An admin says that a message is spam: it is deleted, also in dry run; None where its author is exempt."""
        tools = self._tools
        if await self._is_exempt(message):
            return None
        finding = self._finding(message, f"{message_version(message)}-a", Source.ADMIN, by)
        incident = await tools.enforcement.enforce(finding, settings)
        return (await self.resolve(incident, Resolution.CONFIRM, settings, by))[1]

    async def ham(self, message: GroupMessage, settings: GroupSettings, by: str) -> None:
        """An admin says that a message is none; what was done about it is undone."""
        for incident in await self._tools.records.incidents.about(message.group_id, message.message_id):
            if incident.undone_by is None:
                await self.resolve(incident, Resolution.UNDO, settings, by)
                return
        normal = normalise(message.text or message.forwarded)
        await self._tools.precedents.set(message.group_id, shown_text(message), is_ham=True)
        await self._tools.teacher.learn(message.group_id, normal, features(message, normal), is_spam=False)

    async def warn(self, message: GroupMessage, settings: GroupSettings) -> Warned | None:
        """An admin warns the author of a message, once for each; None where the author is exempt, or a channel."""
        who = message.author
        if who.kind is AuthorKind.CHANNEL or await self._is_exempt(message):
            return None
        source = f"message {message.message_id}"
        count = await self._tools.records.warnings.warn(message.group_id, who.id, source)
        if count < WARNINGS_TO_MUTE:
            return Warned(count, is_muted=False)
        finding = self._finding(message, message_version(message), Source.ADMIN, "")
        done = await self._tools.enforcement.mute(finding, settings)
        return Warned(count, is_muted=done.is_effective)

    async def unwarn(self, message: GroupMessage) -> int | None:
        """An admin takes back the author's latest warning; how many are left, None where there was none."""
        who, warnings = message.author, self._tools.records.warnings
        before = await warnings.count(message.group_id, who.id)
        left = await warnings.take_back_latest(message.group_id, who.id)
        if left is not None and before >= WARNINGS_TO_MUTE > left:
            await self._tools.sanctions.unmute(message.group_id, who.id)
        return left

    async def report(self, message: GroupMessage, reporter_id: int, settings: GroupSettings) -> ReportResult:
        """A member reports a message: it is judged again, and from the threshold on admins get a card in any case."""
        tools = self._tools
        if await self._is_exempt(message):
            return ReportResult.EXEMPT
        report = await tools.reports.report(message.group_id, message.message_id, reporter_id)
        if report.result is not Reported.TAKEN:
            return ReportResult(report.result.value)
        await tools.pipeline.handle(message, settings, reported=True)
        known = await tools.records.incidents.about(message.group_id, message.message_id)
        if report.count >= settings.report_threshold and not known:
            finding = self._finding(message, f"{message_version(message)}-r", Source.REPORT, str(report.count))
            await tools.enforcement.enforce(finding, settings)
        return ReportResult.TAKEN

    async def _learn(self, incident: Incident, *, is_spam: bool) -> None:
        """What an admin decided is known from now on; a text that is erased teaches nothing."""
        finding = incident.finding
        if incident.is_erased or not finding.text:
            return
        await self._tools.precedents.set(finding.group_id, finding.text, is_ham=not is_spam)
        normal = normalise(finding.text)
        await self._tools.teacher.learn(finding.group_id, normal, finding.features, is_spam=is_spam)

    async def _is_exempt(self, message: GroupMessage) -> bool:
        return exempt(message, await self._tools.staff.staff(message.group_id), self._self_id) is not None

    def _finding(self, message: GroupMessage, version: str, source: Source, detail: str) -> Finding:
        normal = normalise(message.text or message.forwarded)
        charge = Charge(Category.UNSURE, 100, source, CARD if source is Source.REPORT else DELETE, detail)
        # What a person orders is done, whatever the bot may do by itself.
        found = features(message, normal)
        return create_finding(message, version, charge, found, self._tools.clock.now(), dry_run=False)
