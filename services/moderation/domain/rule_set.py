"""The rules that the admins of a group configure."""

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
        version: of the stored format.
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
