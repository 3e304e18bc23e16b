"""One replica of moderation without Telegram and models: a recording group and a scripted judge."""

from collections import deque
from collections.abc import Sequence
from datetime import datetime
from typing import Any, cast

from redis.asyncio import Redis

from core.clock import Clock
from core.db.database import Database
from core.redis.notify_once import NotifyOnce
from services.moderation.actions import Feedback, ModerationActions
from services.moderation.domain.incident import Incident
from services.moderation.domain.message import Author, AuthorKind, GroupMessage
from services.moderation.domain.ports import (
    UNRESTRICTED,
    ActionResult,
    Administrators,
    CardLocation,
    Restriction,
    Standing,
)
from services.moderation.domain.settings import GroupSettings, Mode
from services.moderation.domain.verdict import Category, Evidence, Judged, Judgement, NoVerdictReason, Unjudged, Verdict
from services.moderation.enforcement import Enforcement
from services.moderation.maintenance import Maintenance, MaintenanceTiming, Retention
from services.moderation.newcomers.gate import Question
from services.moderation.newcomers.newcomers import Newcomers
from services.moderation.newcomers.store import Entry, Gate, NewcomerStore
from services.moderation.pipeline import Pipeline
from services.moderation.records.counts import DailyCounts
from services.moderation.records.groups import GroupStore
from services.moderation.records.incidents import IncidentStore
from services.moderation.records.members import ReportStore, WarningLedger
from services.moderation.records.message_log import MessageLog
from services.moderation.records.pending import PendingMessages
from services.moderation.records.shared_cards import SharedCards
from services.moderation.reporting import AdminAlerts, IncidentReporter
from services.moderation.restrictions import Restrictions
from services.moderation.screening.exemptions import Exemptions, KnownHam
from services.moderation.screening.rate_windows import RateWindows
from services.moderation.screening.rules import RuleEngine
from services.moderation.screening.screener import Accounts, Screener, SpamScores
from services.moderation.signals.campaigns import CampaignMemory
from services.moderation.text.normalise import Normal

GROUP, NEWCOMER, ADMIN, SELF = -100, 6001, 5001, 42
OUTAGE = Unjudged(NoVerdictReason.OUTAGE)


def judged(category: Category, confidence: int, evidence: str | None = "x") -> Judged:
    """Returns a verdict whose evidence is in the author's text."""
    verdict = Verdict(category=category, confidence=confidence, evidence=evidence)
    return Judged(verdict, Evidence.OWN, "a", "m")


SCAM = judged(Category.JOB_SCAM, 97)


