"""Handlers of `/rules` and its buttons: show a group's rules and change them."""

from dataclasses import replace
from typing import TypeVar

from aiogram import Router
from aiogram.filters import CommandObject
from aiogram.types import Message

from bot.telegram.api.filters import Command
from bot.telegram.api.group_admins import GroupAdmins
from bot.telegram.api.updates import is_group
from bot.telegram.delivery.delivery import Delivery
from bot.telegram.delivery.replies import Replies, reply_to
from bot.telegram.moderation.labels import ModerationAudit
from bot.telegram.moderation.settings_card import SettingsCard
from core.i18n import Texts
from services.moderation.domain.message import MediaKind
from services.moderation.domain.ports import Standing
from services.moderation.domain.settings import AppliesTo, Duplicates, Flood, GroupSettings, LinkPolicy, RuleSet
from services.moderation.records.groups import GroupStore

Option = TypeVar("Option")

MAX_HOUSE_RULES = 2000
"""Characters."""
MAX_DETAIL = 200
"""Characters of a changed rule in the audit log."""
NEWCOMER_MEDIA = (
    MediaKind.PHOTO, MediaKind.VIDEO, MediaKind.VOICE, MediaKind.VIDEO_NOTE, MediaKind.ANIMATION, MediaKind.STICKER,
    MediaKind.DOCUMENT, MediaKind.STORY,
)  # fmt: skip


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


def _next(values: tuple[Option, ...], current: Option) -> Option:
    return values[(values.index(current) + 1) % len(values)]


class RulesHandlers:
    """Shows and changes the rules."""

    def __init__(
        self,
        *,
        groups: GroupStore,
        admins: GroupAdmins,
        card: SettingsCard,
        audit: ModerationAudit,
        delivery: Delivery,
        texts: Texts,
    ) -> None:
        self._audit = audit
        self._groups = groups
        self._admins = admins
        self._card = card
        self._replies = Replies(delivery, texts)
        self._delivery = delivery
        self._texts = texts

    def router(self) -> Router:
        """Returns the router."""
        router = Router(name="rules")
        router.message.register(self.rules, Command("rules"))
        return router

    async def rules(self, message: Message, command: CommandObject) -> None:
        """Sends the rules, or for an admin changes them."""
        if not is_group(message):
            await self._replies.say(message, "moderation-groups-only")
            return
        settings = await self._card.read_settings(message)
        language = settings.language
        house_rules = settings.house_rules or self._texts.get("moderation-rules-none", language)
        verb, _, value = (command.args or "").partition(" ")
        standing = await self._admins.fetch_author_standing(message)
        if standing is Standing.UNKNOWN and verb:
            await self._replies.say(message, "rights-unknown", language)
            return
        if standing is not Standing.ADMIN:
            await self._replies.say(message, "moderation-rules-for-members", language, words=house_rules)
            return
        if not verb:
            await reply_to(self._delivery, message, self._card.render_lists(settings))
            return
        changed = apply_rule_command(settings, verb.lower(), value.strip())
        if changed is not None:
            await self._groups.put(changed)
            await self._audit.record(message, "rules", f"{verb.lower()} {value.strip()}"[:MAX_DETAIL])
        key = "moderation-rules-usage" if changed is None else "moderation-rules-saved"
        await self._replies.say(message, key, language)
