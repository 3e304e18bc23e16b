"""Handlers of `/moderation`, `/rules` and of the buttons under a group's settings."""

from aiogram import Router
from aiogram.filters import CommandObject
from aiogram.types import CallbackQuery, Message

from bot.telegram.api.filters import Command
from bot.telegram.api.group_admins import GroupAdmins
from bot.telegram.api.updates import is_group
from bot.telegram.delivery.delivery import Delivery
from bot.telegram.delivery.replies import Replies, edit_text, reply_to
from bot.telegram.markdown.render import Rendered
from bot.telegram.moderation.admin_acts import AdminActs
from bot.telegram.moderation.setting_changes import apply_rule_command, read_number, toggle_rule
from bot.telegram.moderation.settings_card import ChangeSetting, SettingsCard
from core.i18n import Texts
from services.moderation.domain.ports import Standing
from services.moderation.domain.settings import GroupSettings, Mode, Preset
from services.moderation.records.groups import GroupStore, RemoteJudgingConsent

NUMBER_RANGES = {"budget": (0, 100_000), "reports": (1, 100)}
"""Smallest and largest value of each numeric setting."""
MAX_DETAIL = 200
"""Characters of a changed rule in the audit log."""


class SettingsHandlers:
    """Shows and changes a group's settings; members may only read its rules."""

    def __init__(
        self,
        *,
        groups: GroupStore,
        consent: RemoteJudgingConsent,
        admins: GroupAdmins,
        card: SettingsCard,
        acts: AdminActs,
        delivery: Delivery,
        texts: Texts,
        starts_dry: bool,
    ) -> None:
        self._groups = groups
        self._consent = consent
        self._admins = admins
        self._card = card
        self._acts = acts
        self._replies = Replies(delivery, texts)
        self._delivery = delivery
        self._texts = texts
        self._first_mode = Mode.DRY if starts_dry else Mode.ENFORCE

    def router(self) -> Router:
        """Returns the router."""
        router = Router(name="moderation settings")
        router.message.register(self.moderation, Command("moderation"))
        router.message.register(self.rules, Command("rules"))
        router.callback_query.register(self.change_setting, ChangeSetting.filter())
        return router

    async def moderation(self, message: Message, command: CommandObject) -> None:
        """Sends the settings or the statistics, or changes a setting."""
        if not is_group(message):
            await self._replies.say(message, "moderation-groups-only")
            return
        denial = await self._acts.find_author_denial(message)
        if denial is not None:
            await self._replies.say(message, denial)
            return
        settings = await self._card.read_settings(message)
        match (command.args or "").lower().split():
            case []:
                await reply_to(self._delivery, message, *await self._card.render(settings))
            case ["on"]:
                await self._switch_mode(message, settings, settings.mode if settings.is_on else self._first_mode)
            case [("off" | "dry" | "enforce") as mode]:
                await self._switch_mode(message, settings, Mode(mode))
            case ["stats"]:
                await reply_to(self._delivery, message, await self._card.render_statistics(settings))
            case ["cards", target]:
                await self._direct_cards(message, settings, target)
            case [("budget" | "reports") as name, value]:
                await self._set_number(message, settings, name, value)
            case _:
                await self._replies.say(message, "moderation-usage", settings.language)

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
            await self._groups.change(settings, rules=changed.rules, house_rules=changed.house_rules)
            await self._acts.record(message, "rules", f"{verb.lower()} {value.strip()}"[:MAX_DETAIL])
        key = "moderation-rules-usage" if changed is None else "moderation-rules-saved"
        await self._replies.say(message, key, language)

    async def change_setting(self, query: CallbackQuery, callback_data: ChangeSetting) -> None:
        """Changes the setting of a pressed button, or turns between the settings and the rules."""
        message = query.message
        if not isinstance(message, Message):
            await self._replies.alert(query, "moderation-card-gone")
            return
        denial = await self._acts.find_denial(message.chat.id, query.from_user.id)
        if denial is not None:
            await self._replies.alert(query, denial)
            return
        settings = await self._change(query, message, callback_data.what, callback_data.value)
        if settings is None:
            await self._replies.alert(query, "moderation-cards-unreachable")
            return
        await self._delivery.answer_callback(query.id)
        page = "rules" if callback_data.what == "rule" else callback_data.value
        if callback_data.what != "page":
            await self._acts.record(query, callback_data.what, callback_data.value)
        text, markup = await self._card.render_page(settings, page)
        await edit_text(self._delivery, message, text, markup)

    async def _switch_mode(self, message: Message, settings: GroupSettings, mode: Mode) -> None:
        await self._groups.change(settings, mode=mode)
        await self._acts.record(message, "mode", mode.value)
        if mode is Mode.OFF:
            await self._replies.say(message, "moderation-switched-off", settings.language)
            return
        paragraphs = [self._texts.get(f"moderation-on-{mode}", settings.language)]
        if await self._admins.missing_rights(message.chat.id):
            paragraphs.append(self._texts.get("moderation-needs-rights", settings.language))
        await reply_to(self._delivery, message, "\n\n".join(paragraphs))

    async def _direct_cards(self, message: Message, settings: GroupSettings, target: str) -> None:
        """Directs the cards to the group, to the admin who asks, or to another chat in which they are an admin."""
        user, chat_id = message.from_user, None
        if target != "here":
            is_known = user is not None and message.sender_chat is None
            chat_id = user.id if target == "me" and user is not None else await self._admins.find_chat(target)
            if not is_known or user is None or chat_id is None:
                await self._replies.say(message, "moderation-cards-no-chat", settings.language)
                return
            if chat_id < 0 and await self._admins.fetch_standing(chat_id, user.id) is not Standing.ADMIN:
                await self._replies.say(message, "moderation-cards-not-admin", settings.language)
                return
            chat_id = None if chat_id == settings.group_id else chat_id
        if chat_id is not None and not await self._greet(chat_id, message, settings):
            key = "moderation-cards-unreachable" if chat_id > 0 else "moderation-cards-no-chat"
            await self._replies.say(message, key, settings.language)
            return
        changed = await self._groups.change(settings, cards_to=chat_id)
        await self._acts.record(message, "cards", str(chat_id or "here"))
        await reply_to(self._delivery, message, *await self._card.render(changed))

    async def _greet(self, chat_id: int, message: Message, settings: GroupSettings) -> bool:
        """Announces the cards in the chat that gets them; returns False if the bot cannot write there.

        Telegram lets a bot write only to users who have started it.
        """
        hello = self._texts.get("moderation-cards-hello", settings.language, group=message.chat.full_name)
        return await self._delivery.send(chat_id, Rendered(hello)) is not None

    async def _set_number(self, message: Message, settings: GroupSettings, name: str, value: str) -> None:
        least, most = NUMBER_RANGES[name]
        number = read_number(value, least, most)
        if number is None:
            await self._replies.say(message, "moderation-number-needed", settings.language, least=least, most=most)
            return
        await self._acts.record(message, name, value)
        field = "budget" if name == "budget" else "report_threshold"
        changed = await self._groups.change(settings, **{field: number})
        await reply_to(self._delivery, message, *await self._card.render(changed))

    async def _change(self, query: CallbackQuery, message: Message, name: str, value: str) -> GroupSettings | None:
        """Changes one setting; returns None if the cards were to be sent to an admin that the bot cannot write to."""
        settings = await self._card.read_settings(message)
        match name, value:
            case "mode", _:
                changes = {"mode": Mode(value)}
            case "preset", _:
                changes = {"preset": Preset(value)}
            case "language", _ if value in self._texts.languages:
                changes = {"language": value}
            case "ban", _:
                changes = {"ban_allowed": value == "1"}
            case "remote", _:
                return await self._consent.switch(settings, allowed=value == "1")
            case "cards", "me":
                if not await self._greet(query.from_user.id, message, settings):
                    return None
                changes = {"cards_to": query.from_user.id}
            case "cards", _:
                changes = {"cards_to": None}
            case "rule", _:
                changes = {"rules": toggle_rule(settings.rules, value)}
            case _:
                return settings
        return await self._groups.change(settings, **changes)
