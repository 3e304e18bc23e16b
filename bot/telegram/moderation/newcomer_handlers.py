"""Handlers of `/newcomers`, `/raid`, `/trust`, `/untrust`, `/lock`, `/unlock`, and of presses at the gate."""

from aiogram import Router
from aiogram.filters import CommandObject
from aiogram.types import CallbackQuery, Message

from bot.telegram.api.filters import Command
from bot.telegram.api.updates import is_group
from bot.telegram.delivery.delivery import Delivery
from bot.telegram.delivery.replies import Replies, reply_to
from bot.telegram.moderation.admin_acts import AdminActs
from bot.telegram.moderation.gate_messages import GatePress, read_group
from bot.telegram.moderation.messages import to_author
from bot.telegram.moderation.setting_changes import LOCKABLE, lock_kind, read_number
from core.i18n import Texts
from services.moderation.domain.settings import AppliesTo, GroupSettings, LinkPolicy
from services.moderation.newcomers.gate import AnswerResult
from services.moderation.newcomers.newcomers import Newcomers
from services.moderation.records.groups import GroupStore

LARGEST_RATE = 1000
LARGEST_BUDGET = 10_000


class NewcomerHandlers:
    """Shows and changes how people who join are treated, and lets them pass the gate."""

    def __init__(
        self,
        *,
        newcomers: Newcomers,
        groups: GroupStore,
        acts: AdminActs,
        delivery: Delivery,
        texts: Texts,
    ) -> None:
        self._newcomers = newcomers
        self._groups = groups
        self._acts = acts
        self._replies = Replies(delivery, texts)
        self._delivery = delivery
        self._texts = texts

    def router(self) -> Router:
        """Returns the router; it comes before the one that answers `/start`."""
        router = Router(name="newcomers")
        router.message.register(self.newcomers, Command("newcomers"))
        router.message.register(self.raid, Command("raid"))
        router.message.register(self.trust, Command("trust"))
        router.message.register(self.trust, Command("untrust"))
        router.message.register(self.lock, Command("lock"))
        router.message.register(self.lock, Command("unlock"))
        router.message.register(self.start, Command("start"), _leads_to_gate)
        router.callback_query.register(self.press, GatePress.filter())
        return router

    async def newcomers(self, message: Message, command: CommandObject) -> None:
        """Shows the settings for newcomers, or changes one."""
        settings = await self._acts.find_settings(message)
        if settings is None:
            return
        store, group_id = self._newcomers.store, settings.group_id
        match (command.args or "").lower().split():
            case []:
                pass
            case ["gate", ("off" | "button" | "question") as gate]:
                await store.change(group_id, gate=gate)
            case ["raid", text] if (rate := read_number(text, 0, LARGEST_RATE)) is not None:
                await store.change(group_id, raid_rate=rate)
            case ["pictures", "off"]:
                await store.change(group_id, pictures=0)
            case ["pictures", text] if (budget := read_number(text, 0, LARGEST_BUDGET)) is not None:
                await store.change(group_id, pictures=budget)
            case ["cleanup", ("on" | "off") as state]:
                await store.change(group_id, cleanup=state == "on")
            case _:
                await self._replies.say(message, "moderation-newcomers-usage", settings.language)
                return
        if command.args:
            await self._acts.record(message, "newcomers", command.args.lower())
        await self._show(message, settings)

    async def raid(self, message: Message, command: CommandObject) -> None:
        """Starts or ends a raid by hand."""
        settings = await self._acts.find_settings(message)
        if settings is None:
            return
        match (command.args or "").lower().split():
            case ["on"]:
                await self._acts.record(message, "raid", "on")
                await self._newcomers.start_raid(settings)
            case ["off"]:
                await self._acts.record(message, "raid", "off")
                key = "moderation-raid-ended" if await self._newcomers.stop_raid(settings) else "moderation-raid-none"
                await self._replies.say(message, key, settings.language)
            case _:
                await self._replies.say(message, "moderation-raid-usage", settings.language)

    async def trust(self, message: Message, command: CommandObject) -> None:
        """Makes the author of a message an established member, or a newcomer again."""
        settings = await self._acts.find_settings(message)
        if settings is None:
            return
        target = message.reply_to_message
        if target is None or target.forum_topic_created is not None:
            await self._replies.say(message, "moderation-reply-needed", settings.language)
            return
        member = to_author(target)
        await self._acts.record(message, command.command, str(member.id))
        if command.command == "trust":
            await self._newcomers.trust(settings.group_id, member.id)
            await self._replies.say(message, "moderation-trusted", settings.language, name=member.name)
        else:
            await self._newcomers.store.forget_history(settings.group_id, member.id)
            await self._replies.say(message, "moderation-untrusted", settings.language, name=member.name)

    async def lock(self, message: Message, command: CommandObject) -> None:
        """Forbids newcomers a kind of content, or allows it again; alone it shows the kinds."""
        settings = await self._acts.find_settings(message)
        if settings is None:
            return
        kind = (command.args or "").strip().lower()
        if not kind:
            await self._show(message, settings)
        elif kind not in LOCKABLE:
            await self._replies.say(message, "moderation-lock-usage", settings.language, kinds=", ".join(LOCKABLE))
        else:
            # Those of a second ago would undo what another replica has stored since.
            settings = await self._groups.read(settings.group_id) or settings
            rules = lock_kind(settings.rules, kind, locked=command.command == "lock")
            await self._acts.record(message, command.command, kind)
            await self._show(message, await self._groups.change(settings, rules=rules))

    async def start(self, message: Message, command: CommandObject) -> None:
        """Asks the question of a group's gate in private."""
        group_id = read_group(command.args)
        settings = await self._groups.get(group_id) if group_id is not None else None
        user = message.from_user
        if settings is None or user is None or is_group(message):
            await self._replies.say(message, "moderation-gate-nothing")
            return
        refusal = await self._newcomers.gate.ask(settings.group_id, user.id, settings)
        if refusal is not None:
            await self._replies.say(message, f"moderation-gate-{refusal.value}", settings.language)

    async def press(self, query: CallbackQuery, callback_data: GatePress) -> None:
        """Lets a person pass, checks their answer, or ends a raid for an admin."""
        settings = await self._groups.get(callback_data.group_id)
        if settings is None:
            await self._replies.alert(query, "moderation-gate-nothing")
            return
        group_id, user_id = settings.group_id, query.from_user.id
        match callback_data.what:
            case "pass":
                result = await self._newcomers.gate.press(group_id, user_id)
            case "answer":
                result = await self._newcomers.gate.answer(group_id, user_id, callback_data.value)
            case "end":
                await self._replies.alert(query, await self._end_raid(query, settings))
                return
        await self._replies.alert(query, f"moderation-gate-{result.value}")
        message = query.message
        if result is AnswerResult.PASSED and isinstance(message, Message) and not is_group(message):
            await self._delivery.edit_markup(message.chat.id, message.message_id, None)
        elif result is AnswerResult.WRONG and isinstance(message, Message) and not is_group(message):
            await self._delivery.delete(message.chat.id, message.message_id)

    async def _end_raid(self, query: CallbackQuery, settings: GroupSettings) -> str:
        """Ends a raid for an admin; returns the text key of the result."""
        denial = await self._acts.find_denial(settings.group_id, query.from_user.id)
        if denial is not None:
            return denial
        await self._acts.record(query, "raid", "off", settings.group_id)
        return "moderation-raid-ended" if await self._newcomers.stop_raid(settings) else "moderation-raid-none"

    async def _show(self, message: Message, settings: GroupSettings) -> None:
        texts, language, rules = self._texts, settings.language, settings.rules
        entry = await self._newcomers.store.entry(settings.group_id, fresh=True)
        locked = [kind.value for kind in rules.newcomer_media]
        locked += ["links"] if rules.links is LinkPolicy.NOT_FROM_NEWCOMERS else []
        locked += ["forwards"] if rules.forwards is AppliesTo.NEWCOMERS else []
        no, none = texts.get("moderation-no", language), texts.get("moderation-none", language)
        text = texts.get(
            "moderation-newcomers",
            language,
            gate=texts.get(f"moderation-gate-kind-{entry.gate}", language),
            rate=str(entry.raid_rate) if entry.raid_rate else none,
            cleanup=texts.get("moderation-yes", language) if entry.cleanup else no,
            pictures=str(entry.pictures) if entry.pictures else none,
            locked=", ".join(locked) or texts.get("moderation-nothing", language),
        )
        await reply_to(self._delivery, message, text)


async def _leads_to_gate(_message: Message, command: CommandObject) -> bool:
    return read_group(command.args) is not None
