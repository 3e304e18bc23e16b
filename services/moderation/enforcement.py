"""Doing it: recorded first, then the sanction, then the deletion, then the card; repeating it changes nothing.

The sanction comes before the deletion, so that whoever is muted cannot write on while messages are being deleted.
"""

from dataclasses import dataclass

import structlog

from core.clock import Clock
from services.moderation.domain.incident import Finding, Incident
from services.moderation.domain.message import AuthorKind
from services.moderation.domain.policy import MUTE, Sanction, plan_for_warnings
from services.moderation.domain.ports import Cards, Done, Sanctions
from services.moderation.domain.settings import GroupSettings
from services.moderation.domain.verdict import Category
from services.moderation.judging.budget import Reminders
from services.moderation.records.counts import Counts, Statistics
from services.moderation.records.incidents import IncidentStore
from services.moderation.records.warning_ledger import WarningLedger

log = structlog.get_logger()

RIGHT_PAUSE_S = 24 * 3600
RIGHT_PAUSE_LONGEST_S = 7 * 24 * 3600
"""A right that is missing is told of, and again a day later, two days after that, and at last once a week."""


@dataclass(frozen=True, slots=True)
class Records:
    """Where what was done is written down."""

    incidents: IncidentStore
    warnings: WarningLedger
    statistics: Statistics


