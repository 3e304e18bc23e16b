"""Moderation settings of a group."""

from dataclasses import dataclass
from enum import StrEnum

from services.moderation.domain.rule_set import Duplicates, Flood, RuleSet

DAILY_BUDGET = 500
"""Judgements by a model per group and day, unless its admins set another limit."""
REPORT_THRESHOLD = 3
"""Reports by different members that create a card in any case."""


DEFAULT_RULES = RuleSet(flood=Flood(), duplicates=Duplicates(), mixed_scripts=True)
"""Rules of a new group: only limits that honest conversations do not reach."""


class Mode(StrEnum):
    """Moderation mode: off, dry run (cards only), or enforcing."""

    OFF = "off"
    DRY = "dry"
    ENFORCE = "enforce"


class Preset(StrEnum):
    """A set of confidence thresholds, see `policy.PRESETS`."""

    LENIENT = "lenient"
    STANDARD = "standard"
    STRICT = "strict"


@dataclass(frozen=True, slots=True)
class GroupSettings:
    """The settings that a group's admins chose.

    Args:
        language: of cards and notices.
        ban_allowed: whether the bot may ban by itself; otherwise only an admin bans.
        remote: whether messages may be sent to providers that do not run on the operator's own machines.
        cards_to: id of the chat that gets the cards: an admin's private one, or another; None is the group itself.
        house_rules: rules in words, shown to members and sent to the judge.
        budget: judgements by a model per day.
        report_threshold: reports by different members that create a card in any case.
    """

    group_id: int
    mode: Mode = Mode.OFF
    preset: Preset = Preset.STANDARD
    language: str = "en"
    ban_allowed: bool = False
    remote: bool = True
    cards_to: int | None = None
    rules: RuleSet = DEFAULT_RULES
    house_rules: str = ""
    budget: int = DAILY_BUDGET
    report_threshold: int = REPORT_THRESHOLD

    @property
    def is_on(self) -> bool:
        """True if messages are moderated, in earnest or in dry run."""
        return self.mode is not Mode.OFF

    @property
    def is_dry(self) -> bool:
        """True if actions are only reported."""
        return self.mode is Mode.DRY