class RecordingGroup:
    """The ports of one group: records actions and cards, and fails on demand.

    `failures` maps an action's name to the error that its next call raises. While `is_held`, flood control prevents
    edits of cards.
    """

    def __init__(self) -> None:
        self.actions: list[tuple[Any, ...]] = []
        self.absent: set[int] = set()
        self.notices: list[Gate] = []
        self.questions: list[tuple[int, Question | None]] = []
        self.raids: list[int] = []
        self.ended_raids: list[tuple[int, int]] = []
        self.cards: list[Incident] = []
        self.refreshed: list[Incident] = []
        self.alerts: list[str] = []
        self.failures: dict[str, BaseException] = {}
        self.is_held = False
        self.admins = Administrators(frozenset({ADMIN}))
        self.restrictions: dict[int, Restriction] = {}
        self.standings: dict[int, Standing] = {}
        """Changes that the cached list of `admins` does not have yet."""

    @property
    def action_names(self) -> list[str]:
        return [action[0] for action in self.actions]

    async def is_present(self, group_id: int, user_id: int) -> bool | None:
        return user_id not in self.absent

    async def post_notice(self, settings: GroupSettings, gate: Gate) -> int | None:
        self.notices.append(gate)
        return 500 + len(self.notices)

    async def delete_notice(self, group_id: int, message_id: int) -> None:
        self.actions.append(("delete notice", message_id))

    async def ask_in_private(self, settings: GroupSettings, chat_id: int, question: Question | None) -> bool:
        self.questions.append((chat_id, question))
        return True

    async def show_raid(self, settings: GroupSettings, entry: Entry) -> CardLocation | None:
        self.raids.append(entry.raid_joins)
        return CardLocation(GROUP, 900)

    async def end_raid(self, settings: GroupSettings, entry: Entry, passed: int) -> None:
        self.ended_raids.append((entry.raid_joins, passed))

    async def approve(self, group_id: int, user_id: int) -> bool:
        self.actions.append(("approve", user_id))
        return True

    async def get_admins(self, group_id: int) -> Administrators | None:
        return self.admins

    async def fetch_standing(self, group_id: int, user_id: int) -> Standing:
        default = Standing.ADMIN if user_id in self.admins.user_ids else Standing.MEMBER
        return self.standings.get(user_id, default)

    def _act(self, name: str, *arguments: object) -> ActionResult:
        if name in self.failures:
            raise self.failures.pop(name)
        self.actions.append((name, *arguments))
        return ActionResult.DONE

    async def delete(self, group_id: int, message_ids: Sequence[int]) -> ActionResult:
        return self._act("delete", tuple(message_ids))

    async def mute(self, group_id: int, member_id: int, until: datetime) -> ActionResult:
        return self._act("mute", member_id, until)

    async def fetch_restriction(self, group_id: int, member_id: int) -> Restriction | None:
        return self.restrictions.get(member_id, UNRESTRICTED)

    async def unmute(self, group_id: int, member_id: int, before: Restriction | None = None) -> ActionResult:
        return self._act("unmute", member_id, *(() if before is None else (before,)))

    async def ban(self, group_id: int, author_id: int, kind: AuthorKind) -> ActionResult:
        return self._act("ban", author_id)

    async def unban(self, group_id: int, author_id: int, kind: AuthorKind) -> ActionResult:
        return self._act("unban", author_id)

    async def show(self, incident: Incident, settings: GroupSettings) -> CardLocation | None:
        if "show" in self.failures:
            raise self.failures.pop("show")
        self.cards.append(incident)
        return CardLocation(GROUP, 1000 + len(self.cards))

    async def locate(self, settings: GroupSettings) -> int:
        return GROUP

    def held_s(self, settings: GroupSettings) -> float:
        return 0.0

    async def refresh(self, incident: Incident, settings: GroupSettings) -> bool:
        if not self.is_held:
            self.refreshed.append(incident)
        return not self.is_held

    async def warn(self, incident: Incident, settings: GroupSettings, count: int) -> None:
        self.actions.append(("warn", count))

    async def alert(self, settings: GroupSettings, key: str, **arguments: str | int) -> None:
        self.alerts.append(key)


class ScriptedPictures:
    """Gives one judgement of every picture."""

    def __init__(self) -> None:
        self.default: Judgement = judged(Category.OK, 99)
        self.asked: list[tuple[str, ...]] = []
        self.limits: list[int] = []

    async def judge(self, message: GroupMessage, settings: GroupSettings, limit: int) -> Judgement:
        self.asked.append(tuple(picture.unique_id for picture in message.pictures))
        self.limits.append(limit)
        return self.default


class ScriptedJudge:
    """Gives scripted judgements, then the default one; scores every message the same."""

    def __init__(self) -> None:
        self.pictures = ScriptedPictures()
        self.default: Judgement = judged(Category.OK, 99)
        self.script: deque[Judgement | Exception] = deque()
        self.request_count = 0
        self.fixed_score = 10
        self.learned: list[bool] = []

    async def judge(self, message: GroupMessage, normal: Normal, settings: GroupSettings) -> Judgement:
        self.request_count += 1
        scripted = self.script.popleft() if self.script else self.default
        if isinstance(scripted, Exception):
            raise scripted
        return scripted

    async def score(self, group_id: int, normal: Normal, features: frozenset[str]) -> int:
        return self.fixed_score

    async def learn(self, group_id: int, normal: Normal, features: frozenset[str], *, is_spam: bool) -> None:
        self.learned.append(is_spam)

    async def warm(self) -> None:
        return


