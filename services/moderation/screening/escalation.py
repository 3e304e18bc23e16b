"""Which messages a judge looks at. Nothing is decided here but who decides."""

from dataclasses import dataclass
from enum import StrEnum

from services.moderation.domain.thresholds import HIGH
from services.moderation.screening.features import RISKY


class Reason(StrEnum):
    """Why a judge is asked."""

    REPORT = "report"
    EDIT = "edit"
    NEWCOMER = "newcomer"
    RISKY = "risky"
    RULE = "rule"
    SCORE = "score"


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a message before a judge is asked.

    Args:
        has_words: whether there is anything to judge: text, a link, a button.
        is_meaningful: whether it says something.
        is_newcomer: whether its author is one.
        is_reported: whether a member reported it.
        adds_link: whether it is an edit that leads somewhere new.
        breaks_rule: whether it breaks a rule that is not enough by itself.
        features: its risky features.
        score: the local score, 0 to 100.
    """

    has_words: bool
    is_meaningful: bool
    is_newcomer: bool
    is_reported: bool
    adds_link: bool
    breaks_rule: bool
    features: frozenset[str]
    score: int

    @property
    def is_risky(self) -> bool:
        """Whether it has a feature that is worth a look by itself."""
        return not RISKY.isdisjoint(self.features)


def reason_to_judge(facts: Facts) -> Reason | None:
    """Why a judge should look at a message, or None where none needs to."""
    if not facts.has_words:
        return None
    if facts.is_reported:
        return Reason.REPORT
    if facts.adds_link:
        return Reason.EDIT
    if facts.is_risky:
        return Reason.RISKY
    if facts.breaks_rule:
        return Reason.RULE
    if facts.score >= HIGH:
        return Reason.SCORE
    # A newcomer's "hi" or sticker can be nothing that a judge would find.
    return Reason.NEWCOMER if facts.is_newcomer and (facts.is_meaningful or facts.features) else None
