"""Handlers of `/spam`, `/ham`, `/warn`, `/unwarn`, `/report`, and of the buttons under incident cards."""

from collections.abc import Awaitable, Callable
from typing import Any

from aiogram import Router
from aiogram.types import CallbackQuery, Message, TelegramObject

from bot.command_table import COMMANDS, CommandScope
from bot.telegram.api.filters import Command
from bot.telegram.api.updates import message_speaker
from bot.telegram.delivery.delivery import Delivery
from bot.telegram.delivery.replies import Replies
from bot.telegram.moderation.admin_acts import AdminActs
from bot.telegram.moderation.cards import ResolveIncident
from bot.telegram.moderation.messages import to_author, to_group_message
from core.i18n import Texts
from services.admin.audit import AuditDetail
from services.moderation.actions import ModerationActions, ReportResult, ResolveResult, WarnResult
from services.moderation.domain.incident import Incident, Resolution
from services.moderation.domain.settings import GroupSettings
from services.moderation.records.groups import GroupStore
from services.moderation.records.incidents import IncidentStore
from services.moderation.screening.exemptions import Exemption

RESOLVE_REPLIES = {
    ResolveResult.DONE: "moderation-resolved",
    ResolveResult.TOO_LATE: "moderation-too-late",
    ResolveResult.PROTECTED: "moderation-author-exempt",
    ResolveResult.UNKNOWN: "moderation-author-unknown",
}
CARD_DECISIONS = {"ham": Resolution.UNDO, "spam": Resolution.CONFIRM}
"""Commands that decide an incident in reply to its card."""
REPORT_REPLIES = {
    ReportResult.TAKEN: "moderation-report-taken",
    ReportResult.AGAIN: "moderation-report-again",
    ReportResult.TOO_MANY: "moderation-report-too-many",
    ReportResult.EXEMPT: "moderation-author-exempt",
}


