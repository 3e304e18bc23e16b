"""Moderation without Telegram and models: a real database, the embedded Redis, a scripted judge, a recorder."""
# ruff: noqa: ARG002 - the recorder and the judge take whatever the protocols hand them

from collections import deque
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from redis.asyncio import Redis

from core.clock import Clock
from core.db.database import Database
from services.moderation.actions import ActionServices, ModerationActions
from services.moderation.domain.incident import Incident
from services.moderation.domain.message import Author, AuthorKind, GroupMessage
from services.moderation.domain.ports import CardPlace, Done, Staff
from services.moderation.domain.settings import GroupSettings, Mode
from services.moderation.domain.verdict import Category, Evidence, Judged, Judgement, Unjudged, Verdict, Why
from services.moderation.enforcement import Enforcement, Records
from services.moderation.judging.budget import Reminders
from services.moderation.judging.consent import RemoteJudgingConsent
from services.moderation.maintenance import Maintenance, MaintenanceStores
from services.moderation.pipeline import Pipeline, PipelineServices
from services.moderation.records.counts import Statistics
from services.moderation.records.groups import GroupStore
from services.moderation.records.incidents import IncidentStore
from services.moderation.records.members import MemberStore
from services.moderation.records.message_log import MessageLog
from services.moderation.records.pending import PendingMessages
from services.moderation.records.reports import ReportStore
from services.moderation.records.versions import ProcessedVersions
from services.moderation.records.warning_ledger import WarningLedger
from services.moderation.screening.known_ham import KnownHam
from services.moderation.screening.rules import RuleEngine
from services.moderation.text.normalise import Normal
from services.preferences import PreferenceStore

GROUP, NEWCOMER, ADMIN, SELF = -100, 6001, 5001, 42
OUTAGE = Unjudged(Why.OUTAGE)


def judged(category: Category, confidence: int, evidence: str | None = "x") -> Judged:
    """A verdict whose evidence was found in the author's text."""
    verdict = Verdict(category=category, confidence=confidence, evidence=evidence)
    return Judged(verdict, Evidence.OWN, "a", "m")


SCAM = judged(Category.JOB_SCAM, 97)


class Recorder:
    """The group, as far as moderation acts on it: what was done and shown, and what fails."""

    def __init__(self) -> None:
        self.acts: list[tuple[Any, ...]] = []
        self.cards: list[Incident] = []
        self.refreshed: list[Incident] = []
        self.alerts: list[str] = []
        self.kills: dict[str, BaseException] = {}
        self.known = Staff(frozenset({ADMIN}))

    async def staff(self, group_id: int) -> Staff | None:
        return self.known

    def _act(self, name: str, *what: object) -> Done:
        if name in self.kills:
            raise self.kills.pop(name)
        self.acts.append((name, *what))
        return Done.DONE

    async def delete(self, group_id: int, message_ids: Sequence[int]) -> Done:
        return self._act("delete", tuple(message_ids))

    async def mute(self, group_id: int, member_id: int, until: datetime) -> Done:
        return self._act("mute", member_id, until)

    async def unmute(self, group_id: int, member_id: int) -> Done:
        return self._act("unmute", member_id)

    async def ban(self, group_id: int, author_id: int, kind: AuthorKind) -> Done:
        return self._act("ban", author_id)

    async def unban(self, group_id: int, author_id: int, kind: AuthorKind) -> Done:
        return self._act("unban", author_id)

    async def show(self, incident: Incident, settings: GroupSettings) -> CardPlace | None:
        if "show" in self.kills:
            raise self.kills.pop("show")
        self.cards.append(incident)
        return CardPlace(GROUP, 1000 + len(self.cards))

    async def refresh(self, incident: Incident, settings: GroupSettings) -> None:
        self.refreshed.append(incident)

    async def warn(self, incident: Incident, settings: GroupSettings, count: int) -> None:
        self.acts.append(("warn", count))

    async def alert(self, settings: GroupSettings, key: str, **arguments: str | int) -> None:
        self.alerts.append(key)


class Scripted:
    """Judges as it is told, and scores everything the same."""

    def __init__(self) -> None:
        self.default: Judgement = judged(Category.OK, 99)
        self.script: deque[Judgement] = deque()
        self.asked = 0
        self.fixed_score = 10
        self.learned: list[bool] = []

    async def judge(
        self, message: GroupMessage, normal: Normal, settings: GroupSettings, *, local_only: bool
    ) -> Judgement:
        self.asked += 1
        return self.script.popleft() if self.script else self.default

    async def score(self, group_id: int, normal: Normal, features: frozenset[str]) -> int:
        return self.fixed_score

    async def learn(self, group_id: int, normal: Normal, features: frozenset[str], *, is_spam: bool) -> None:
        self.learned.append(is_spam)

    async def warm(self) -> None:
        return


class ModerationHarness:
    """One replica.

    Args:
        database: its view of the database.
        redis: what replicas share besides.
        clock: the time.
        recorder: the group.
        judge: who judges.
    """

    def __init__(self, database: Database, redis: Redis, clock: Clock, recorder: Recorder, judge: Scripted) -> None:
        self.clock, self.recorder, self.judge = clock, recorder, judge
        self.groups, self.incidents = GroupStore(database, clock), IncidentStore(database, clock)
        self.statistics, self.waiting = Statistics(database, clock), PendingMessages(database, clock)
        self.seen, self.warnings = ProcessedVersions(database, clock), WarningLedger(database, clock)
        records = Records(self.incidents, self.warnings, self.statistics)
        self.reminders, precedents = Reminders(redis, "t", clock), KnownHam(redis, "t")
        self.enforcement = Enforcement(records, recorder, recorder, self.reminders, clock)
        self.pipeline = Pipeline(
            PipelineServices(
                staff=recorder,
                journal=MessageLog(database, self.seen, MemberStore(database, clock), self.statistics),
                rules=RuleEngine(redis, "t"),
                scores=judge,
                precedents=precedents,
                privacy=RemoteJudgingConsent(self.groups, PreferenceStore(database, clock), is_asked=False),
                judge=judge,
                enforcement=self.enforcement,
                waiting=self.waiting,
                sanctions=recorder,
                cards=recorder,
                reminders=self.reminders,
                clock=clock,
            ),
            SELF,
        )
        reports = ReportStore(database, clock)
        desk = ActionServices(
            records, self.enforcement, self.pipeline, reports, precedents, judge, recorder, recorder,
            recorder, clock,
        )  # fmt: skip
        self.desk = ModerationActions(desk, SELF)
        cared = MaintenanceStores(
            self.groups, self.waiting, self.incidents, (self.seen, reports, self.warnings, self.statistics), judge
        )
        self.caretaker = Maintenance(cared, self.pipeline, self.enforcement, recorder, clock)
        self.settings = GroupSettings(GROUP, mode=Mode.ENFORCE)

    def message(self, text: str = "Hello everybody, how do I set up the heating?", number: int = 1) -> GroupMessage:
        """What a newcomer writes."""
        author = Author(NEWCOMER, AuthorKind.USER, "Ann")
        return GroupMessage(GROUP, (number,), author, self.clock.now(), text=text)
