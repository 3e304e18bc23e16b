"""From a message to what is done about it: gate, normalise, rules, local score, judge, policy, enforcement.

The order is the policy. What is cheap and sure comes first, a model is asked about what is left, and code decides what
follows from its verdict. A step that can be repeated, on this replica or another, changes nothing the second time.
"""

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Protocol

import structlog

from core.clock import Clock
from services.moderation.domain.incident import Charge, Finding, Source, create_finding, shown_text
from services.moderation.domain.message import GroupMessage
from services.moderation.domain.policy import (
    CARD,
    NOTHING,
    Plan,
    Subject,
    plan_for,
    plan_for_rule,
    plan_in_outage,
)
from services.moderation.domain.ports import Cards, Sanctions, StaffList
from services.moderation.domain.rule_set import RuleSet
from services.moderation.domain.settings import GroupSettings
from services.moderation.domain.thresholds import HIGH
from services.moderation.domain.verdict import Category, Judged, Judgement, Unjudged, Why
from services.moderation.enforcement import Enforcement
from services.moderation.judging.budget import Reminders
from services.moderation.judging.consent import RemoteJudgingConsent
from services.moderation.records.counts import Counts
from services.moderation.records.members import is_meaningful
from services.moderation.records.message_log import Entry, MessageLog
from services.moderation.records.pending import PendingMessages
from services.moderation.screening.escalation import Facts, reason_to_judge
from services.moderation.screening.exemptions import exempt
from services.moderation.screening.features import features
from services.moderation.screening.known_ham import KnownHam
from services.moderation.screening.rules import Rule, RuleHit
from services.moderation.text.normalise import Normal, normalise

log = structlog.get_logger()

OUTAGE_PAUSE_S = 3600
OUTAGE_PAUSE_LONGEST_S = 24 * 3600
BUDGET_PAUSE_S = 20 * 3600
"""Once a day, also where the day before ended late."""


class RuleBook(Protocol):
    """Looks whether a message breaks its group's rules."""

    async def check(
        self, message: GroupMessage, normal: Normal, rules: RuleSet, *, is_newcomer: bool
    ) -> tuple[RuleHit, ...]:
        """What it breaks, the decisive first."""
        ...


class Scores(Protocol):
    """Says how much a message is like spam, without asking anybody."""

    async def score(self, group_id: int, normal: Normal, features: frozenset[str]) -> int:
        """0 to 100."""
        ...


class Judges(Protocol):
    """Says what a message is."""

    async def judge(
        self, message: GroupMessage, normal: Normal, settings: GroupSettings, *, local_only: bool
    ) -> Judgement:
        """A verdict, or why there is none."""
        ...


class Stage(StrEnum):
    """How far a message came."""

    EXEMPT = "exempt"
    REPEATED = "repeated"
    """It was judged before."""
    PASSED = "passed"
    FOUND = "found"
    WAITS = "waits"
    """Nobody could judge it; it is judged again later."""


@dataclass(frozen=True, slots=True)
class ModerationOutcome:
    """What became of a message; `removed`: it is gone, so nobody should answer it."""

    stage: Stage
    removed: bool = False
    incident: int | None = None


@dataclass(frozen=True, slots=True)
class PipelineServices:
    """What the pipeline works with, in the order in which it is used."""

    staff: StaffList
    journal: MessageLog
    rules: RuleBook
    scores: Scores
    precedents: KnownHam
    privacy: RemoteJudgingConsent
    judge: Judges
    enforcement: Enforcement
    waiting: PendingMessages
    sanctions: Sanctions
    cards: Cards
    reminders: Reminders
    clock: Clock


@dataclass(frozen=True, slots=True)
class _Case:
    """A message on its way."""

    entry: Entry
    settings: GroupSettings
    own: Normal
    """The author's own words."""
    facts: Facts
    local_only: bool = False

    @property
    def message(self) -> GroupMessage:
        return self.entry.message

    @property
    def subject(self) -> Subject:
        chosen = self.settings
        return Subject(self.facts.is_newcomer, self.message.author.kind, chosen.preset, chosen.ban_allowed)


