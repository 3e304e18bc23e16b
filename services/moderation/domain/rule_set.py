"""The rules that the admins of a group configure."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Self

from pydantic import Field, TypeAdapter, ValidationError

from services.moderation.domain.message import MediaKind

RULES_VERSION = 1


class Whom(StrEnum):
    """Whom a prohibition is for."""

    NOBODY = "nobody"
    NEWCOMERS = "newcomers"
    EVERYBODY = "everybody"

    def includes(self, *, is_newcomer: bool) -> bool:
        """Whether it is for this author."""
        return self is Whom.EVERYBODY or (self is Whom.NEWCOMERS and is_newcomer)


class LinkPolicy(StrEnum):
    """Which links a group takes; its listed domains are always welcome."""

    ALL = "all"
    NOT_FROM_NEWCOMERS = "not_from_newcomers"
    LISTED = "listed"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Flood:
    """So many messages of one author within so many seconds are a flood."""

    messages: Annotated[int, Field(ge=2, le=100)] = 7
    seconds: Annotated[int, Field(ge=1, le=3600)] = 10


@dataclass(frozen=True, slots=True)
class Duplicates:
    """The same text so often within so many seconds, by one author or by several.

    Args:
        times: the occurrence that is one too many.
        seconds: the window.
        shortest: letters and digits below which a text is not compared ("ok", "+1").
    """

    times: Annotated[int, Field(ge=2, le=50)] = 3
    seconds: Annotated[int, Field(ge=1, le=86_400)] = 600
    shortest: Annotated[int, Field(ge=1, le=1000)] = 12


@dataclass(frozen=True, slots=True)
class RuleSet:
    """What a group allows. Without a word it allows everything.

    Args:
        version: of the form in which it is stored.
        banned: words and phrases; `stem*` for every word that begins so, `*stem` for every one that ends so.
        links: which links are allowed.
        domains: what is allowed under every policy: domains with all below them, or `t.me/name`, `site.org/path`.
        forwards: who may not forward.
        media: kinds that nobody may send.
        newcomer_media: kinds that newcomers may not send.
        flood: None: not looked for.
        duplicates: None: not looked for.
        mixed_scripts: whether words that mix scripts are told of.
    """

    version: int = RULES_VERSION
    banned: Annotated[tuple[Annotated[str, Field(max_length=200)], ...], Field(max_length=1000)] = ()
    links: LinkPolicy = LinkPolicy.ALL
    domains: Annotated[tuple[Annotated[str, Field(max_length=200)], ...], Field(max_length=500)] = ()
    forwards: Whom = Whom.NOBODY
    media: tuple[MediaKind, ...] = ()
    newcomer_media: tuple[MediaKind, ...] = ()
    flood: Flood | None = None
    duplicates: Duplicates | None = None
    mixed_scripts: bool = False

    @classmethod
    def from_json(cls, value: Mapping[str, object]) -> Self:
        """The rules from a JSON object; keys that are not known are left out, missing ones have their default.

        Raises:
            ValueError: a value is none that a rule may have; the message names it, one line.
        """
        try:
            return _ADAPTER.validate_python(dict(value))  # pyright: ignore[reportReturnType] - the adapter is of this class
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(map(str, first["loc"]))
            raise ValueError(f"{where}: {first['msg']}") from None

    def as_json(self) -> dict[str, object]:
        """The rules as a JSON object."""
        return _ADAPTER.dump_python(self, mode="json")


_ADAPTER = TypeAdapter(RuleSet)
