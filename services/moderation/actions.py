"""Actions of people: admins resolve incidents, mark messages and warn; members report."""

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Protocol

from core.clock import Clock
from services.moderation.domain.incident import (
    Assessment,
    Finding,
    Incident,
    Resolution,
    Source,
    create_finding,
    display_text,
)
from services.moderation.domain.message import PICTURE_PREFIX, AuthorKind, GroupMessage
from services.moderation.domain.policy import CARD, DELETE, WARNINGS_TO_MUTE
from services.moderation.domain.settings import GroupSettings
from services.moderation.domain.verdict import SPAM, Category
from services.moderation.enforcement import Enforcement
from services.moderation.pipeline import Pipeline
from services.moderation.records.incidents import IncidentStore
from services.moderation.records.members import ReportStatus, ReportStore, WarningLedger
from services.moderation.records.message_log import message_version
from services.moderation.screening.exemptions import Exemption, Exemptions, KnownHam
from services.moderation.screening.features import extract_features, normalise_scored
from services.moderation.text.excerpt import cut_long
from services.moderation.text.normalise import Normal, normalise


class ScoreTrainer(Protocol):
    """Trains a group's local score."""

    async def learn(self, group_id: int, normal: Normal, features: frozenset[str], *, is_spam: bool) -> None:
        """Learns an admin's decision about a message."""
        ...


class CampaignTrainer(Protocol):
    """Remembers adverts over groups."""

    async def remember(self, text: str) -> None:
        """Remembers an advert."""
        ...

    async def forget(self, text: str) -> None:
        """Forgets a text that is no advert."""
        ...


class Feedback:
    """Learns admins' decisions: equal text is known from then on, and the group's local score is corrected."""

    def __init__(self, known_ham: KnownHam, trainer: ScoreTrainer, campaigns: CampaignTrainer) -> None:
        self._known_ham = known_ham
        self._trainer = trainer
        self._campaigns = campaigns

    async def learn_incident(self, incident: Incident, *, is_spam: bool) -> None:
        """Learns from an incident, unless its text is erased."""
        finding = incident.finding
        pictures = {name for name in finding.features if name.startswith(PICTURE_PREFIX)}
        for name in pictures:
            await self._known_ham.set(finding.group_id, name, is_ham=not is_spam)
        if incident.is_erased or not finding.text or finding.source is Source.PICTURE:
            # The words of a picture's caption say nothing about it.
            return
        await self._known_ham.set(finding.group_id, finding.text, is_ham=not is_spam)
        await self._learn_campaign(finding, is_spam=is_spam)
        normal = normalise(cut_long(finding.text))
        await self._trainer.learn(finding.group_id, normal, finding.features, is_spam=is_spam)

    async def learn_ham(self, message: GroupMessage) -> None:
        """Learns that a message is no spam."""
        normal = normalise_scored(message)
        for picture in message.pictures:
            await self._known_ham.set(message.group_id, picture.known_as, is_ham=True)
        await self._known_ham.set(message.group_id, display_text(message), is_ham=True)
        await self._campaigns.forget(display_text(message))
        await self._trainer.learn(message.group_id, normal, extract_features(message, normal), is_spam=False)

    async def _learn_campaign(self, finding: Finding, *, is_spam: bool) -> None:
        """Remembers confirmed spam, and `/spam`; a broken rule of one group says nothing to the others."""
        if not is_spam:
            await self._campaigns.forget(finding.text)
        elif finding.source is Source.ADMIN or finding.category in SPAM:
            await self._campaigns.remember(finding.text)


class ResolveResult(StrEnum):
    """The result of a decision about an incident."""

    DONE = "done"
    TOO_LATE = "too_late"
    """The same decision was made before, or the incident was undone."""
    PROTECTED = "protected"
    """The author is an admin by now."""
    UNKNOWN = "unknown"
    """Telegram does not say whether the author is an admin."""


class ReportResult(StrEnum):
    """Result of a member's report."""

    TAKEN = "taken"
    AGAIN = "again"
    TOO_MANY = "too_many"
    EXEMPT = "exempt"
    """The author is not moderated, see `Exemption`."""


@dataclass(frozen=True, slots=True)
class WarnResult:
    """A member's number of warnings, and whether this one led to a mute."""

    count: int
    is_muted: bool


