"""Moderation pipeline: exemptions, rules, features, local score, judge, policy, enforcement.

The order is the policy: cheap and certain checks first, the model for the rest, and code maps its verdict to an
action. Every step is idempotent, on this replica and on others.
"""

from dataclasses import replace
from datetime import timedelta

import structlog

from core.clock import Clock
from services.moderation.case import Case, MessageJudge, ModerationOutcome, NewcomerCheck, PictureCheck, Retry, Stage
from services.moderation.domain.incident import Assessment, Finding, Incident, Source, create_finding
from services.moderation.domain.message import GroupMessage
from services.moderation.domain.policy import (
    CARD,
    HIGH,
    NOTHING,
    Plan,
    Sanction,
    plan_for,
    plan_for_picture,
    plan_for_rule,
    plan_in_outage,
)
from services.moderation.domain.ports import ActionResult
from services.moderation.domain.settings import GroupSettings
from services.moderation.domain.verdict import Category, NoVerdictReason, Unjudged
from services.moderation.enforcement import Enforcement
from services.moderation.records.counts import Counts
from services.moderation.records.message_log import LogEntry, MemberHistory, MessageLog
from services.moderation.records.pending import PendingMessages
from services.moderation.reporting import AdminAlerts
from services.moderation.screening.exemptions import Exemptions
from services.moderation.screening.rules import Rule, RuleHit
from services.moderation.screening.screener import PROVEN_MESSAGES, Screener, Screening

log = structlog.get_logger()

CLEANUP_SPAN = timedelta(hours=1)
EFFECTIVE = frozenset(result.value for result in ActionResult if result.is_effective)
"""Results of a sanction that holds."""


