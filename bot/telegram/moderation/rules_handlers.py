"""Handler of `/rules`: members read a group's rules, admins change them."""

from aiogram import Router
from aiogram.filters import CommandObject
from aiogram.types import Message

from bot.telegram.api.commands import Command
from bot.telegram.api.group_admins import GroupAdmins
from bot.telegram.api.messages import is_group, message_speaker
from bot.telegram.delivery.delivery import Delivery
from bot.telegram.delivery.replies import reply_to
from bot.telegram.moderation.labels import label
from bot.telegram.moderation.rule_changes import apply_rule_command
from bot.telegram.moderation.settings_card import SettingsCard
from core.i18n import Texts
from services.moderation.domain.ports import Standing
from services.moderation.domain.settings import GroupSettings
from services.moderation.records.groups import GroupStore

MAX_LIST = 500
"""Characters shown of the banned words, and of the domains."""


class RulesHandlers:
    """Shows and changes the rules."""

    def __init__(
        self, *, groups: GroupStore, admins: GroupAdmins, card: SettingsCard, delivery: Delivery, texts: Texts
    ) -> None:
        self._groups = groups
        self._admins = admins
        self._card = card
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
            await self._reply(message, "moderation-groups-only", message_speaker(message).language)
            return
        settings = await self._card.read_settings(message)
        language = settings.language
        house_rules = settings.house_rules or self._texts.get("moderation-rules-none", language)
        verb, _, value = (command.args or "").partition(" ")
        standing = await self._admins.fetch_author_standing(message)
        if standing is Standing.UNKNOWN and verb:
            await self._reply(message, "rights-unknown", language)
            return
        if standing is not Standing.ADMIN:
            await self._reply(message, "moderation-rules-for-members", language, words=house_rules)
            return
        if not verb:
            await self._reply(message, "moderation-rules-card", language, **self._describe(settings, house_rules))
            return
        changed = apply_rule_command(settings, verb.lower(), value.strip())
        if changed is not None:
            await self._groups.put(changed)
        key = "moderation-rules-usage" if changed is None else "moderation-rules-saved"
        await self._reply(message, key, language)

    def _describe(self, settings: GroupSettings, house_rules: str) -> dict[str, str]:
        rules, language = settings.rules, settings.language
        nothing = self._texts.get("moderation-no", language)
        return {
            "words": house_rules,
            "links": label(self._texts, language, "moderation-links", rules.links),
            "forwards": label(self._texts, language, "moderation-whom", rules.forwards),
            "banned": ", ".join(rules.banned)[:MAX_LIST] or nothing,
            "domains": ", ".join(rules.domains)[:MAX_LIST] or nothing,
        }

    async def _reply(self, message: Message, key: str, language: str | None, **arguments: str) -> None:
        await reply_to(self._delivery, message, self._texts.get(key, language, **arguments))