class ModerationHandlers:
    """Carries out admins' decisions about messages and incidents, and members' reports.

    Every command replies to the message that it is about; the handlers get that as `target`, and the group's
    `settings`, and return whether the order was carried out.
    """

    def __init__(
        self,
        *,
        actions: ModerationActions,
        incidents: IncidentStore,
        groups: GroupStore,
        acts: AdminActs,
        delivery: Delivery,
        texts: Texts,
    ) -> None:
        self._actions = actions
        self._incidents = incidents
        self._groups = groups
        self._acts = acts
        self._replies = Replies(delivery, texts)
        self._delivery = delivery
        self._texts = texts

    def router(self) -> Router:
        """Returns the router."""
        router, commands = Router(name="moderation"), Router(name="moderation commands")
        commands.message.middleware(self._check_command)
        commands.message.register(self.spam, Command("spam"))
        commands.message.register(self.ham, Command("ham"))
        commands.message.register(self.warn, Command("warn"))
        commands.message.register(self.unwarn, Command("unwarn"))
        commands.message.register(self.report, Command("report"))
        router.include_router(commands)
        router.callback_query.register(self.resolve, ResolveIncident.filter())
        return router

    async def spam(self, message: Message, settings: GroupSettings, target: Message) -> bool:
        """Deletes a message as spam."""
        by = message_speaker(message).name
        incident = await self._actions.mark_spam(to_group_message(target), settings, by)
        is_exempt = isinstance(incident, Exemption)
        key = _exempt_reply(incident) if is_exempt else "moderation-spam-done"
        await self._replies.say(message, key, settings.language)
        return not is_exempt

    async def ham(self, message: Message, settings: GroupSettings, target: Message) -> bool:
        """Marks a message as not spam."""
        await self._actions.mark_ham(to_group_message(target), settings, message_speaker(message).name)
        await self._replies.say(message, "moderation-ham-done", settings.language)
        return True

    async def warn(self, message: Message, settings: GroupSettings, target: Message) -> bool:
        """Warns the author of a message, in reply to that message."""
        warned = await self._actions.warn(to_group_message(target), settings)
        if not isinstance(warned, WarnResult):
            await self._replies.say(message, _exempt_reply(warned), settings.language)
            return False
        key = "moderation-warned-muted" if warned.is_muted else "moderation-warned"
        await self._replies.say(target, key, settings.language, name=to_author(target).name, count=warned.count)
        return True

    async def unwarn(self, message: Message, settings: GroupSettings, target: Message) -> bool:
        """Takes back the author's latest warning."""
        left = await self._actions.unwarn(to_group_message(target))
        if left is None:
            await self._replies.say(message, "moderation-no-warning", settings.language)
            return False
        await self._replies.say(message, "moderation-unwarned", settings.language, count=left)
        return True

    async def report(self, message: Message, settings: GroupSettings, target: Message) -> bool:
        """Records a member's report of a message."""
        reporter = to_author(message)
        result = await self._actions.report(to_group_message(target), reporter.id, settings)
        await self._replies.say(message, REPORT_REPLIES[result], settings.language)
        return result is ReportResult.TAKEN

    async def resolve(self, query: CallbackQuery, callback_data: ResolveIncident) -> None:
        """Carries out an admin's decision about an incident; its card may be in the group or in a private chat."""
        language = query.from_user.language_code
        incident = await self._incidents.get(callback_data.incident)
        settings = await self._groups.get(incident.finding.group_id) if incident is not None else None
        if incident is None or settings is None:
            await self._replies.alert(query, "moderation-card-gone")
            return
        denial = await self._acts.find_denial(settings.group_id, query.from_user.id)
        if denial is not None:
            await self._replies.alert(query, denial)
            return
        result, _ = await self._actions.resolve(incident, callback_data.what, settings, query.from_user.full_name)
        if result is ResolveResult.DONE:
            await self._acts.record(
                query, callback_data.what, AuditDetail("incident", {"id": incident.id}), settings.group_id
            )
        text = self._texts.get(RESOLVE_REPLIES[result], language)
        is_refused = result in {ResolveResult.PROTECTED, ResolveResult.UNKNOWN}
        await self._delivery.answer_callback(query.id, text, alert=is_refused)

    async def _check_command(
        self,
        handler: Callable[[TelegramObject, dict[str, Any]], Awaitable[Any]],
        event: TelegramObject,
        data: dict[str, Any],
    ) -> object:
        """Runs a command only in a moderated group, in reply to a message, and an admin command only for admins."""
        if not isinstance(event, Message):
            return None
        decision = CARD_DECISIONS.get(data["command"].command)
        incident = await self._find_card(event) if decision is not None else None
        if decision is not None and incident is not None:
            return await self._decide(event, incident, decision)
        command = data["command"].command
        is_admin_only = COMMANDS[command].scope is CommandScope.GROUP_ADMINS
        settings = await self._acts.find_settings(event, admins_only=is_admin_only)
        if settings is None:
            return None
        target = event.reply_to_message
        if target is None or target.forum_topic_created is not None:
            return await self._replies.say(event, "moderation-reply-needed", settings.language)
        is_done = await handler(event, data | {"settings": settings, "target": target})
        if is_done and is_admin_only:
            await self._acts.record(event, command, AuditDetail("message", {"id": target.message_id}))
        return is_done

    async def _find_card(self, message: Message) -> Incident | None:
        """Returns the incident of the card that a command replies to, in any chat."""
        target = message.reply_to_message
        return None if target is None else await self._incidents.find_by_card(target.chat.id, target.message_id)

    async def _decide(self, message: Message, incident: Incident, decision: Resolution) -> None:
        """Carries out a command in reply to a card; its author has to be an admin of the moderated group."""
        group_id = incident.finding.group_id
        settings = await self._groups.get(group_id)
        if settings is None:
            return await self._replies.say(message, "moderation-card-gone")
        author_id = message.from_user.id if message.from_user is not None else 0
        is_inside = message.chat.id == group_id
        asked = self._acts.find_author_denial(message) if is_inside else self._acts.find_denial(group_id, author_id)
        denial = await asked
        if denial is not None:
            return await self._replies.say(message, denial)
        result, _ = await self._actions.resolve(incident, decision, settings, message_speaker(message).name)
        is_done = result is ResolveResult.DONE
        if is_done:
            await self._acts.record(message, decision.value, AuditDetail("incident", {"id": incident.id}), group_id)
        key = "moderation-ham-done" if is_done and decision is Resolution.UNDO else RESOLVE_REPLIES[result]
        return await self._replies.say(message, key, settings.language)


def _exempt_reply(exemption: Exemption | None) -> str:
    """Returns the text key for an order against an author who may not be sanctioned."""
    return "moderation-author-unknown" if exemption is Exemption.ADMINS_UNKNOWN else "moderation-author-exempt"
