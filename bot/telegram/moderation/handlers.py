"""Moderation by command: `/spam`, `/ham`, `/warn`, `/unwarn` of admins, `/report` of members."""

from collections.abc import Awaitable, Callable
from typing import Any

from aiogram import BaseMiddleware, Router
from aiogram.filters import Command
from aiogram.types import CallbackQuery, Message, TelegramObject

from bot.telegram.api.group_admins import GroupAdmins
from bot.telegram.api.messages import is_group, message_speaker
from bot.telegram.delivery.delivery import Delivery
from bot.telegram.delivery.replies import reply_to
from bot.telegram.moderation.keyboards import Resolve
from bot.telegram.moderation.messages import to_author, to_group_message
from core.i18n import Texts
from services.moderation.actions import ModerationActions, ResolveResult
from services.moderation.domain.incident import Resolution
from services.moderation.domain.settings import GroupSettings
from services.moderation.records.groups import GroupStore
from services.moderation.records.incidents import IncidentStore

ADMIN_COMMANDS = ("spam", "ham", "warn", "unwarn")


class ByAdmins:
    """Knows whether somebody acts as an admin of a group: by themselves, or anonymously in its name."""

    def __init__(self, admins: GroupAdmins) -> None:
        self._admins = admins

    async def wrote(self, message: Message) -> bool:
        """Whether an admin wrote a message of a group."""
        if message.sender_chat is not None:
            return message.sender_chat.id == message.chat.id
        user = message.from_user
        return user is not None and await self._admins.is_admin(message.chat.id, user.id)

    async def pressed(self, query: CallbackQuery, group_id: int) -> bool:
        """Whether an admin of that group pressed a button, wherever it stands."""
        return await self._admins.is_admin(group_id, query.from_user.id)


class _Meant(BaseMiddleware):
    """Lets only commands through that are said where they mean something, by whom they are for.

    Hands on `settings`, those of the group, and `about`, the message that is replied to.
    """

    def __init__(self, groups: GroupStore, admins: ByAdmins, say: Callable[..., Awaitable[None]]) -> None:
        self._groups = groups
        self._admins = admins
        self._say = say

    async def __call__(
        self,
        handler: Callable[[TelegramObject, dict[str, Any]], Awaitable[Any]],
        event: TelegramObject,
        data: dict[str, Any],
    ) -> Any:  # noqa: ANN401 - aiogram's own signature
        """Hand on, or say why not."""
        if not isinstance(event, Message):
            return None
        if not is_group(event):
            return await self._say(event, "moderation-groups-only")
        word = (event.text or "").split(maxsplit=1)[0].lstrip("/").partition("@")[0].lower()
        if word in ADMIN_COMMANDS and not await self._admins.wrote(event):
            return await self._say(event, "moderation-admins-only")
        settings = await self._groups.get(event.chat.id)
        if settings is None or not settings.is_on:
            return await self._say(event, "moderation-off-here")
        about = event.reply_to_message
        if about is None or about.forum_topic_created is not None:
            return await self._say(event, "moderation-reply-needed", settings.language)
        return await handler(event, data | {"settings": settings, "about": about})


def moderation_router(
    *,
    groups: GroupStore,
    admins: GroupAdmins,
    incidents: IncidentStore,
    actions: ModerationActions,
    delivery: Delivery,
    texts: Texts,
) -> Router:
    """The handlers of moderation's commands and of the buttons under its cards."""
    router = Router(name="moderation")
    by_admins = ByAdmins(admins)

    async def say(message: Message, key: str, language: str | None = None, **arguments: str | int) -> None:
        language = language or message_speaker(message).language
        await reply_to(delivery, message, texts.get(key, language, **arguments))

    commands = Router(name="moderation commands")
    commands.message.middleware(_Meant(groups, by_admins, say))
    router.include_router(commands)

    @commands.message(Command("spam"))
    async def spam(message: Message, settings: GroupSettings, about: Message) -> None:
        incident = await actions.mark_spam(to_group_message(about), settings, message_speaker(message).name)
        await say(
            message, "moderation-author-exempt" if incident is None else "moderation-spam-done", settings.language
        )

    @commands.message(Command("ham"))
    async def ham(message: Message, settings: GroupSettings, about: Message) -> None:
        by = message_speaker(message).name
        incident = await incidents.find_by_card(about.chat.id, about.message_id)
        if incident is not None:
            await actions.resolve(incident, Resolution.UNDO, settings, by)
        else:
            await actions.mark_ham(to_group_message(about), settings, by)
        await say(message, "moderation-ham-done", settings.language)

    @commands.message(Command("warn"))
    async def warn(message: Message, settings: GroupSettings, about: Message) -> None:
        warned = await actions.warn(to_group_message(about), settings)
        if warned is None:
            await say(message, "moderation-author-exempt", settings.language)
            return
        key = "moderation-warned-muted" if warned.is_muted else "moderation-warned"
        await say(about, key, settings.language, name=to_author(about).name, count=warned.count)

    @commands.message(Command("unwarn"))
    async def unwarn(message: Message, settings: GroupSettings, about: Message) -> None:
        left = await actions.unwarn(to_group_message(about))
        if left is None:
            await say(message, "moderation-no-warning", settings.language)
        else:
            await say(message, "moderation-unwarned", settings.language, count=left)

    @commands.message(Command("report"))
    async def report(message: Message, settings: GroupSettings, about: Message) -> None:
        reporter = to_author(message)
        result = await actions.report(to_group_message(about), reporter.id, settings)
        await say(message, REPORT_ANSWERS[result.value], settings.language)

    @router.callback_query(Resolve.filter())
    async def resolve(query: CallbackQuery, callback_data: Resolve) -> None:
        language = query.from_user.language_code
        incident = await incidents.get(callback_data.incident)
        settings = await groups.get(incident.finding.group_id) if incident is not None else None
        if incident is None or settings is None:
            await delivery.answer_callback(query.id, texts.get("moderation-card-gone", language), alert=True)
            return
        if not await by_admins.pressed(query, settings.group_id):
            await delivery.answer_callback(query.id, texts.get("moderation-admins-only", language), alert=True)
            return
        resolved, _ = await actions.resolve(incident, callback_data.what, settings, query.from_user.full_name)
        key = "moderation-resolved" if resolved is ResolveResult.DONE else "moderation-too-late"
        await delivery.answer_callback(query.id, texts.get(key, language))

    return router


REPORT_ANSWERS = {
    "taken": "moderation-report-taken",
    "again": "moderation-report-again",
    "too_many": "moderation-report-too-many",
    "exempt": "moderation-author-exempt",
}