class Pipeline:
    """Takes the messages of moderated groups.

    Args:
        tools: what it works with.
        self_id: the bot itself, whose messages are let through.
    """

    def __init__(self, tools: PipelineServices, self_id: int) -> None:
        self._tools = tools
        self._self_id = self_id

    async def handle(
        self, message: GroupMessage, settings: GroupSettings, *, album: str | None = None, reported: bool = False
    ) -> ModerationOutcome:
        """Judge a message, or a version of an edited one, and do what follows. May be repeated.

        Args:
            message: the message, all known parts of an album in one.
            settings: of its group.
            album: what tells the album, where it is one.
            reported: a member asks for another look.
        """
        tools = self._tools
        if exempt(message, await tools.staff.staff(message.group_id), self._self_id) is not None:
            return ModerationOutcome(Stage.EXEMPT)
        entry = Entry(message, album, reported)
        sight, standing = await tools.journal.open(entry)
        if sight.is_removed:
            return await self._after_removal(entry, settings, is_settled=sight.is_settled)
        if sight.is_settled:
            return ModerationOutcome(Stage.REPEATED)
        is_newcomer = standing.is_newcomer(tools.clock.now())
        case, hits = await self._examined(entry, settings, is_newcomer=is_newcomer, adds_link=sight.adds_link)
        return await self._decided(case, hits)

    async def rejudge(self, message: GroupMessage, version: str, settings: GroupSettings) -> ModerationOutcome:
        """Judge a message again that nobody could judge when it came."""
        tools = self._tools
        outcome = ModerationOutcome(Stage.EXEMPT)
        if settings.is_on and exempt(message, await tools.staff.staff(message.group_id), self._self_id) is None:
            entry = Entry(message, reported=version.endswith("-r"))
            standing = await tools.journal.members.standing(message.group_id, message.author.id)
            is_newcomer = standing.is_newcomer(tools.clock.now())
            case, _ = await self._examined(entry, settings, is_newcomer=is_newcomer, adds_link=False, again=True)
            known = await self._is_known_ham(case)
            outcome = await self._passed(case, Counts()) if known else await self._judged(case, again=True)
        if outcome.stage is not Stage.WAITS:
            await tools.waiting.done(message, version)
            if outcome.stage is not Stage.EXEMPT:
                await tools.reminders.forget(message.group_id, "outage")
        return outcome

    async def _after_removal(self, entry: Entry, settings: GroupSettings, *, is_settled: bool) -> ModerationOutcome:
        """Another part or version of what was deleted: a late part of an album goes the same way."""
        if not is_settled:
            if entry.album is not None and not settings.is_dry:
                await self._tools.sanctions.delete(entry.message.group_id, entry.message.message_ids)
            await self._tools.journal.close(entry, Counts(seen=1), removed=True, meaningful=None)
        return ModerationOutcome(Stage.REPEATED, removed=True)

    async def _examined(
        self, entry: Entry, settings: GroupSettings, *, is_newcomer: bool, adds_link: bool, again: bool = False
    ) -> tuple[_Case, tuple[RuleHit, ...]]:
        """Everything that is found out without asking anybody."""
        message, tools = entry.message, self._tools
        own = normalise(message.text)
        # A bare forward is judged by what it shows.
        shown = own if own.text else normalise(message.forwarded)
        # What came again and again was seen when it came: a second look at it is no further message.
        looked_at = again or entry.reported
        hits = () if looked_at else await tools.rules.check(message, own, settings.rules, is_newcomer=is_newcomer)
        found = features(message, shown)
        facts = Facts(
            has_words=bool(shown.text or message.links or message.buttons),
            is_meaningful=is_meaningful(shown.text),
            is_newcomer=is_newcomer,
            is_reported=entry.reported,
            adds_link=adds_link,
            breaks_rule=any(not hit.decisive for hit in hits),
            features=found,
            score=await tools.scores.score(message.group_id, shown, found) if shown.text else 0,
        )
        return _Case(entry, settings, own, facts, not await tools.privacy.is_allowed(settings)), hits

    async def _decided(self, case: _Case, hits: tuple[RuleHit, ...]) -> ModerationOutcome:
        hit = next((hit for hit in hits if hit.decisive), None)
        if hit is not None:
            category = Category.FLOOD if hit.rule in {Rule.FLOOD, Rule.DUPLICATE} else Category.OFF_TOPIC
            charge = Charge(category, 100, Source.RULE, plan_for_rule(), f"{hit.rule}: {hit.detail}")
            return await self._found(case, self._finding(case, charge), Counts(seen=1))
        reason = reason_to_judge(case.facts)
        if reason is None or await self._is_known_ham(case):
            return await self._passed(case, Counts(seen=1))
        log.debug("moderation.judged_because", group_id=case.message.group_id, reason=reason.value)
        return await self._judged(case)

    async def _is_known_ham(self, case: _Case) -> bool:
        """Whether an admin said of this very text that it is no spam."""
        return await self._tools.precedents.are_ham(case.message.group_id, shown_text(case.message))

    async def _judged(self, case: _Case, *, again: bool = False) -> ModerationOutcome:
        judgement = await self._tools.judge.judge(case.message, case.own, case.settings, local_only=case.local_only)
        if isinstance(judgement, Unjudged):
            return await self._unjudged(case, judgement, again=again)
        asked = not judgement.cached
        figures = Counts(
            seen=int(not again), judged=1, asked=int(asked),
            input_tokens=judgement.input_tokens, output_tokens=judgement.output_tokens,
        )  # fmt: skip
        plan = plan_for(judgement, case.subject)
        if plan is NOTHING:
            return await self._passed(case, figures)
        return await self._found(case, self._from_verdict(case, judgement, plan), figures)

    async def _unjudged(self, case: _Case, unjudged: Unjudged, *, again: bool) -> ModerationOutcome:
        """Nobody is sanctioned without a verdict; what has to be seen by somebody becomes a card."""
        facts, group_id = case.facts, case.message.group_id
        figures = Counts(seen=int(not again), judged=1, unjudged=int(not again))
        log.info("moderation.unjudged", group_id=group_id, why=unjudged.why.value)
        match unjudged.why:
            case Why.OUTAGE:
                return await self._in_outage(case, figures, again=again)
            case Why.REFUSED:
                return await self._found(case, self._unsure(case, CARD, Source.REFUSED, unjudged.detail), figures)
            case Why.BUDGET:
                if await self._tools.reminders.due(group_id, "budget", BUDGET_PAUSE_S, BUDGET_PAUSE_S):
                    await self._tools.cards.alert(case.settings, "moderation-budget-spent", budget=case.settings.budget)
            case Why.NO_CONSENT | Why.REJECTED:
                pass
        if facts.is_newcomer and facts.score >= HIGH:
            return await self._found(case, self._unsure(case, CARD, Source.OUTAGE, unjudged.why.value), figures)
        return await self._passed(case, figures)

    async def _in_outage(self, case: _Case, figures: Counts, *, again: bool) -> ModerationOutcome:
        tools, facts = self._tools, case.facts
        if not again:
            if await tools.reminders.due(case.message.group_id, "outage", OUTAGE_PAUSE_S, OUTAGE_PAUSE_LONGEST_S):
                await tools.cards.alert(case.settings, "moderation-outage")
            plan = plan_in_outage(is_newcomer=facts.is_newcomer, is_risky=facts.is_risky, score=facts.score)
            if plan is not NOTHING:
                return await self._found(case, self._unsure(case, plan, Source.OUTAGE, Why.OUTAGE.value), figures)
            await tools.waiting.put(case.message, case.entry.version)
            await tools.journal.close(case.entry, figures, removed=False, meaningful=None)
        return ModerationOutcome(Stage.WAITS)

    async def _passed(self, case: _Case, figures: Counts) -> ModerationOutcome:
        # An edit is no further message, and a report says nothing about its author.
        counts = case.message.edited_at is None and not case.entry.reported
        meaningful = case.facts.is_meaningful if counts else None
        await self._tools.journal.close(case.entry, figures, removed=False, meaningful=meaningful)
        return ModerationOutcome(Stage.PASSED)

    async def _found(self, case: _Case, finding: Finding, figures: Counts) -> ModerationOutcome:
        if case.entry.album is not None:
            seen = await self._tools.journal.seen.parts(finding.group_id, case.entry.album)
            # In order, so that all replicas know the album by the same part.
            finding = replace(finding, message_ids=tuple(sorted({*finding.message_ids, *seen})))
        incident = await self._tools.enforcement.enforce(finding, case.settings)
        await self._tools.journal.close(case.entry, figures, removed=incident.is_deleted, meaningful=None)
        return ModerationOutcome(Stage.FOUND, incident.is_deleted, incident.id)

    def _from_verdict(self, case: _Case, judged: Judged, plan: Plan) -> Finding:
        verdict = judged.verdict
        charge = Charge(verdict.category, verdict.confidence, Source.JUDGE, plan, judged.evidence.value)
        found = self._finding(case, charge)
        return replace(found, evidence=verdict.evidence, provider=f"{judged.provider} · {judged.model}")

    def _unsure(self, case: _Case, plan: Plan, source: Source, detail: str) -> Finding:
        return self._finding(case, Charge(Category.UNSURE, case.facts.score, source, plan, detail))

    def _finding(self, case: _Case, charge: Charge) -> Finding:
        now, dry_run = self._tools.clock.now(), case.settings.is_dry
        return create_finding(case.message, case.entry.version, charge, case.facts.features, now, dry_run=dry_run)
