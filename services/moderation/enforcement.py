"""Enforces findings: records the incident, then sanctions, deletes and shows the card. Every step is idempotent.

The sanction precedes the deletion, so that a muted author cannot post more while messages are being deleted.
"""

from dataclasses import replace

import structlog

from services.moderation.domain.incident import Finding, Incident, Resolution
from services.moderation.domain.message import AuthorKind
from services.moderation.domain.policy import WARNINGS_TO_MUTE, Sanction, sanction_for_warnings
from services.moderation.domain.ports import ActionResult
from services.moderation.domain.settings import GroupSettings
from services.moderation.domain.verdict import Category
from services.moderation.records.counts import Counts, DailyCounts
from services.moderation.records.incidents import IncidentStore
from services.moderation.records.members import WarningLedger
from services.moderation.records.shared_cards import SharedCards
from services.moderation.reporting import AdminAlerts, IncidentReporter
from services.moderation.restrictions import Restrictions
from services.moderation.screening.exemptions import Exemption, Exemptions

log = structlog.get_logger()


class Enforcement:
    """Carries out incidents and the decisions of admins about them."""

    def __init__(
        self,
        incidents: IncidentStore,
        shared: SharedCards,
        warnings: WarningLedger,
        counts: DailyCounts,
        restrictions: Restrictions,
        reporter: IncidentReporter,
        alerts: AdminAlerts,
        exemptions: Exemptions,
    ) -> None:
        self._exemptions = exemptions
        self.incidents = incidents
        self._shared = shared
        self._warnings = warnings
        self._counts = counts
        self._restrictions = restrictions
        self._reporter = reporter
        self._alerts = alerts

    async def enforce(self, finding: Finding, settings: GroupSettings) -> Incident:
        """Records and enforces a finding, unless an earlier version of the message was treated at least as severely."""
        for earlier in await self.incidents.list_for_message(finding.group_id, finding.message_ids[0]):
            if earlier.finding.version != finding.version and _covers(earlier, finding):
                return await self.finish(earlier, settings)
        return await self.finish(await self.incidents.record(finding), settings)

    async def finish(self, incident: Incident, settings: GroupSettings) -> Incident:
        """Continues an incident from its recorded progress, unless it is finished or another replica has its lease."""
        incidents = self.incidents
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
        return await self._hand_over(taken)

    async def resolve(
        self, incident: Incident, resolution: Resolution, settings: GroupSettings, by: str
    ) -> Incident | None:
        """Records and carries out an admin's decision; None if it came too late, see `IncidentStore.resolve`.

        The card shows `by`, the admin's name.
        """
        resolved = await self.incidents.resolve(incident.id, resolution, by)
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
        result = await self._restrictions.mute(finding.group_id, finding.author.id, finding.until)
        await self._alerts.report_right(settings, "restrict", result)
        return result

    async def unwarn(self, group_id: int, member_id: int) -> int | None:
        """Takes back a member's latest warning and the mute that it led to.

        Returns the number of warnings that are left, None if there was none.
        """
        before = await self._warnings.count(group_id, member_id)
        left = await self._warnings.take_back_latest(group_id, member_id)
        if left is not None and before >= WARNINGS_TO_MUTE > left:
            await self._restrictions.unmute(group_id, member_id)
        return left

    async def delete_late_parts(self, group_id: int, message_ids: tuple[int, ...]) -> None:
        """Deletes late parts of an album after its other parts."""
        await self._restrictions.sanctions.delete(group_id, message_ids)

    async def _conclude(self, incident: Incident, settings: GroupSettings) -> Incident:
        """Carries out an admin's decision about a card, and has it updated. Idempotent."""
        concluded = await self._conclude_one(incident, settings)
        protected = {incident.finding.author.id: False}
        for member in await self._shared.list_members(incident.id):
            author_id = member.finding.author.id
            # A ban is carried out, or lifted, once an author.
            is_further = author_id in protected
            if not is_further:
                is_undo = incident.undone_by is not None
                protected[author_id] = not is_undo and await self._find_protection(member.finding) is not None
            if not protected[author_id]:
                banned_by = None if is_further else incident.banned_by
                decided = replace(member, banned_by=banned_by, undone_by=incident.undone_by)
                await self._conclude_one(decided, settings, deletes=incident.banned_by is not None)
        return await self._hand_over(concluded)

    async def _conclude_one(self, incident: Incident, settings: GroupSettings, *, deletes: bool = False) -> Incident:
        finding = incident.finding
        if incident.undone_by is not None:
            await self._lift(incident)
            return incident
        if incident.banned_by is not None:
            incident = await self._ban(incident, settings)
        # A confirmation only teaches in dry run, and does not delete an insult.
        is_deletable = not finding.dry_run and finding.category is not Category.TOXIC
        if not incident.is_deleted and (is_deletable or deletes or incident.banned_by is not None):
            deleted = await self._delete(finding, settings)
            return await self.incidents.save_progress(incident.id, deleted=deleted.value) or incident
        return incident

    async def _hand_over(self, incident: Incident) -> Incident:
        """Releases an incident, and has it told to the admins."""
        incident = await self.incidents.save_progress(incident.id, released=True) or incident
        self._reporter.put(incident)
        return incident

    async def _carry_out(self, taken: Incident, settings: GroupSettings) -> Incident:
        """Sanctions and deletes, unless the author turns out to be an admin by now; returns the incident's state."""
        incidents, finding, plan = self.incidents, taken.finding, taken.finding.plan
        is_sanction_due = plan.sanction is not Sanction.NONE and taken.sanctioned is None
        is_deletion_due = plan.delete and taken.deleted is None
        if not is_sanction_due and not is_deletion_due:
            return taken
        protection = await self._find_protection(finding)
        if is_sanction_due and protection is not None:
            taken = await incidents.save_progress(taken.id, sanctioned=protection.value) or taken
        elif is_sanction_due:
            taken = await self._sanction(taken, settings)
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
        result = await self._restrictions.sanctions.delete(finding.group_id, finding.message_ids)
        await self._alerts.report_right(settings, "delete", result)
        return result

    async def _ban(self, incident: Incident, settings: GroupSettings) -> Incident:
        """Bans the author, and notes the restriction that the ban replaces; returns the incident's state."""
        finding = incident.finding
        incident = await self._note_restriction(incident)
        result = await self._restrictions.ban(finding, incident.restriction)
        await self._alerts.report_right(settings, "restrict", result)
        if finding.plan.sanction is Sanction.BAN:
            return await self.incidents.save_progress(incident.id, sanctioned=result.value) or incident
        return incident

    async def _note_restriction(self, incident: Incident) -> Incident:
        """Records the restriction of the author before the bot's own act, once: a repeat would find the bot's own."""
        if incident.restriction is not None or incident.finding.author.kind is AuthorKind.CHANNEL:
            return incident
        found = await self._restrictions.read(incident.finding.group_id, incident.finding.author.id)
        return await self.incidents.save_progress(incident.id, restriction=found) or incident

    async def _lift(self, incident: Incident) -> None:
        """Takes back the bot's acts against the author. Deleted messages cannot be restored."""
        finding, author = incident.finding, incident.finding.author
        if finding.dry_run and incident.banned_by is None:
            return
        if incident.banned_by is not None or (finding.plan.sanction is Sanction.BAN and incident.has_restricted):
            await self._restrictions.unban(finding, incident.restriction)
        if (
            finding.plan.sanction is not Sanction.BAN
            and incident.has_restricted
            and author.kind is not AuthorKind.CHANNEL
        ):
            await self._restrictions.unmute(
                finding.group_id, author.id, before=incident.restriction, until=finding.until
            )
        if finding.plan.sanction is Sanction.WARN and author.kind is not AuthorKind.CHANNEL:
            await self._warnings.take_back(finding.group_id, _warning_source(incident))

    async def _warn(self, incident: Incident, settings: GroupSettings) -> str:
        """Warns the author, and mutes after too many warnings; returns the result to record."""
        finding = incident.finding
        count = await self._warnings.warn(finding.group_id, finding.author.id, _warning_source(incident))
        self._reporter.put_warning(incident, settings, count)
        if sanction_for_warnings(count) is not Sanction.MUTE:
            return f"warned {count}"
        result = await self._mute(incident, settings)
        return f"muted {count}" if result is ActionResult.DONE else result.value

    async def _mute(self, incident: Incident, settings: GroupSettings) -> ActionResult:
        """Mutes the author, unless the bot has just done so for another message."""
        finding = incident.finding
        if await self.incidents.is_muted(incident):
            return ActionResult.STANDS
        incident = await self._note_restriction(incident)
        result = await self._restrictions.mute(
            finding.group_id, finding.author.id, finding.until, before=incident.restriction
        )
        await self._alerts.report_right(settings, "restrict", result)
        return result

    async def _sanction(self, incident: Incident, settings: GroupSettings) -> Incident:
        """Applies the planned sanction, and records the result."""
        match incident.finding.plan.sanction:
            case Sanction.WARN:
                result = await self._warn(incident, settings)
            case Sanction.MUTE:
                result = (await self._mute(incident, settings)).value
            case Sanction.BAN:
                return await self._ban(incident, settings)
            case Sanction.NONE:
                return incident
        return await self.incidents.save_progress(incident.id, sanctioned=result) or incident


def _covers(earlier: Incident, finding: Finding) -> bool:
    """Returns whether an incident of another version was at least as severe."""
    return (
        earlier.undone_by is None
        and earlier.finding.dry_run == finding.dry_run
        and earlier.finding.plan.weight >= finding.plan.weight
    )


def _warning_source(incident: Incident) -> str:
    return f"incident {incident.id}"
