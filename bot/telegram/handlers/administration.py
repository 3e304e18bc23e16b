"""Handlers of `/audit`, `/stats`, `/ban_user`, `/unban_user` and `/broadcast`; for other users these do not exist."""

import json

import structlog
from aiogram import Router
from aiogram.filters import CommandObject
from aiogram.filters.callback_data import CallbackData
from aiogram.types import CallbackQuery, InlineKeyboardMarkup, Message, MessageEntity
from pydantic import TypeAdapter

from bot.operators.audit import AuditReports, AuditText
from bot.operators.broadcasts import BroadcastReports
from bot.operators.people import BanCommands, StatisticsReports
from bot.telegram.answers.keyboards import build_keyboard, button
from bot.telegram.api.filters import Command, FromOperator
from bot.telegram.api.updates import is_group, message_speaker
from bot.telegram.delivery.delivery import Delivery
from bot.telegram.delivery.outgoing import SendResult
from bot.telegram.delivery.replies import edit_text, reply_to
from bot.telegram.handlers.button_guards import OperatorsOnly
from bot.telegram.markdown.render import Rendered, utf16_length
from core.i18n import Texts
from services.admin.audit import AuditKind
from services.admin.broadcasts import Broadcast, BroadcastResult, Broadcasts, BroadcastState

log = structlog.get_logger()

_ENTITIES = TypeAdapter(list[MessageEntity])


class TurnAuditPage(CallbackData, prefix="audit"):
    """Shows a page of the audit log; 0 for no bound, an empty kind for all acts."""

    kind: str
    before: int = 0
    after: int = 0


class BroadcastAction(CallbackData, prefix="cast"):
    """Starts, stops or discards a broadcast."""

    act: str
    number: int


class AdministrationHandlers:
    """Runs the commands of operators that concern the whole bot."""

    def __init__(
        self,
        *,
        audit: AuditReports,
        statistics: StatisticsReports,
        bans: BanCommands,
        broadcasts: Broadcasts,
        reports: BroadcastReports,
        delivery: Delivery,
        texts: Texts,
    ) -> None:
        self._audit = audit
        self._statistics = statistics
        self._bans = bans
        self._broadcasts = broadcasts
        self._reports = reports
        self._delivery = delivery
        self._texts = texts

    def router(self, admin_ids: frozenset[int]) -> Router:
        """Returns the router."""
        router, from_operator = Router(name="administration"), FromOperator(admin_ids)
        router.message.register(self.audit, Command("audit"), from_operator)
        router.message.register(self.stats, Command("stats"), from_operator)
        router.message.register(self.ban, Command("ban_user"), from_operator)
        router.message.register(self.unban, Command("unban_user"), from_operator)
        router.message.register(self.broadcast, Command("broadcast"), from_operator)
        router.callback_query.middleware(OperatorsOnly(admin_ids, self._delivery, self._texts))
        router.callback_query.register(self.turn_page, TurnAuditPage.filter())
        router.callback_query.register(self.press_broadcast, BroadcastAction.filter())
        return router

    async def audit(self, message: Message, command: CommandObject) -> None:
        """Sends the newest acts, of one kind where the command names it."""
        language = message_speaker(message).language
        shown = await self._audit.run(command.args or "", language)
        if isinstance(shown, str):
            await reply_to(self._delivery, message, shown)
            return
        kind = shown.kind.value if shown.kind is not None else ""
        await reply_to(self._delivery, message, shown.text, self._audit_keyboard(kind, shown, language))

    async def turn_page(self, query: CallbackQuery, callback_data: TurnAuditPage) -> None:
        """Shows another page, or another kind of acts."""
        await self._delivery.answer_callback(query.id)
        name, language = callback_data.kind, query.from_user.language_code
        kind = next((each for each in AuditKind if each.value == name), None)
        shown = await self._audit.show(
            kind, language, before=callback_data.before or None, after=callback_data.after or None
        )
        if isinstance(query.message, Message):
            markup = self._audit_keyboard(name, shown, language)
            await edit_text(self._delivery, query.message, shown.text, markup)

    async def stats(self, message: Message) -> None:
        """Sends the figures of the bot."""
        await reply_to(self._delivery, message, await self._statistics.report(message_speaker(message).language))

    async def ban(self, message: Message, command: CommandObject) -> None:
        """Bans a person by their id, or the author of the message that the command replies to."""
        speaker = message_speaker(message)
        author = _replied_author(message)
        text = await self._bans.ban(command.args or "", speaker.user_id, speaker.language, author_id=author)
        await reply_to(self._delivery, message, text)

    async def unban(self, message: Message, command: CommandObject) -> None:
        """Lifts a ban."""
        speaker = message_speaker(message)
        author = _replied_author(message)
        text = await self._bans.unban(command.args or "", speaker.user_id, speaker.language, author_id=author)
        await reply_to(self._delivery, message, text)

    async def broadcast(self, message: Message, command: CommandObject) -> None:
        """Counts the people that a message would go to, and asks for a confirmation."""
        speaker = message_speaker(message)
        content = _read_content(message, command.args)
        if is_group(message):
            # Its progress is shown under the command, which a group should not see.
            await reply_to(self._delivery, message, self._texts.get("broadcast-private-only", speaker.language))
        elif content is None:
            await reply_to(self._delivery, message, await self._reports.overview(speaker.language))
        else:
            draft = await self._broadcasts.draft(
                speaker.user_id, content.text, formatting=dump_entities(content), language=speaker.language
            )
            await reply_to(self._delivery, message, *self._card(draft, speaker.language))

    async def press_broadcast(self, query: CallbackQuery, callback_data: BroadcastAction) -> None:
        """Starts, stops or discards a broadcast."""
        message, number, actor_id = query.message, callback_data.number, query.from_user.id
        language = query.from_user.language_code
        if not isinstance(message, Message):
            await self._delivery.answer_callback(query.id)
            return
        changed: Broadcast | None = None
        match callback_data.act:
            case "send":
                card = (message.chat.id, message.message_id)
                changed = await self._broadcasts.start(number, actor_id, card)
            case "stop":
                changed = await self._broadcasts.stop(number, actor_id)
            case "discard" if await self._broadcasts.discard(number):
                await self._delivery.answer_callback(query.id)
                await edit_text(self._delivery, message, self._texts.get("broadcast-discarded", language))
                return
            case _:
                pass
        # Pressed twice, or on an old card: the card shows the present state.
        current = changed or await self._broadcasts.get(number)
        await self._delivery.answer_callback(query.id)
        if current is None:
            await edit_text(self._delivery, message, self._texts.get("broadcast-gone", language))
        else:
            await edit_text(self._delivery, message, *self._card(current, language))

    async def show_progress(self, broadcast: Broadcast) -> None:
        """Shows the progress of a broadcast on its card."""
        if broadcast.card is not None:
            text, markup = self._card(broadcast, broadcast.language)
            is_last = broadcast.state is not BroadcastState.RUNNING
            await self._delivery.edit(*broadcast.card, Rendered(text), markup=markup, final=is_last)

    def _card(self, broadcast: Broadcast, language: str | None) -> tuple[str, InlineKeyboardMarkup | None]:
        drafted = [("send", "button-broadcast-send"), ("discard", "button-broadcast-discard")]
        labels = {
            BroadcastState.DRAFT: drafted if broadcast.total else [],
            BroadcastState.RUNNING: [("stop", "button-broadcast-stop")],
            BroadcastState.STOPPED: [("send", "button-broadcast-resume")],
        }.get(broadcast.state, [])
        keys = [
            button(self._texts.get(key, language), BroadcastAction(act=act, number=broadcast.id)) for act, key in labels
        ]
        return self._reports.progress(broadcast, language), build_keyboard([keys]) if keys else None

    def _audit_keyboard(self, kind: str, shown: AuditText, language: str | None) -> InlineKeyboardMarkup:
        kinds = [
            button(self._audit.label(each, language), TurnAuditPage(kind=each.value if each is not None else ""))
            for each in (None, *AuditKind)
            if (each.value if each is not None else "") != kind
        ]
        pages = [
            *([button(self._texts.get("button-newer", language), TurnAuditPage(kind=kind, after=shown.page.newer))]
              if shown.page.newer is not None else []),
            *([button(self._texts.get("button-older", language), TurnAuditPage(kind=kind, before=shown.page.older))]
              if shown.page.older is not None else []),
        ]  # fmt: skip
        rows = [kinds[:2], kinds[2:]]
        return build_keyboard([pages, *rows] if pages else rows)


