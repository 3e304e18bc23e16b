"""Changes of a group's settings by commands and buttons: rules, locks of kinds of content, numbers."""

from dataclasses import replace
from typing import TypeVar

from services.moderation.domain.message import MediaKind
from services.moderation.domain.settings import AppliesTo, Duplicates, Flood, GroupSettings, LinkPolicy, RuleSet

Option = TypeVar("Option")

MAX_HOUSE_RULES = 2000
"""Characters."""
MAX_DIGITS = 6
"""Of a number in a command: Python refuses to read one of thousands of digits."""
NEWCOMER_MEDIA = (
    MediaKind.PHOTO, MediaKind.VIDEO, MediaKind.VOICE, MediaKind.VIDEO_NOTE, MediaKind.ANIMATION, MediaKind.STICKER,
    MediaKind.DOCUMENT, MediaKind.STORY,
)  # fmt: skip
LOCKABLE = (*(kind.value for kind in MediaKind if kind is not MediaKind.OTHER), "links", "forwards", "media")


def toggle_rule(rules: RuleSet, name: str) -> RuleSet:
    """Returns the rules with one of them switched, or set to its next value; unchanged for an unknown name."""
    match name:
        case "flood":
            return replace(rules, flood=None if rules.flood else Flood())
        case "duplicates":
            return replace(rules, duplicates=None if rules.duplicates else Duplicates())
        case "mixed":
            return replace(rules, mixed_scripts=not rules.mixed_scripts)
        case "links":
            return replace(rules, links=_next(tuple(LinkPolicy), rules.links))
        case "forwards":
            return replace(rules, forwards=_next(tuple(AppliesTo), rules.forwards))
        case "media":
            return replace(rules, newcomer_media=() if rules.newcomer_media else NEWCOMER_MEDIA)
        case _:
            return rules


def apply_rule_command(settings: GroupSettings, verb: str, value: str) -> GroupSettings | None:
    """Returns the settings after `/rules <verb> <value>`; None if the command is unknown or a limit is exceeded."""
    rules = settings.rules
    if verb == "text":
        return replace(settings, house_rules=value) if len(value) <= MAX_HOUSE_RULES else None
    if not value:
        return None
    other_terms = tuple(term for term in rules.banned if term != value)
    other_domains = tuple(name for name in rules.domains if name != value)
    match verb:
        case "ban":
            rules = replace(rules, banned=(*other_terms, value))
        case "unban":
            rules = replace(rules, banned=other_terms)
        case "domain":
            rules = replace(rules, domains=(*other_domains, value))
        case "undomain":
            rules = replace(rules, domains=other_domains)
        case _:
            return None
    try:
        # Stored rules must parse again: the limits of the schema apply.
        return replace(settings, rules=RuleSet.from_json(rules.as_json()))
    except ValueError:
        return None


def lock_kind(rules: RuleSet, kind: str, *, locked: bool) -> RuleSet:
    """Returns the rules with a kind forbidden to newcomers, or allowed again."""
    match kind:
        case "links":
            return replace(rules, links=LinkPolicy.NOT_FROM_NEWCOMERS if locked else LinkPolicy.ALL)
        case "forwards":
            return replace(rules, forwards=AppliesTo.NEWCOMERS if locked else AppliesTo.NOBODY)
        case "media":
            return replace(rules, newcomer_media=NEWCOMER_MEDIA if locked else ())
        case _:
            others = tuple(each for each in rules.newcomer_media if each != kind)
            return replace(rules, newcomer_media=(*others, MediaKind(kind)) if locked else others)


def read_number(text: str, least: int, most: int) -> int | None:
    """Returns a number from `least` to `most` in a command; None for another text."""
    is_number = text.isdecimal() and len(text) <= MAX_DIGITS
    return int(text) if is_number and least <= int(text) <= most else None


def _next(values: tuple[Option, ...], current: Option) -> Option:
    return values[(values.index(current) + 1) % len(values)]
