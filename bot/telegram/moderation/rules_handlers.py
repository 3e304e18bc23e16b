"""`/rules`: members read the rules of their group, its admins change them."""

from dataclasses import replace
from typing import TypeVar

from aiogram import Router
from aiogram.filters import Command, CommandObject
from aiogram.types import Message

from bot.telegram.api.group_admins import GroupAdmins
from bot.telegram.api.messages import is_group, message_speaker
from bot.telegram.delivery.delivery import Delivery
from bot.telegram.delivery.replies import reply_to
from bot.telegram.moderation.handlers import ByAdmins
from bot.telegram.moderation.labels import label
from bot.telegram.moderation.settings_card import SettingsCard
from core.i18n import Texts
from services.moderation.domain.message import MediaKind
from services.moderation.domain.rule_set import AppliesTo, Duplicates, Flood, LinkPolicy, RuleSet
from services.moderation.domain.settings import GroupSettings
from services.moderation.records.groups import GroupStore

Option = TypeVar("Option")

LONGEST_HOUSE_RULES = 2000
LONGEST_LISTS = 500
"""Characters of the forbidden words, and of the domains, that are shown."""
NEWCOMER_MEDIA = (
    MediaKind.PHOTO, MediaKind.VIDEO, MediaKind.VOICE, MediaKind.VIDEO_NOTE, MediaKind.ANIMATION, MediaKind.STICKER,
    MediaKind.DOCUMENT, MediaKind.STORY,
)  # fmt: skip


def rules_router(
    *, groups: GroupStore, admins: GroupAdmins, cards: SettingsCard, delivery: Delivery, texts: Texts
) -> Router:
    """The handler of the rules."""
    router = Router(name="rules")
    by_admins = ByAdmins(admins)

    @router.message(Command("rules"))
    async def rules(message: Message, command: CommandObject) -> None:
        if not is_group(message):
            await reply_to(delivery, message, texts.get("moderation-groups-only", message_speaker(message).language))
            return
        settings = await cards.settings_at(message)
        language = settings.language
        words = settings.house_rules or texts.get("moderation-rules-none", language)
        if not await by_admins.wrote(message):
            await reply_to(delivery, message, texts.get("moderation-rules-for-members", language, words=words))
            return
        what, _, value = (command.args or "").partition(" ")
        if not what:
            await reply_to(
                delivery, message, texts.get("moderation-rules-card", language, **_shown(settings, words, texts))
            )
            return
        changed = changed_by(settings, what.lower(), value.strip())
        if changed is not None:
            await groups.put(changed)
        key = "moderation-rules-usage" if changed is None else "moderation-rules-saved"
        await reply_to(delivery, message, texts.get(key, language))

    return router


def switched(rules: RuleSet, what: str) -> RuleSet:
    """The rules with one of them switched on or off, or to its next value."""
    match what:
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


def changed_by(settings: GroupSettings, what: str, value: str) -> GroupSettings | None:
    """The settings after a `/rules` command; None for one that is not understood, or too long."""
    rules = settings.rules
    if what == "text":
        return replace(settings, house_rules=value) if len(value) <= LONGEST_HOUSE_RULES else None
    if not value:
        return None
    others = tuple(label for label in rules.banned if label != value)
    elsewhere = tuple(name for name in rules.domains if name != value)
    match what:
        case "ban":
            rules = replace(rules, banned=(*others, value))
        case "unban":
            rules = replace(rules, banned=others)
        case "domain":
            rules = replace(rules, domains=(*elsewhere, value))
        case "undomain":
            rules = replace(rules, domains=elsewhere)
        case _:
            return None
    try:
        # What is stored has to be readable again: the limits of the form hold.
        return replace(settings, rules=RuleSet.from_json(rules.as_json()))
    except ValueError:
        return None


def _next(values: tuple[Option, ...], now: Option) -> Option:
    return values[(values.index(now) + 1) % len(values)]


def _shown(settings: GroupSettings, words: str, texts: Texts) -> dict[str, str]:
    rules, language = settings.rules, settings.language
    nothing = texts.get("moderation-no", language)
    return {
        "words": words,
        "links": label(texts, language, "moderation-links", rules.links),
        "forwards": label(texts, language, "moderation-whom", rules.forwards),
        "banned": ", ".join(rules.banned)[:LONGEST_LISTS] or nothing,
        "domains": ", ".join(rules.domains)[:LONGEST_LISTS] or nothing,
    }