async def send_broadcast(delivery: Delivery, broadcast: Broadcast, chat_id: int) -> BroadcastResult:
    """Sends a broadcast to one chat."""
    outcome = await delivery.post(chat_id, Rendered(broadcast.text, load_entities(broadcast.formatting)))
    if outcome.result is SendResult.UNREACHABLE:
        return BroadcastResult.BLOCKED
    return BroadcastResult.SENT if outcome.result is SendResult.SHOWN else BroadcastResult.FAILED


def dump_entities(content: Rendered) -> str | None:
    """Returns the formatting of a text as JSON."""
    entities = [entity.model_dump(mode="json", exclude_none=True) for entity in content.entities]
    return json.dumps(entities) if entities else None


def load_entities(formatting: str | None) -> tuple[MessageEntity, ...]:
    """Returns the entities that `dump_entities` stored."""
    return tuple(_ENTITIES.validate_json(formatting)) if formatting else ()


def _replied_author(message: Message) -> int | None:
    original = message.reply_to_message
    is_message = original is not None and original.forum_topic_created is None
    return message_speaker(original).user_id if original is not None and is_message else None


def _read_content(message: Message, arguments: str | None) -> Rendered | None:
    """Returns the text after the command with its formatting, or that of the message that the command replies to."""
    source, start = message, 0
    if arguments is None:
        if message.reply_to_message is None:
            return None
        source = message.reply_to_message
        arguments = source.text or source.caption or ""
    else:
        start = utf16_length((message.text or message.caption or "").removesuffix(arguments))
    entities = [
        entity.model_copy(update={"offset": entity.offset - start})
        for entity in source.entities or source.caption_entities or ()
        if entity.offset >= start
    ]
    content = Rendered(arguments, tuple(entities))
    return None if content.blank else content
