"""How each group wants to be moderated."""

from dataclasses import dataclass
from enum import StrEnum

from services.moderation.domain.rule_set import Duplicates, Flood, RuleSet

DAILY_BUDGET = 500
"""Judgements by a model that a group has a day, unless its admins say otherwise."""
REPORT_THRESHOLD = 3
"""Members who have to report a message before its admins get a card in any case."""


FIRST_RULES = RuleSet(flood=Flood(), duplicates=Duplicates(), mixed_scripts=True)
"""What a group begins with: nothing is forbidden but what no honest conversation does."""


class Mode(StrEnum):
    """Whether a group is moderated: not, by reports of what would be done, or in earnest."""

    OFF = "off"
    DRY = "dry"
    ENFORCE = "enforce"


class Preset(StrEnum):
    """How sure a verdict has to be before something is done."""

    LENIENT = "lenient"
    STANDARD = "standard"
    STRICT = "strict"


@dataclass(frozen=True, slots=True)
class GroupSettings:
    """The choices of a group's admins.

    Args:
        group_id: whose.
        mode: whether anything is done.
        preset: how sure a verdict has to be.
        language: what the bot speaks there about moderation.
        ban_allowed: whether the bot may ban by itself; else only a person bans.
        remote: whether messages may go to providers that are not on the operator's own machines.
        cards_to: an admin who gets the cards in private; None: they stand in the group.
        rules: the group's own rules.
        house_rules: its rules in words, which members read and the judge knows.
        budget: judgements by a model a day.
        report_threshold: members who have to report a message for a card in any case.
    """

    group_id: int
    mode: Mode = Mode.OFF
    preset: Preset = Preset.STANDARD
    language: str = "en"
    ban_allowed: bool = False
    remote: bool = True
    cards_to: int | None = None
    rules: RuleSet = FIRST_RULES
    house_rules: str = ""
    budget: int = DAILY_BUDGET
    report_threshold: int = REPORT_THRESHOLD

    @property
    def is_on(self) -> bool:
        """Whether messages are looked at."""
        return self.mode is not Mode.OFF

    @property
    def is_dry(self) -> bool:
        """Whether it is only reported what would be done."""
        return self.mode is Mode.DRY