class Pipeline:
    """Processes the messages of moderated groups."""

    def __init__(  # noqa: PLR0913 - one argument a step
        self,
        exemptions: Exemptions,
        message_log: MessageLog,
        screener: Screener,
        judge: MessageJudge,
        enforcement: Enforcement,
        pending: PendingMessages,
        alerts: AdminAlerts,
        newcomers: NewcomerCheck,
        *,
        pictures: PictureCheck,
        clock: Clock,
    ) -> None:
        self._newcomers = newcomers
        self._pictures = pictures
        self._exemptions = exemptions
        self._message_log = message_log
        self._screener = screener
        self._judge = judge
        self._enforcement = enforcement
        self._pending = pending
        self._alerts = alerts
        self._clock = clock

    async def handle(
        self, message: GroupMessage, settings: GroupSettings, *, is_reported: bool = False
    ) -> ModerationOutcome:
        """Judges a message or a version of an edited one, and enforces the result. Idempotent.

        An album is one message with all known parts; an edit of a part concerns all of it. A reported message is judged
        even if it was processed before.
        """
        if await self._exemptions.find(message) is not None:
            return ModerationOutcome(Stage.EXEMPT)
        entry = LogEntry(message, is_reported)
        screening = None
        if message.edited_at is None and message.album is None and not is_reported:
            # Most messages pass unjudged: then one look and one write are all that the database has to do.
            is_new, member = await self._message_log.look_up(entry)
            if is_new:
                screening = await self._screen(entry, settings, member)
                case = Case(entry, settings, screening)
                is_plain = not screening.hits and case.facts.escalation is None and not case.shows_pictures
                if is_plain and await self._pass_at_once(case, member):
                    return ModerationOutcome(Stage.PASSED)
        version, member = await self._message_log.open(entry)
        if version.is_removed:
            return await self._delete_late_part(entry, settings, is_settled=version.is_settled)
        if version.is_settled:
            return ModerationOutcome(Stage.REPEATED)
        if screening is None:
            screening = await self._screen(entry, settings, member, adds_link=version.adds_link)
        return await self._decide(Case(entry, settings, screening))

    async def rejudge(
        self, message: GroupMessage, version: str, settings: GroupSettings, *, is_last: bool = False
    ) -> ModerationOutcome:
        """Judges a pending message again, or for the last time: then it passes, or an admin decides."""
        outcome = ModerationOutcome(Stage.EXEMPT)
        if settings.is_on and await self._exemptions.find(message) is None:
            entry = LogEntry(message, is_reported=version.endswith("-r"))
            member = await self._message_log.member(message.group_id, message.author.id)
            screening = await self._screen(entry, settings, member, is_repeated=True)
            case = Case(entry, settings, screening)
            is_ham = await self._screener.is_known_ham(message)
            retry = Retry.LAST if is_last else Retry.AGAIN
            outcome = await self._pass(case, Counts()) if is_ham else await self._ask_judge(case, retry=retry)
        if outcome.stage is not Stage.WAITS:
            await self._pending.delete(message, version)
            if outcome.stage is not Stage.EXEMPT:
                await self._alerts.reset_outage(message.group_id)
        return outcome

    async def _screen(
        self,
        entry: LogEntry,
        settings: GroupSettings,
        member: MemberHistory,
        *,
        adds_link: bool = False,
        is_repeated: bool = False,
    ) -> Screening:
        return await self._screener.screen(
            entry.message,
            settings.rules,
            is_newcomer=await self._newcomers.is_newcomer(entry.message, member),
            is_reported=entry.is_reported,
            adds_link=adds_link,
            is_repeated=is_repeated,
            is_first_contact=not member.is_known,
            is_unproven=member.meaningful < PROVEN_MESSAGES,
        )

    async def _pass_at_once(self, case: Case, member: MemberHistory) -> bool:
        """Lets a new message pass; the count of an established member's messages does not matter any more."""
        is_counted = member.is_newcomer(self._clock.now())
        is_meaningful = case.facts.is_meaningful if is_counted else None
        return await self._message_log.pass_at_once(case.entry, Counts(seen=1), is_meaningful=is_meaningful)

    async def list_parts(self, message: GroupMessage) -> tuple[int, ...]:
        """Returns the ids of a message, and of all known parts of its album: sorted, so that replicas agree."""
        if message.album is None:
            return message.message_ids
        parts = await self._message_log.album_parts(message.group_id, message.album)
        return tuple(sorted({*message.message_ids, *parts}))

    async def _delete_late_part(
        self, entry: LogEntry, settings: GroupSettings, *, is_settled: bool
    ) -> ModerationOutcome:
        """Handles another part or version of a deleted message; a late part of an album is deleted, too."""
        if not is_settled:
            if entry.album is not None and not settings.is_dry:
                await self._enforcement.delete_late_parts(entry.message.group_id, entry.message.message_ids)
            await self._message_log.close(entry, Counts(seen=1), is_removed=True, is_meaningful=None)
        return ModerationOutcome(Stage.REPEATED, removed=True)

    async def _decide(self, case: Case) -> ModerationOutcome:
        hit = next((hit for hit in case.screening.hits if hit.is_decisive), None)
        if hit is not None:
            return await self._enforce(case, self._assess_hit(hit), Counts(seen=1))
        reason = case.facts.escalation
        if reason is None or await self._screener.is_known_ham(case.message):
            return await self._look_at_pictures(case, Counts(seen=1))
        log.debug("moderation.escalated", group_id=case.message.group_id, reason=reason.value)
        return await self._ask_judge(case)

    async def _ask_judge(self, case: Case, *, retry: Retry = Retry.FIRST) -> ModerationOutcome:
        judgement = await self._judge.judge(case.message, case.screening.own, case.settings)
        if isinstance(judgement, Unjudged):
            return await self._handle_missing_verdict(case, judgement, retry)
        counts = Counts(
            seen=int(retry is Retry.FIRST), judged=1, asked=int(not judgement.is_cached),
            input_tokens=judgement.input_tokens, output_tokens=judgement.output_tokens,
        )  # fmt: skip
        plan = plan_for(judgement, case.subject)
        if plan is NOTHING:
            return await self._look_at_pictures(case, counts)
        verdict = judgement.verdict
        assessment = Assessment(
            verdict.category, verdict.confidence, Source.JUDGE, plan, judgement.evidence.value
        )  # fmt: skip
        provider = f"{judgement.provider} · {judgement.model}"
        if plan.delete and verdict.is_spam:
            await self._screener.remember_campaign(case.message)
        return await self._enforce(case, assessment, counts, evidence=verdict.evidence, provider=provider)

    async def _look_at_pictures(self, case: Case, counts: Counts) -> ModerationOutcome:
        """Has a newcomer's pictures judged, where the group wants it, before a message passes; deletes at most."""
        message, settings = case.message, case.settings
        limit = await self._newcomers.picture_budget(message.group_id) if case.shows_pictures else 0
        if not limit or await self._screener.is_known_picture(message):
            return await self._pass(case, counts)
        judgement = await self._pictures.judge(message, settings, limit)
        if isinstance(judgement, Unjudged):
            if judgement.reason is not NoVerdictReason.REFUSED:
                return await self._pass(case, counts)
            unsure = self._assess_unsure(case, CARD, Source.REFUSED, judgement.detail)
            return await self._enforce(case, unsure, counts)
        counts = replace(
            counts, judged=1, asked=counts.asked + int(not judgement.is_cached),
            input_tokens=counts.input_tokens + judgement.input_tokens,
            output_tokens=counts.output_tokens + judgement.output_tokens,
        )  # fmt: skip
        verdict, plan = judgement.verdict, plan_for_picture(judgement.verdict, settings.preset)
        if plan is NOTHING:
            return await self._pass(case, counts)
        provider = f"{judgement.provider} · {judgement.model}"
        assessment = Assessment(verdict.category, verdict.confidence, Source.PICTURE, plan)
        return await self._enforce(case, assessment, counts, evidence=verdict.evidence, provider=provider)

    async def _handle_missing_verdict(self, case: Case, unjudged: Unjudged, retry: Retry) -> ModerationOutcome:
        """Never sanctions without a verdict; a case that an admin must see becomes a card."""
        facts, group_id = case.facts, case.message.group_id
        is_first = retry is Retry.FIRST
        counts = Counts(seen=int(is_first), judged=1, unjudged=int(is_first))
        log.info("moderation.no_verdict", group_id=group_id, reason=unjudged.reason.value)
        match unjudged.reason:
            case NoVerdictReason.OUTAGE if retry is not Retry.LAST:
                return await self._handle_outage(case, counts, is_first=is_first)
            case NoVerdictReason.REFUSED | NoVerdictReason.MALFORMED:
                source = Source.REFUSED if unjudged.reason is NoVerdictReason.REFUSED else Source.MALFORMED
                return await self._enforce(case, self._assess_unsure(case, CARD, source, unjudged.detail), counts)
            case NoVerdictReason.BUDGET:
                await self._alerts.report_spent_budget(case.settings)
            case _:
                pass
        if facts.is_newcomer and facts.score >= HIGH:
            suspicious = self._assess_unsure(case, CARD, Source.OUTAGE, unjudged.reason.value)
            return await self._enforce(case, suspicious, counts)
        return await self._pass(case, counts)

    async def _handle_outage(self, case: Case, counts: Counts, *, is_first: bool) -> ModerationOutcome:
        facts = case.facts
        if is_first:
            await self._alerts.report_outage(case.settings)
            plan = plan_in_outage(is_newcomer=facts.is_newcomer, is_risky=facts.is_risky_in_outage, score=facts.score)
            if plan is not NOTHING:
                clear = self._assess_unsure(case, plan, Source.OUTAGE, NoVerdictReason.OUTAGE.value)
                return await self._enforce(case, clear, counts)
            await self._pending.put(case.message, case.entry.version)
            await self._message_log.close(case.entry, counts, is_removed=False, is_meaningful=None)
        return ModerationOutcome(Stage.WAITS)

    async def _pass(self, case: Case, counts: Counts) -> ModerationOutcome:
        # An edit is no further message, and a report says nothing about the reported author.
        is_new = case.message.edited_at is None and not case.entry.is_reported
        is_meaningful = case.facts.is_meaningful if is_new else None
        await self._message_log.close(case.entry, counts, is_removed=False, is_meaningful=is_meaningful)
        return ModerationOutcome(Stage.PASSED)

    async def _enforce(
        self,
        case: Case,
        assessment: Assessment,
        counts: Counts,
        *,
        evidence: str | None = None,
        provider: str | None = None,
    ) -> ModerationOutcome:
        finding = self._to_finding(case, assessment, evidence, provider)
        finding = replace(finding, message_ids=await self.list_parts(case.message))
        incident = await self._enforcement.enforce(finding, case.settings)
        await self._clean_up(case, incident)
        await self._message_log.close(case.entry, counts, is_removed=incident.is_deleted, is_meaningful=None)
        return ModerationOutcome(Stage.FOUND, incident.is_deleted, incident.id)

    async def _clean_up(self, case: Case, incident: Incident) -> None:
        """Deletes the last hour of a newcomer that this incident muted or banned, where the group wants it."""
        finding = incident.finding
        is_sanctioned = finding.plan.sanction in {Sanction.MUTE, Sanction.BAN} and incident.sanctioned in EFFECTIVE
        if finding.dry_run or not is_sanctioned or not case.facts.is_newcomer:
            return
        if await self._newcomers.wants_cleanup(finding.group_id):
            since = self._clock.now() - CLEANUP_SPAN
            recent = await self._message_log.list_recent(finding.group_id, finding.author.id, since)
            rest = tuple(number for number in recent if number not in finding.message_ids)
            if rest:
                log.info("moderation.cleaned_up", group_id=finding.group_id, messages=len(rest))
                await self._enforcement.delete_late_parts(finding.group_id, rest)

    def _assess_hit(self, hit: RuleHit) -> Assessment:
        category = Category.FLOOD if hit.rule in {Rule.FLOOD, Rule.DUPLICATE} else Category.OFF_TOPIC
        return Assessment(category, 100, Source.RULE, plan_for_rule(), f"{hit.rule}: {hit.detail}")

    def _assess_unsure(self, case: Case, plan: Plan, source: Source, detail: str) -> Assessment:
        return Assessment(Category.UNSURE, case.facts.score, source, plan, detail)

    def _to_finding(self, case: Case, assessment: Assessment, evidence: str | None, provider: str | None) -> Finding:
        now, dry_run, features = self._clock.now(), case.settings.is_dry, case.facts.features
        if assessment.source is Source.PICTURE:
            features |= {picture.known_as for picture in case.message.pictures}
        finding = create_finding(case.message, case.entry.version, assessment, features, now, dry_run=dry_run)
        return replace(finding, evidence=evidence, provider=provider)
