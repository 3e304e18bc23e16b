"""A message in processing, with the ports of the pipeline's checks and their results."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from services.moderation.domain.message import GroupMessage
from services.moderation.domain.policy import Subject
from services.moderation.domain.settings import GroupSettings
from services.moderation.domain.verdict import Judgement
from services.moderation.records.message_log import LogEntry, MemberHistory
from services.moderation.screening.screener import Screening, ScreeningFacts
from services.moderation.text.normalise import Normal


class MessageJudge(Protocol):
    """Gives verdicts."""

    async def judge(self, message: GroupMessage, normal: Normal, settings: GroupSettings) -> Judgement:
        """Returns a verdict, or the reason why there is none."""
        ...


class PictureCheck(Protocol):
    """Gives verdicts on pictures."""

    async def judge(self, message: GroupMessage, settings: GroupSettings, limit: int) -> Judgement:
        """Returns a verdict on a message's pictures, or the reason why there is none."""
        ...


class NewcomerCheck(Protocol):
    """Knows who is a newcomer."""

    async def is_newcomer(self, message: GroupMessage, history: MemberHistory) -> bool:
        """Returns whether a message's author is a newcomer."""
        ...

    async def wants_cleanup(self, group_id: int) -> bool:
        """Returns whether the last hour of a sanctioned newcomer is deleted."""
        ...

    async def picture_budget(self, group_id: int) -> int:
        """Returns how many of newcomers' pictures a group has judged a day; 0: none."""
        ...


class Stage(StrEnum):
    """The stage at which processing of a message ended."""

    EXEMPT = "exempt"
    REPEATED = "repeated"
    """This version was processed before."""
    PASSED = "passed"
    FOUND = "found"
    WAITS = "waits"
    """No verdict yet; it is judged again later."""


class Retry(StrEnum):
    """The number of the attempt at a verdict."""

    FIRST = "first"
    AGAIN = "again"
    LAST = "last"
    """The message has waited for too long to wait again."""


@dataclass(frozen=True, slots=True)
class ModerationOutcome:
    """Result for a message. A `removed` one is deleted and must not be answered."""

    stage: Stage
    removed: bool = False
    incident: int | None = None


@dataclass(frozen=True, slots=True)
class Case:
    """A screened message in processing."""

    entry: LogEntry
    settings: GroupSettings
    screening: Screening

    @property
    def message(self) -> GroupMessage:
        """The message, or the version of an edited one."""
        return self.entry.message

    @property
    def facts(self) -> ScreeningFacts:
        """The facts that are known about it without a model."""
        return self.screening.facts

    @property
    def shows_pictures(self) -> bool:
        """True for a newcomer's message with pictures."""
        return bool(self.message.pictures) and self.facts.is_newcomer

    @property
    def subject(self) -> Subject:
        """The facts that the policy decides by, beside the verdict."""
        chosen = self.settings
        return Subject(self.facts.is_newcomer, self.message.author.kind, chosen.preset, chosen.ban_allowed)
