"""`/moderation`: how a group wants to be moderated."""

from aiogram import Router
from aiogram.filters import Command, CommandObject
from aiogram.types import CallbackQuery, Message

from bot.telegram.api.group_admins import GroupAdmins
from bot.telegram.api.messages import is_group, message_speaker
from bot.telegram.delivery.delivery import Delivery
from bot.telegram.delivery.replies import reply_to
from bot.telegram.markdown.render import Rendered
from bot.telegram.moderation.handlers import ByAdmins
from bot.telegram.moderation.keyboards import Choose, rules_keyboard
from bot.telegram.moderation.labels import label
from bot.telegram.moderation.rules_handlers import switched
from bot.telegram.moderation.settings_card import SettingsCard
from core.i18n import Texts
from services.moderation.domain.settings import GroupSettings, Mode, Preset
from services.moderation.judging.consent import RemoteJudgingConsent
from services.moderation.records.groups import GroupStore

NUMBERS = {"budget": (0, 100_000), "reports": (1, 100)}
"""What a number may be."""


def moderation_settings_router(
    *,
    groups: GroupStore,
    admins: GroupAdmins,
    consent: RemoteJudgingConsent,
    cards: SettingsCard,
    delivery: Delivery,
    texts: Texts,
    starts_dry: bool,
) -> Router:
    """The handlers of the settings."""
    router = Router(name="moderation settings")
    by_admins = ByAdmins(admins)

    async def say(message: Message, key: str, language: str | None, **arguments: str | int) -> None:
        await reply_to(delivery, message, texts.get(key, language, **arguments))

    async def switch(message: Message, settings: GroupSettings, mode: Mode) -> None:
        await groups.change(settings, mode=mode)
        if mode is Mode.OFF:
            await say(message, "moderation-switched-off", settings.language)
            return
        said = [label(texts, settings.language, "moderation-on", mode)]
        if await admins.lacks(message.chat.id):
            said.append(texts.get("moderation-needs-rights", settings.language))
        await reply_to(delivery, message, "\n\n".join(said))

    async def set_number(message: Message, settings: GroupSettings, what: str, value: str) -> None:
        least, most = NUMBERS[what]
        if not value.isdecimal() or not least <= int(value) <= most:
            await say(message, "moderation-number-needed", settings.language, least=least, most=most)
            return
        number = int(value)
        changed = {"budget": number} if what == "budget" else {"report_threshold": number}
        await reply_to(delivery, message, *await cards.card(await groups.change(settings, **changed)))

    @router.message(Command("moderation"))
    async def command(message: Message, command: CommandObject) -> None:
        spoken = message_speaker(message).language
        if not is_group(message):
            await say(message, "moderation-groups-only", spoken)
            return
        if not await by_admins.wrote(message):
            await say(message, "moderation-admins-only", spoken)
            return
        settings = await cards.settings_at(message)
        match (command.args or "").lower().split():
            case []:
                await reply_to(delivery, message, *await cards.card(settings))
            case ["on"]:
                first = Mode.DRY if starts_dry else Mode.ENFORCE
                await switch(message, settings, settings.mode if settings.is_on else first)
            case [("off" | "dry" | "enforce") as mode]:
                await switch(message, settings, Mode(mode))
            case ["stats"]:
                await reply_to(delivery, message, await cards.statistics(settings))
            case [("budget" | "reports") as what, value]:
                await set_number(message, settings, what, value)
            case _:
                await say(message, "moderation-usage", settings.language)

    router.include_router(_buttons(groups, by_admins, consent, cards, delivery, texts))
    return router


def _buttons(
    groups: GroupStore,
    admins: ByAdmins,
    consent: RemoteJudgingConsent,
    cards: SettingsCard,
    delivery: Delivery,
    texts: Texts,
) -> Router:
    """The handler of the buttons under the settings."""
    router = Router(name="moderation buttons")

    async def send_cards_to(query: CallbackQuery, settings: GroupSettings, group: str) -> GroupSettings | None:
        """Whether an admin can have the cards: they can if the bot may write to them."""
        hello = Rendered(texts.get("moderation-cards-hello", settings.language, group=group))
        if await delivery.send(query.from_user.id, hello) is None:
            return None
        return await groups.change(settings, cards_to=query.from_user.id)

    @router.callback_query(Choose.filter())
    async def choose(query: CallbackQuery, callback_data: Choose) -> None:
        message, language = query.message, query.from_user.language_code
        if not isinstance(message, Message):
            await delivery.answer_callback(query.id, texts.get("moderation-card-gone", language), alert=True)
            return
        if not await admins.pressed(query, message.chat.id):
            await delivery.answer_callback(query.id, texts.get("moderation-admins-only", language), alert=True)
            return
        settings, what, value = await cards.settings_at(message), callback_data.what, callback_data.value
        if what == "remote":
            settings = await consent.switch(settings, allowed=value == "1")
        elif (what, value) == ("cards", "me"):
            changed = await send_cards_to(query, settings, message.chat.full_name)
            if changed is None:
                text = texts.get("moderation-cards-unreachable", language)
                await delivery.answer_callback(query.id, text, alert=True)
                return
            settings = changed
        else:
            settings = await _chosen(groups, settings, what, value)
        await delivery.answer_callback(query.id)
        text, markup = await cards.card(settings)
        if what == "rule" or value == "rules":
            markup = rules_keyboard(texts, settings)
        await delivery.edit(message.chat.id, message.message_id, Rendered(text), markup=markup, final=True)

    return router


async def _chosen(groups: GroupStore, settings: GroupSettings, what: str, value: str) -> GroupSettings:
    match what:
        case "mode":
            return await groups.change(settings, mode=Mode(value))
        case "preset":
            return await groups.change(settings, preset=Preset(value))
        case "language":
            return await groups.change(settings, language=value)
        case "ban":
            return await groups.change(settings, ban_allowed=value == "1")
        case "cards":
            return await groups.change(settings, cards_to=None)
        case "rule":
            return await groups.change(settings, rules=switched(settings.rules, value))
        case _:
            return settings
