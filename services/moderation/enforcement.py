"""Enforces findings: records the incident, then sanctions, deletes and shows the card. Every step is idempotent.

The sanction precedes the deletion, so that a muted author cannot post more while messages are being deleted.
"""

import structlog

from core.clock import Clock
from services.moderation.alerts import AdminAlerts
from services.moderation.domain.incident import Finding, Incident, Resolution
from services.moderation.domain.message import AuthorKind
from services.moderation.domain.policy import MUTE, WARNINGS_TO_MUTE, Sanction, sanction_for_warnings
from services.moderation.domain.ports import ActionResult, Cards, Sanctions
from services.moderation.domain.settings import GroupSettings
from services.moderation.domain.verdict import Category
from services.moderation.records.counts import Counts, DailyCounts
from services.moderation.records.groups import GroupStore
from services.moderation.records.incidents import IncidentStore
from services.moderation.records.warning_ledger import WarningLedger
from services.moderation.screening.exemptions import Exemption, Exemptions

log = structlog.get_logger()


class Enforcement:
    """Carries out incidents and the decisions of admins about them."""

    def __init__(
        self,
        incidents: IncidentStore,
        warnings: WarningLedger,
        counts: DailyCounts,
        sanctions: Sanctions,
        cards: Cards,
        alerts: AdminAlerts,
        exemptions: Exemptions,
        clock: Clock,
    ) -> None:
        self._exemptions = exemptions
        self._incidents = incidents
        self._warnings = warnings
        self._counts = counts
        self._sanctions = sanctions
        self._cards = cards
        self._alerts = alerts
        self._clock = clock

    async def enforce(self, finding: Finding, settings: GroupSettings) -> Incident:
        """Records and enforces a finding, unless an earlier version of the message was treated at least as severely."""
        for earlier in await self._incidents.list_for_message(finding.group_id, finding.message_ids[0]):
            if earlier.finding.version != finding.version and _covers(earlier, finding):
                return await self.finish(earlier, settings)
        return await self.finish(await self._incidents.record(finding), settings)

    async def finish(self, incident: Incident, settings: GroupSettings) -> Incident:
        """Continues an incident from its recorded progress, unless it is finished or another replica has its lease."""
        incidents = self._incidents
        taken = await incidents.take(incident.id)
        if taken is None:
            return await incidents.get(incident.id) or incident
        if taken.is_resolved:
            return await self._conclude(taken, settings)
        finding, plan = taken.finding, taken.finding.plan
        log.info(
            "moderation.incident", incident=taken.id, group_id=finding.group_id, category=finding.category.value,
            confidence=finding.confidence, source=finding.source.value, deletes=plan.delete,
            sanction=plan.sanction.value, dry_run=finding.dry_run,
        )  # fmt: skip
        if not finding.dry_run:
            taken = await self._carry_out(taken, settings)
        card = await self._find_or_show_card(taken, settings)
        finished = await incidents.save_progress(taken.id, card=card, finished=True) or taken
        counts = Counts(acted=1) if finished.has_acted else Counts(carded=1)
        await self._counts.add(finished.finding.group_id, counts)
        return finished

    async def finish_orphans(self, groups: GroupStore) -> None:
        """Finishes incidents of a replica that died or was cut off."""
        for incident in await self._incidents.list_orphans():
            settings = await groups.get(incident.finding.group_id)
            if settings is not None:
                await self.finish(incident, settings)

    async def resolve(
        self, incident: Incident, resolution: Resolution, settings: GroupSettings, by: str
    ) -> Incident | None:
        """Records and carries out an admin's decision; None if it came too late, see `IncidentStore.resolve`.

        The card shows `by`, the admin's name.
        """
        resolved = await self._incidents.resolve(incident.id, resolution, by)
        if resolved is None:
            return None
        log.info(
            "moderation.incident_resolved",
            incident=incident.id,
            group_id=settings.group_id,
            resolution=resolution.value,
        )
        concluded = await self._conclude(resolved, settings)
        if resolution is Resolution.UNDO:
            await self._counts.add(settings.group_id, Counts(undone=1))
        return concluded

    async def mute(self, finding: Finding, settings: GroupSettings) -> ActionResult:
        """Mutes the author of a finding for a day, counted from the finding."""
        until = finding.until or self._clock.now() + MUTE
        result = await self._sanctions.mute(finding.group_id, finding.author.id, until)
        await self._alerts.report_right(settings, "restrict", result)
        return result

    async def unwarn(self, group_id: int, member_id: int) -> int | None:
        """Takes back a member's latest warning and the mute that it led to.

        Returns the number of warnings that are left, None if there was none.
        """
        before = await self._warnings.count(group_id, member_id)
        left = await self._warnings.take_back_latest(group_id, member_id)
        if left is not None and before >= WARNINGS_TO_MUTE > left:
            await self._sanctions.unmute(group_id, member_id)
        return left

    async def delete_late_parts(self, group_id: int, message_ids: tuple[int, ...]) -> None:
        """Deletes late parts of an album after its other parts."""
        await self._sanctions.delete(group_id, message_ids)

    async def _conclude(self, incident: Incident, settings: GroupSettings) -> Incident:
        """Carries out an admin's decision and updates the card. Idempotent."""
        incidents, finding = self._incidents, incident.finding
        if incident.undone_by is not None:
            await self._lift(incident)
        else:
            if incident.banned_by is not None:
                await self._ban(finding, settings)
            # A confirmation only teaches in dry run, and does not delete an insult.
            is_deletable = not finding.dry_run and finding.category is not Category.TOXIC
            if not incident.is_deleted and (is_deletable or incident.banned_by is not None):
                deleted = await self._delete(finding, settings)
                incident = await incidents.save_progress(incident.id, deleted=deleted.value) or incident
        await self._cards.refresh(incident, settings)
        return await incidents.save_progress(incident.id, finished=True) or incident

    async def _carry_out(self, taken: Incident, settings: GroupSettings) -> Incident:
        """Sanctions and deletes, unless the author turns out to be an admin by now; returns the incident's state."""
        incidents, finding, plan = self._incidents, taken.finding, taken.finding.plan
        is_sanction_due = plan.sanction is not Sanction.NONE and taken.sanctioned is None
        is_deletion_due = plan.delete and taken.deleted is None
        if not is_sanction_due and not is_deletion_due:
            return taken
        protection = await self._find_protection(finding)
        if is_sanction_due:
            sanctioned = protection.value if protection is not None else await self._sanction(taken, settings)
            taken = await incidents.save_progress(taken.id, sanctioned=sanctioned) or taken
        if is_deletion_due:
            deleted = protection or await self._delete(finding, settings)
            taken = await incidents.save_progress(taken.id, deleted=deleted.value) or taken
        return taken

    async def _find_protection(self, finding: Finding) -> ActionResult | None:
        """Returns the result in place of an act against an author who is protected, or may be; None if neither."""
        match await self._exemptions.find_anew(finding.group_id, finding.author):
            case None:
                return None
            case Exemption.ADMINS_UNKNOWN:
                return ActionResult.FAILED
            case exemption:
                log.info("moderation.author_protected", group_id=finding.group_id, exemption=exemption.value)
                return ActionResult.PROTECTED

    async def _delete(self, finding: Finding, settings: GroupSettings) -> ActionResult:
        result = await self._sanctions.delete(finding.group_id, finding.message_ids)
        await self._alerts.report_right(settings, "delete", result)
        return result

    async def _ban(self, finding: Finding, settings: GroupSettings) -> ActionResult:
        result = await self._sanctions.ban(finding.group_id, finding.author.id, finding.author.kind)
        await self._alerts.report_right(settings, "restrict", result)
        return result

    async def _lift(self, incident: Incident) -> None:
        """Lifts the sanctions of an incident. Deleted messages cannot be restored."""
        finding, author = incident.finding, incident.finding.author
        if finding.dry_run and incident.banned_by is None:
            return
        if incident.banned_by is not None or finding.plan.sanction is Sanction.BAN:
            await self._sanctions.unban(finding.group_id, author.id, author.kind)
        if author.kind is AuthorKind.CHANNEL:
            return
        if finding.plan.sanction is Sanction.WARN:
            await self._warnings.take_back(finding.group_id, _warning_source(incident))
        if finding.plan.sanction is Sanction.MUTE or (incident.sanctioned or "").startswith("muted"):
            await self._sanctions.unmute(finding.group_id, author.id)

    async def _warn(self, incident: Incident, settings: GroupSettings) -> str:
        """Warns the author, and mutes after too many warnings; returns the result to record."""
        finding = incident.finding
        count = await self._warnings.warn(finding.group_id, finding.author.id, _warning_source(incident))
        await self._cards.warn(incident, settings, count)
        if sanction_for_warnings(count) is not Sanction.MUTE:
            return f"warned {count}"
        result = await self.mute(finding, settings)
        return f"muted {count}" if result.is_effective else result.value

    async def _sanction(self, incident: Incident, settings: GroupSettings) -> str:
        """Applies the planned sanction; returns the result to record."""
        match incident.finding.plan.sanction:
            case Sanction.WARN:
                return await self._warn(incident, settings)
            case Sanction.MUTE:
                return (await self.mute(incident.finding, settings)).value
            case Sanction.BAN:
                return (await self._ban(incident.finding, settings)).value
            case Sanction.NONE:
                return ActionResult.DONE.value

    async def _find_or_show_card(self, incident: Incident, settings: GroupSettings) -> tuple[int, int] | None:
        """Returns chat and message id of the card; the messages of one author's flood share a card."""
        if incident.card_message_id is not None:
            return None if incident.card_chat_id is None else (incident.card_chat_id, incident.card_message_id)
        if incident.finding.category is Category.FLOOD:
            shared = await self._incidents.find_recent_card(incident)
            if shared is not None:
                return shared
        shown = await self._cards.show(incident, settings)
        return None if shown is None else (shown.chat_id, shown.message_id)


def _covers(earlier: Incident, finding: Finding) -> bool:
    """Returns whether an incident of another version was at least as severe."""
    return (
        earlier.undone_by is None
        and earlier.finding.dry_run == finding.dry_run
        and earlier.finding.plan.weight >= finding.plan.weight
    )


def _warning_source(incident: Incident) -> str:
    return f"incident {incident.id}"
