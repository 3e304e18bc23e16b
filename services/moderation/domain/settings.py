"""Moderation settings of a group, and the rules that its admins configure."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

from pydantic import Field, TypeAdapter, ValidationError

from services.moderation.domain.message import MediaKind

RULES_VERSION = 1


class AppliesTo(StrEnum):
    """The members that a prohibition applies to."""

    NOBODY = "nobody"
    NEWCOMERS = "newcomers"
    EVERYBODY = "everybody"

    def includes(self, *, is_newcomer: bool) -> bool:
        """Returns whether the prohibition applies to this author."""
        return self is AppliesTo.EVERYBODY or (self is AppliesTo.NEWCOMERS and is_newcomer)


class LinkPolicy(StrEnum):
    """The links that a group allows. Listed domains are always allowed."""

    ALL = "all"
    NOT_FROM_NEWCOMERS = "not_from_newcomers"
    LISTED = "listed"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Flood:
    """Rate limit for one author: this many messages within this many seconds are a flood."""

    messages: Annotated[int, Field(ge=2, le=100)] = 7
    seconds: Annotated[int, Field(ge=1, le=3600)] = 10


@dataclass(frozen=True, slots=True)
class Duplicates:
    """Limit for equal texts within a window, by one author or by several.

    Args:
        times: the occurrence that breaks the rule.
        seconds: length of the window.
        shortest: letters and digits below which a text is not compared ("ok", "+1").
    """

    times: Annotated[int, Field(ge=2, le=50)] = 3
    seconds: Annotated[int, Field(ge=1, le=86_400)] = 600
    shortest: Annotated[int, Field(ge=1, le=1000)] = 12


@dataclass(frozen=True, slots=True)
class RuleSet:
    """The rules of a group. The default allows everything.

    Args:
        version: version of the stored format.
        banned: words and phrases; `stem*` matches every word that starts with it, `*stem` every word that ends with it.
        links: which links are allowed.
        domains: targets that every policy allows: domains with their subdomains, `t.me/name` or `site.org/path`.
        forwards: members who may not forward.
        media: kinds that no member may send.
        newcomer_media: kinds that newcomers may not send.
        flood: None disables the check.
        duplicates: None disables the check.
        mixed_scripts: report words that mix scripts.
    """

    version: int = RULES_VERSION
    banned: Annotated[tuple[Annotated[str, Field(max_length=200)], ...], Field(max_length=1000)] = ()
    links: LinkPolicy = LinkPolicy.ALL
    domains: Annotated[tuple[Annotated[str, Field(max_length=200)], ...], Field(max_length=500)] = ()
    forwards: AppliesTo = AppliesTo.NOBODY
    media: tuple[MediaKind, ...] = ()
    newcomer_media: tuple[MediaKind, ...] = ()
    flood: Flood | None = None
    duplicates: Duplicates | None = None
    mixed_scripts: bool = False

    @classmethod
    def from_json(cls, value: Mapping[str, object]) -> "RuleSet":
        """Parses a JSON object. Unknown keys are ignored, missing ones get their default.

        Raises:
            ValueError: a value is invalid; the message names it, on one line.
        """
        try:
            return _ADAPTER.validate_python(dict(value))
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            path = ".".join(map(str, first["loc"]))
            raise ValueError(f"{path}: {first['msg']}") from None

    def as_json(self) -> dict[str, object]:
        """Returns the rules as a JSON object."""
        return _ADAPTER.dump_python(self, mode="json")


_ADAPTER = TypeAdapter(RuleSet)


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
        language: IETF tag of the language of cards and notices.
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