class Enforcement:
    """Carries incidents out.

    Args:
        records: where it is written down.
        sanctions: what can be done in a group.
        cards: what its people are shown.
        reminders: what was told already.
        clock: the time.
    """

    def __init__(
        self, records: Records, sanctions: Sanctions, cards: Cards, reminders: Reminders, clock: Clock
    ) -> None:
        self._records = records
        self._sanctions = sanctions
        self._cards = cards
        self._reminders = reminders
        self._clock = clock

    async def enforce(self, finding: Finding, settings: GroupSettings) -> Incident:
        """Do what a finding calls for, unless as much was done about that message before."""
        for earlier in await self._records.incidents.about(finding.group_id, finding.message_ids[0]):
            if earlier.finding.version != finding.version and _covers(earlier, finding):
                return await self.finish(earlier, settings)
        return await self.finish(await self._records.incidents.record(finding), settings)

    async def finish(self, incident: Incident, settings: GroupSettings) -> Incident:
        """Carry an incident out from where its record says, unless it is done or somebody is about it."""
        incidents = self._records.incidents
        taken = await incidents.take(incident.id)
        if taken is None:
            return await incidents.get(incident.id) or incident
        if taken.is_resolved:
            return await self.conclude(taken, settings)
        plan = taken.finding.plan
        log.info(
            "moderation.incident", incident=taken.id, group_id=taken.finding.group_id,
            category=taken.finding.category.value, confidence=taken.finding.confidence,
            source=taken.finding.source.value, deletes=plan.delete, sanction=plan.sanction.value,
            dry_run=taken.finding.dry_run,
        )  # fmt: skip
        if not taken.finding.dry_run:
            if plan.sanction is not Sanction.NONE and taken.sanctioned is None:
                taken = await incidents.note(taken.id, sanctioned=await self._sanction(taken, settings)) or taken
            if plan.delete and taken.deleted is None:
                taken = await incidents.note(taken.id, deleted=await self.delete(taken.finding, settings)) or taken
        place = (taken.card_chat_id, taken.card_message_id)
        if place[1] is None:
            place = await self._card(taken, settings)
        card = (place[0], place[1]) if place[0] is not None and place[1] is not None else None
        finished = await incidents.note(taken.id, card=card, finished=True) or taken
        figures = Counts(acted=1) if finished.has_acted else Counts(carded=1)
        await self._records.statistics.count(finished.finding.group_id, figures)
        return finished

    async def conclude(self, incident: Incident, settings: GroupSettings) -> Incident:
        """Do what follows from what a person said of an incident, and show it; repeating it changes nothing."""
        incidents, finding = self._records.incidents, incident.finding
        if incident.undone_by is not None:
            await self.lift(incident)
        else:
            if incident.banned_by is not None:
                await self.ban(finding, settings)
            # What is confirmed in dry run is only learned, and an insult stays where it is.
            is_wrong = not finding.dry_run and finding.category is not Category.TOXIC
            if not incident.is_deleted and (is_wrong or incident.banned_by is not None):
                deleted = await self.delete(finding, settings)
                incident = await incidents.note(incident.id, deleted=deleted.value) or incident
        await self._cards.refresh(incident, settings)
        return await incidents.note(incident.id, finished=True) or incident

    async def delete(self, finding: Finding, settings: GroupSettings) -> Done:
        """Take the messages of a finding away."""
        done = await self._sanctions.delete(finding.group_id, finding.message_ids)
        await self._told(settings, "delete", done)
        return done

    async def ban(self, finding: Finding, settings: GroupSettings) -> Done:
        """Throw the author of a finding out."""
        done = await self._sanctions.ban(finding.group_id, finding.author.id, finding.author.kind)
        await self._told(settings, "restrict", done)
        return done

    async def mute(self, finding: Finding, settings: GroupSettings) -> Done:
        """Silence the author of a finding for a day from when it was found."""
        until = finding.until or self._clock.now() + MUTE
        done = await self._sanctions.mute(finding.group_id, finding.author.id, until)
        await self._told(settings, "restrict", done)
        return done

    async def lift(self, incident: Incident) -> None:
        """Take back what an incident's author got for it; what was deleted cannot be brought back."""
        finding = incident.finding
        who = finding.author
        if finding.dry_run and incident.banned_by is None:
            return
        if incident.banned_by is not None or finding.plan.sanction is Sanction.BAN:
            await self._sanctions.unban(finding.group_id, who.id, who.kind)
        if who.kind is AuthorKind.CHANNEL:
            return
        if finding.plan.sanction is Sanction.WARN:
            await self._records.warnings.take_back(finding.group_id, warned_for(incident))
        if finding.plan.sanction is Sanction.MUTE or (incident.sanctioned or "").startswith("muted"):
            await self._sanctions.unmute(finding.group_id, who.id)

    async def warn(self, incident: Incident, settings: GroupSettings) -> str:
        """Warn the author of an incident, and mute them where that was once too often; what the record says of it."""
        finding = incident.finding
        count = await self._records.warnings.warn(finding.group_id, finding.author.id, warned_for(incident))
        await self._cards.warn(incident, settings, count)
        if plan_for_warnings(count) is not Sanction.MUTE:
            return f"warned {count}"
        done = await self.mute(finding, settings)
        return f"muted {count}" if done.is_effective else done.value

    async def _sanction(self, incident: Incident, settings: GroupSettings) -> str:
        match incident.finding.plan.sanction:
            case Sanction.WARN:
                return await self.warn(incident, settings)
            case Sanction.MUTE:
                return (await self.mute(incident.finding, settings)).value
            case Sanction.BAN:
                return (await self.ban(incident.finding, settings)).value
            case Sanction.NONE:
                return Done.DONE.value

    async def _card(self, incident: Incident, settings: GroupSettings) -> tuple[int | None, int | None]:
        """Show the card; a flood of one member has one for all its messages."""
        if incident.finding.category is Category.FLOOD:
            shown = await self._records.incidents.recent_card(incident)
            if shown is not None:
                return shown
        place = await self._cards.show(incident, settings)
        return (None, None) if place is None else (place.chat_id, place.message_id)

    async def _told(self, settings: GroupSettings, right: str, done: Done) -> None:
        """Tell a group's admins of a right that is missing, once in a while; forget it where it is there."""
        if done is Done.NO_RIGHT:
            log.warning("moderation.right_missing", group_id=settings.group_id, right=right)
            if await self._reminders.due(settings.group_id, right, RIGHT_PAUSE_S, RIGHT_PAUSE_LONGEST_S):
                key = "moderation-no-right-delete" if right == "delete" else "moderation-no-right-restrict"
                await self._cards.alert(settings, key)
        elif done is Done.DONE:
            await self._reminders.forget(settings.group_id, right)


def _covers(earlier: Incident, finding: Finding) -> bool:
    """Whether what was done about another version of the message is as much as this one calls for."""
    return (
        earlier.undone_by is None
        and earlier.finding.dry_run == finding.dry_run
        and earlier.finding.plan.weight >= finding.plan.weight
    )


def warned_for(incident: Incident) -> str:
    """What the warning of an incident is known by."""
    return f"incident {incident.id}"
