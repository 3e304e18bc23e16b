"""What follows from a verdict: code, and no model, decides that. Nothing here asks or waits for anything.

The presets are thresholds of confidence (in per cent). Standard is the one that the documentation tells of:

| who | category | 90 and above | 80 to 89 | 50 to 79 |
|---|---|---|---|---|
| newcomer | spam | deleted, muted for 24 h | deleted, card | card |
| newcomer | threat, easily mistaken | deleted, card | deleted, card | card |
| established member | spam, threat, easily mistaken | deleted, card | deleted, card | card |
| anybody | toxic | warning | warning | card |
| anybody | unsure | card | card | card |

Whatever is done comes with a card. What a person has to look at (evidence that is not there, a quoted text, a name)
is a card and nothing more.
"""

from dataclasses import dataclass, replace
from datetime import timedelta
from enum import StrEnum

from services.moderation.domain.message import AuthorKind
from services.moderation.domain.settings import Preset
from services.moderation.domain.thresholds import VERY_HIGH
from services.moderation.domain.verdict import EASILY_MISTAKEN, About, Category, Evidence, Judged

MUTE = timedelta(hours=24)
WARNINGS_TO_MUTE = 3
WARNING_SPAN = timedelta(days=30)
"""How long a warning counts."""
BAN_CONFIDENCE = 95
"""Where a group lets the bot ban by itself: how sure it has to be."""


class Sanction(StrEnum):
    """What is done to the author."""

    NONE = "none"
    WARN = "warn"
    MUTE = "mute"
    BAN = "ban"


@dataclass(frozen=True, slots=True)
class Plan:
    """What is done about a message: nothing, or a card and perhaps more."""

    card: bool = False
    delete: bool = False
    sanction: Sanction = Sanction.NONE

    @property
    def weight(self) -> int:
        """How much of it there is, to compare two plans for one message."""
        return self.card + 2 * self.delete + 4 * list(Sanction).index(self.sanction)


NOTHING = Plan()
CARD = Plan(card=True)
DELETE = Plan(card=True, delete=True)


@dataclass(frozen=True, slots=True)
class Thresholds:
    """The confidence from which a sanction, a deletion and a card follow."""

    sanction: int
    delete: int
    card: int


PRESETS = {
    Preset.LENIENT: Thresholds(sanction=95, delete=90, card=70),
    Preset.STANDARD: Thresholds(sanction=90, delete=80, card=50),
    Preset.STRICT: Thresholds(sanction=85, delete=70, card=40),
}


@dataclass(frozen=True, slots=True)
class Subject:
    """Whom a verdict is about, and where."""

    is_newcomer: bool
    kind: AuthorKind
    preset: Preset
    ban_allowed: bool


def plan_for(judged: Judged, subject: Subject) -> Plan:  # noqa: PLR0911 - the table above, from top to bottom
    """What follows from a verdict."""
    verdict, thresholds = judged.verdict, PRESETS[subject.preset]
    confidence = verdict.confidence
    if verdict.category is Category.OK or confidence < thresholds.card:
        return NOTHING
    if verdict.about is About.QUOTED and judged.evidence is not Evidence.FORWARDED:
        # Somebody speaks of an advert: it is theirs as little as a newspaper's crimes are the newspaper's.
        return NOTHING
    if judged.evidence in {Evidence.MISSING, Evidence.NAME} or verdict.category is Category.UNSURE:
        return CARD
    if confidence < thresholds.delete:
        return CARD
    if verdict.category is Category.TOXIC:
        return Plan(card=True, sanction=Sanction.WARN) if subject.kind is AuthorKind.USER else DELETE
    careful = verdict.category in EASILY_MISTAKEN or not verdict.is_spam or judged.evidence is not Evidence.OWN
    if not subject.is_newcomer or careful:
        return DELETE
    if subject.ban_allowed and confidence >= max(BAN_CONFIDENCE, thresholds.sanction):
        return replace(DELETE, sanction=Sanction.BAN)
    if confidence >= thresholds.sanction and subject.kind is AuthorKind.USER:
        # A channel cannot be muted, and a bot does what somebody built it for: whether they go is for a person to say.
        return replace(DELETE, sanction=Sanction.MUTE)
    return DELETE


def plan_for_rule() -> Plan:
    """What follows from a rule of the group that needs no judge: its admins asked for it, in so many words."""
    return DELETE


def plan_in_outage(*, is_newcomer: bool, is_risky: bool, score: int) -> Plan:
    """What follows while nobody can judge: nobody is sanctioned, and only the plainest is deleted."""
    return DELETE if is_newcomer and is_risky and score >= VERY_HIGH else NOTHING


def plan_for_warnings(count: int) -> Sanction:
    """What follows from the number of warnings that somebody has within `WARNING_SPAN`."""
    return Sanction.MUTE if count >= WARNINGS_TO_MUTE else Sanction.WARN