class ModerationActions:
    """Carries out commands and buttons. The caller checks permissions."""

    def __init__(
        self,
        exemptions: Exemptions,
        pipeline: Pipeline,
        enforcement: Enforcement,
        incidents: IncidentStore,
        warnings: WarningLedger,
        reports: ReportStore,
        feedback: Feedback,
        clock: Clock,
    ) -> None:
        self._exemptions = exemptions
        self._pipeline = pipeline
        self._enforcement = enforcement
        self._incidents = incidents
        self._warnings = warnings
        self._reports = reports
        self._feedback = feedback
        self._clock = clock

    async def resolve(
        self, incident: Incident, resolution: Resolution, settings: GroupSettings, by: str
    ) -> tuple[ResolveResult, Incident]:
        """Confirms or undoes an incident, or bans its author; returns the incident's new state.

        The card shows `by`, the admin's name.
        """
        if _acts_against_author(incident, resolution):
            finding = incident.finding
            exemption = await self._exemptions.find_anew(finding.group_id, finding.author)
            if exemption is not None:
                is_unknown = exemption is Exemption.ADMINS_UNKNOWN
                return ResolveResult.UNKNOWN if is_unknown else ResolveResult.PROTECTED, incident
        resolved = await self._enforcement.resolve(incident, resolution, settings, by)
        if resolved is None:
            return ResolveResult.TOO_LATE, await self._incidents.get(incident.id) or incident
        await self._feedback.learn_incident(resolved, is_spam=resolution is not Resolution.UNDO)
        return ResolveResult.DONE, resolved

    async def mark_spam(self, message: GroupMessage, settings: GroupSettings, by: str) -> Incident | Exemption:
        """Deletes a message as spam, also in dry run, and learns it, unless its author is exempt."""
        exemption = await self._exemptions.find_anew(message.group_id, message.author)
        if exemption is not None:
            return exemption
        message = replace(message, message_ids=await self._pipeline.list_parts(message))
        finding = self._create_finding(message, f"{message_version(message)}-a", Source.ADMIN, by)
        incident = await self._enforcement.enforce(finding, settings)
        return (await self.resolve(incident, Resolution.CONFIRM, settings, by))[1]

    async def mark_ham(self, message: GroupMessage, settings: GroupSettings, by: str) -> None:
        """Undoes the latest incident of a message, or learns the message as ham if there is none."""
        for incident in await self._incidents.list_for_message(message.group_id, message.message_id):
            if incident.undone_by is None:
                await self.resolve(incident, Resolution.UNDO, settings, by)
                return
        await self._feedback.learn_ham(message)

    async def warn(self, message: GroupMessage, settings: GroupSettings) -> WarnResult | Exemption | None:
        """Warns the author of a message, once per message, unless exempt; None if the author is a channel."""
        author = message.author
        if author.kind is AuthorKind.CHANNEL:
            return None
        exemption = await self._exemptions.find_anew(message.group_id, author)
        if exemption is not None:
            return exemption
        count = await self._warnings.warn(message.group_id, author.id, f"message {message.message_id}")
        if count < WARNINGS_TO_MUTE:
            return WarnResult(count, is_muted=False)
        finding = self._create_finding(message, message_version(message), Source.ADMIN, "")
        result = await self._enforcement.mute(finding, settings)
        return WarnResult(count, is_muted=result.is_effective)

    async def unwarn(self, message: GroupMessage) -> int | None:
        """Takes back the author's latest warning; returns the number that is left, None if there was none."""
        return await self._enforcement.unwarn(message.group_id, message.author.id)

    async def report(self, message: GroupMessage, reporter_id: int, settings: GroupSettings) -> ReportResult:
        """Records a member's report and judges the message again; enough reports create a card in any case."""
        if await self._exemptions.find(message) is not None:
            return ReportResult.EXEMPT
        report = await self._reports.add(message.group_id, message.message_id, reporter_id)
        if report.status is not ReportStatus.TAKEN:
            return ReportResult(report.status.value)
        await self._pipeline.handle(message, settings, is_reported=True)
        known = await self._incidents.list_for_message(message.group_id, message.message_id)
        if report.count >= settings.report_threshold and not known:
            finding = self._create_finding(
                message, f"{message_version(message)}-r", Source.REPORT, str(report.count)
            )  # fmt: skip
            await self._enforcement.enforce(finding, settings)
        return ReportResult.TAKEN

    def _create_finding(self, message: GroupMessage, version: str, source: Source, detail: str) -> Finding:
        normal = normalise_scored(message)
        assessment = Assessment(Category.UNSURE, 100, source, CARD if source is Source.REPORT else DELETE, detail)
        # Never a dry run: an admin's order is carried out in every mode.
        features = extract_features(message, normal)
        return create_finding(message, version, assessment, features, self._clock.now(), dry_run=False)


def _acts_against_author(incident: Incident, resolution: Resolution) -> bool:
    """Returns whether a decision bans the author or deletes a message that is still there."""
    finding = incident.finding
    if resolution is Resolution.CONFIRM:
        return not (incident.is_deleted or finding.dry_run or finding.category is Category.TOXIC)
    return resolution is Resolution.BAN
