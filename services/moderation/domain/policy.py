"""Maps verdicts to actions: pure functions, no I/O. The model never decides on an action.

Presets are confidence thresholds in per cent. The standard one:

| who | category | 90 and above | 80 to 89 | 50 to 79 |
|---|---|---|---|---|
| newcomer | spam | deleted, muted for 24 h | deleted, card | card |
| newcomer | threat, easily mistaken | deleted, card | deleted, card | card |
| established member | spam, threat, easily mistaken | deleted, card | deleted, card | card |
| any | toxic | warning | warning | card |
| any | unsure | card | card | card |

Every action comes with a card. A case that an admin has to check (evidence not found, or found in the name) gets a
card and no action.
"""

from dataclasses import dataclass, replace
from datetime import timedelta
from enum import StrEnum

from services.moderation.domain.message import AuthorKind
from services.moderation.domain.settings import Preset
from services.moderation.domain.verdict import EASILY_MISTAKEN, About, Category, Evidence, Judged, Verdict

# Thresholds of the local spam score, 0 to 100. Figures from cross-validation on the starter set (480 spam, 1,789 ham
# of 41 groups), docs/moderation-score.md.
HIGH = 70
"""Sends a message to the judge. Reached by 86 % of the spam and by 18 of the ham."""
VERY_HIGH = 90
"""With other signs, deletes while no model is reachable. Reached by two thirds of the spam and 3 of the ham."""


MUTE = timedelta(hours=24)
WARNINGS_TO_MUTE = 3
WARNING_SPAN = timedelta(days=30)
"""Time until a warning expires."""
BAN_CONFIDENCE = 95
"""Lowest confidence for a ban by the bot, in groups that allow it."""


class Sanction(StrEnum):
    """An action against the author."""

    NONE = "none"
    WARN = "warn"
    MUTE = "mute"
    BAN = "ban"


@dataclass(frozen=True, slots=True)
class Plan:
    """The actions for a message: none, or a card with or without more."""

    card: bool = False
    delete: bool = False
    sanction: Sanction = Sanction.NONE

    @property
    def weight(self) -> int:
        """Severity, to compare two plans for one message."""
        return self.card + 2 * self.delete + 4 * list(Sanction).index(self.sanction)


NOTHING = Plan()
CARD = Plan(card=True)
DELETE = Plan(card=True, delete=True)


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Lowest confidence for a sanction, a deletion and a card."""

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
    """The author of a judged message and the group's settings that apply."""

    is_newcomer: bool
    kind: AuthorKind
    preset: Preset
    ban_allowed: bool


def plan_for(judged: Judged, subject: Subject) -> Plan:  # noqa: PLR0911 - the table above, from top to bottom
    """Returns the plan for a verdict."""
    verdict, thresholds = judged.verdict, PRESETS[subject.preset]
    confidence = verdict.confidence
    if verdict.category is Category.OK or confidence < thresholds.card:
        return NOTHING
    if judged.evidence is Evidence.QUOTED:
        # An advert in a quotation from another chat: an admin looks at a newcomer's, and never more than that.
        return CARD if subject.is_newcomer else NOTHING
    if verdict.about is About.QUOTED and judged.evidence is not Evidence.FORWARDED:
        # The author reports or discusses an advert and does not place one.
        return NOTHING
    if judged.evidence in {Evidence.MISSING, Evidence.NAME} or verdict.category is Category.UNSURE:
        return CARD
    if confidence < thresholds.delete:
        return CARD
    if verdict.category is Category.TOXIC:
        return Plan(card=True, sanction=Sanction.WARN) if subject.kind is AuthorKind.USER else DELETE
    is_mild = verdict.category in EASILY_MISTAKEN or not verdict.is_spam or judged.evidence is not Evidence.OWN
    if not subject.is_newcomer or is_mild:
        return DELETE
    if subject.ban_allowed and confidence >= max(BAN_CONFIDENCE, thresholds.sanction):
        return replace(DELETE, sanction=Sanction.BAN)
    if confidence >= thresholds.sanction and subject.kind is AuthorKind.USER:
        # A channel cannot be muted, and a bot follows its owner: removing either is an admin's decision.
        return replace(DELETE, sanction=Sanction.MUTE)
    return DELETE


def plan_for_picture(verdict: Verdict, preset: Preset) -> Plan:
    """Returns the plan for a verdict on a newcomer's picture: deletion at most, and only for adverts."""
    thresholds = PRESETS[preset]
    if not verdict.is_spam and verdict.category is not Category.CHANNEL_PROMO:
        return NOTHING
    if verdict.confidence >= thresholds.delete:
        return DELETE
    return CARD if verdict.confidence >= thresholds.card else NOTHING


def plan_for_rule() -> Plan:
    """Returns the plan for a broken rule: its admins configured the deletion, so no judge is needed."""
    return DELETE


def plan_in_outage(*, is_newcomer: bool, is_risky: bool, score: int) -> Plan:
    """Returns the plan while there is no verdict: no sanctions, and only the clearest spam is deleted."""
    return DELETE if is_newcomer and is_risky and score >= VERY_HIGH else NOTHING


def sanction_for_warnings(count: int) -> Sanction:
    """Returns the sanction for a member's number of warnings within `WARNING_SPAN`."""
    return Sanction.MUTE if count >= WARNINGS_TO_MUTE else Sanction.WARN