class Reported:
    """Calls a part of moderation, then sends its queued reports, as the daemon does in the background."""

    def __init__(self, part: object, reporter: IncidentReporter) -> None:
        self._part = part
        self._reporter = reporter

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._part, name)
        if not callable(method):
            return method

        async def call(*arguments: object, **named: object) -> object:
            result = await method(*arguments, **named)
            await self._reporter.flush()
            return result

        return call


class ModerationHarness:
    """One replica. Replicas of one group share `redis`, `group` and `judge`.

    Args:
        scores: the local score; by default the judge's fixed one.
        accounts: public lists of spammers.
        timing: of the maintenance.
    """

    def __init__(
        self,
        database: Database,
        redis: Redis,
        clock: Clock,
        group: RecordingGroup,
        judge: ScriptedJudge,
        scores: SpamScores | None = None,
        accounts: Accounts | None = None,
        timing: MaintenanceTiming | None = None,
    ) -> None:
        self.clock, self.group, self.judge, self.redis = clock, group, judge, redis
        self.groups, self.incidents = GroupStore(database, clock), IncidentStore(database, clock)
        self.counts, self.pending = DailyCounts(database, clock), PendingMessages(database, clock)
        message_log, warnings = MessageLog(database, clock, self.counts), WarningLedger(database, clock)
        reports, known_ham = ReportStore(database, clock), KnownHam(redis, "t")
        exemptions = Exemptions(group, SELF)
        campaigns = CampaignMemory(redis, "t")
        screener = Screener(RuleEngine(RateWindows(redis, "t")), scores or judge, known_ham, campaigns, accounts)
        shared = SharedCards(database, clock)
        self.reporter = IncidentReporter(self.incidents, shared, self.groups, group, self.counts, clock)
        alerts = AdminAlerts(self.reporter, NotifyOnce(redis, "t:mod", clock))
        restrictions = Restrictions(group, clock)
        enforcement = Enforcement(
            self.incidents, shared, warnings, self.counts, restrictions, self.reporter, alerts, exemptions
        )
        newcomers = Newcomers(NewcomerStore(database, clock), group, group, group, self.reporter, SELF, clock)
        pipeline = Pipeline(
            exemptions, message_log, screener, judge, enforcement, self.pending, alerts, newcomers,
            pictures=judge.pictures, clock=clock,
        )  # fmt: skip
        actions = ModerationActions(
            exemptions,
            pipeline,
            enforcement,
            self.incidents,
            warnings,
            reports,
            Feedback(known_ham, judge, campaigns),
            clock,
        )
        retention = Retention(self.incidents, self.reporter, (message_log, reports, warnings, self.counts))
        self.maintenance = Maintenance(
            self.groups,
            self.pending,
            pipeline,
            enforcement,
            retention,
            judge,
            newcomers,
            clock=clock,
            timing=timing or MaintenanceTiming(),
        )
        self.pipeline = cast("Pipeline", Reported(pipeline, self.reporter))
        self.actions = cast("ModerationActions", Reported(actions, self.reporter))
        self.newcomers = cast("Newcomers", Reported(newcomers, self.reporter))
        self.alerts = cast("AdminAlerts", Reported(alerts, self.reporter))
        self.settings = GroupSettings(GROUP, mode=Mode.ENFORCE)

    def message(self, text: str = "Hello everybody, how do I set up the heating?", number: int = 1) -> GroupMessage:
        """Returns a newcomer's message."""
        author = Author(NEWCOMER, AuthorKind.USER, "Ann")
        return GroupMessage(GROUP, (number,), author, self.clock.now(), text=text)

    async def run_round(self) -> None:
        """Runs each step of the maintenance once, then sends the queued reports."""
        for step in self.maintenance.steps:
            await step.run()
        await self.reporter.flush()
