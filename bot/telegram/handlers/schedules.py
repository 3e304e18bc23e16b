"""`/schedule` with its buttons, and the delivery of reminders and prompts that are due."""

from datetime import UTC, datetime, timedelta
from functools import partial

import structlog
from aiogram import Router
from aiogram.filters import CommandObject
from aiogram.filters.callback_data import CallbackData
from aiogram.types import CallbackQuery, InlineKeyboardButton, InlineKeyboardMarkup, Message, MessageEntity, User

from bot.telegram.answers.keyboards import build_keyboard, button
from bot.telegram.answers.responder import PendingAnswer, Responder
from bot.telegram.api.filters import Command
from bot.telegram.api.updates import conversation_key, is_group, message_speaker, to_text_only
from bot.telegram.delivery.delivery import Delivery
from bot.telegram.delivery.replies import edit_text, reply_to
from bot.telegram.jobs import ScheduleDue
from bot.telegram.markdown.render import Rendered, utf16_length
from core.clock import Clock
from core.errors import ScheduleRefused, StorageError
from core.i18n import Texts
from core.messages import ChatKind, ConversationKey, Incoming, Surface, user_ref
from core.shortening import shorten_line
from services.chat.service import ChatService
from services.chat.store.turns import TurnStore
from services.chat.turn import TurnRequest
from services.inbox.job import Job
from services.schedule.schedules import Schedule, ScheduleOwner, Schedules
from services.schedule.times import Frequency, Recurrence

log = structlog.get_logger()

LATE = timedelta(minutes=2)
"""A message that is later than this says so."""
SHOWN_CHARACTERS = 120
"""Characters of a text in the list."""
ZONE = "zone"
UNREADABLE = "schedule-unreadable"


class CancelSchedule(CallbackData, prefix="schc"):
    """Cancels a schedule."""

    schedule: int


class PauseSchedule(CallbackData, prefix="schp"):
    """Pauses or resumes a schedule."""

    schedule: int
    paused: bool


class ScheduleHandlers:
    """Makes, lists, pauses and cancels the schedules of a user in a chat."""

    def __init__(self, *, schedules: Schedules, responder: Responder, delivery: Delivery, texts: Texts) -> None:
        self._schedules = schedules
        self._responder = responder
        self._delivery = delivery
        self._texts = texts

    def router(self) -> Router:
        """Returns the router."""
        router = Router(name="schedules")
        router.message.register(self.schedule, Command("schedule"))
        router.callback_query.register(self.cancel, CancelSchedule.filter())
        router.callback_query.register(self.pause, PauseSchedule.filter())
        return router

    async def schedule(self, message: Message, command: CommandObject, job: str) -> PendingAnswer | None:
        """Handles `/schedule`, `/schedule <time> <text>` and `/schedule zone <name>`."""
        speaker, key = message_speaker(message), conversation_key(message)
        request = (command.args or "").strip()
        markup: InlineKeyboardMarkup | None = None
        try:
            verb, _, rest = request.partition(" ")
            if not request:
                text, markup = await self._list(speaker.user_id, key, speaker.language)
            elif verb.lower() == ZONE:
                text = await self._set_zone(rest.strip(), speaker.user_id, speaker.language)
            else:
                chat_kind = ChatKind.GROUP if is_group(message) else ChatKind.PRIVATE
                owner = ScheduleOwner(key, speaker, chat_kind, message.chat.title)
                # Answered when it is due, whether it asks for a reminder or for something else.
                made = await self._schedules.add(owner, request, is_prompt=True, origin=job)
                text = self._texts.get("schedule-made", speaker.language, entry=self._entry(made, speaker.language))
        except ScheduleRefused as error:
            text = self._texts.get(error.key, speaker.language, **error.arguments)
            await reply_to(self._delivery, message, text)
            return self._ask_model(message, request, job) if error.key == UNREADABLE else None
        await reply_to(self._delivery, message, text, markup)
        return None

    def _ask_model(self, message: Message, request: str, job: str) -> PendingAnswer:
        """Passes a time that cannot be read with certainty to the model, which may ask its user."""
        text = self._texts.get("schedule-in-words", message_speaker(message).language, text=request)
        reply_to_id = message.message_id if is_group(message) else None
        turn = TurnRequest(to_text_only(message, text), origin=job)
        return PendingAnswer(partial(self._responder.answer, turn, reply_to=reply_to_id))

    async def cancel(self, query: CallbackQuery, callback_data: CancelSchedule) -> None:
        """Cancels a schedule of the user who pressed."""
        is_done = await self._schedules.cancel(callback_data.schedule, query.from_user.id)
        await self._show_again(query, "schedule-cancelled" if is_done else "schedule-gone")

    async def pause(self, query: CallbackQuery, callback_data: PauseSchedule) -> None:
        """Pauses or resumes a schedule of the user who pressed."""
        is_paused = callback_data.paused
        is_done = await self._schedules.set_paused(callback_data.schedule, query.from_user.id, is_paused=is_paused)
        done = "schedule-paused" if is_paused else "schedule-resumed"
        await self._show_again(query, done if is_done else "schedule-gone")

    async def _show_again(self, query: CallbackQuery, key: str) -> None:
        language, message = query.from_user.language_code, query.message
        await self._delivery.answer_callback(query.id, self._texts.get(key, language))
        if key != "schedule-gone" and isinstance(message, Message):
            text, markup = await self._list(query.from_user.id, conversation_key(message), language)
            await edit_text(self._delivery, message, text, markup)

    async def _set_zone(self, name: str, user_id: int, language: str | None) -> str:
        user = user_ref(Surface.TELEGRAM, user_id)
        if name:
            await self._schedules.set_zone(user, name)
        zone = await self._schedules.zone_name(user)
        return self._texts.get("schedule-zone", language, zone=zone or str(self._schedules.resolve_zone("")))

    async def _list(
        self, user_id: int, key: ConversationKey, language: str | None
    ) -> tuple[str, InlineKeyboardMarkup | None]:
        found = await self._schedules.of_user(user_id, key)
        if not found:
            return self._texts.get("schedule-none", language), None
        lines = [self._texts.get("schedule-title", language), *(self._entry(each, language) for each in found)]
        return "\n".join(lines), build_keyboard([self._row(each, language) for each in found])

    def _row(self, schedule: Schedule, language: str | None) -> list[InlineKeyboardButton]:
        act = "button-schedule-resume" if schedule.is_paused else "button-schedule-pause"
        return [
            button(
                self._texts.get(act, language, number=str(schedule.id)),
                PauseSchedule(schedule=schedule.id, paused=not schedule.is_paused),
            ),
            button(
                self._texts.get("button-schedule-cancel", language, number=str(schedule.id)),
                CancelSchedule(schedule=schedule.id),
            ),
        ]

    def _entry(self, schedule: Schedule, language: str | None) -> str:
        text = shorten_line(schedule.text, SHOWN_CHARACTERS)
        rule = f", {self._rule(schedule.recurrence, language)}" if schedule.recurrence is not None else ""
        state = f" ({self._texts.get('schedule-is-paused', language)})" if schedule.is_paused else ""
        at = self._schedules.describe_time(schedule.next_at, schedule.zone)
        return f"{schedule.id}. {at}{rule}{state}: {text}"

    def _rule(self, rule: Recurrence, language: str | None) -> str:
        match rule.frequency:
            case Frequency.HOURS:
                return self._texts.get("schedule-every-hours", language, hours=rule.hours)
            case Frequency.WEEK:
                days = ", ".join(self._texts.get("weekday", language, day=day) for day in rule.days)
                return self._texts.get("schedule-every-week", language, days=days)
            case Frequency.MONTH:
                return self._texts.get("schedule-every-month", language, day=str(rule.days[0]))
            case Frequency.DAY:
                return self._texts.get("schedule-every-day", language)


class ScheduledMessages:
    """Delivers reminders and prompts that are due. Idempotent: a job that is repeated sends nothing twice."""

    def __init__(
        self,
        *,
        schedules: Schedules,
        chat: ChatService,
        responder: Responder,
        turns: TurnStore,
        delivery: Delivery,
        texts: Texts,
        clock: Clock,
    ) -> None:
        self._schedules = schedules
        self._chat = chat
        self._responder = responder
        self._turns = turns
        self._delivery = delivery
        self._texts = texts
        self._clock = clock

    async def deliver(self, due: ScheduleDue, job: Job) -> None:
        """Sends a due reminder or answers a due prompt; an entry whose chat cannot be reached is paused."""
        heading = self._heading(due)
        sent = await self._delivery.send(due.chat_id, heading, topic_id=due.topic_id or None)
        if sent is None:
            await self._schedules.pause_undeliverable(due.schedule)
            return
        if due.is_prompt:
            request = TurnRequest(self._incoming(due, "schedule-prompt"), origin=job.id)
            reply_to_id = sent.message_id if due.chat_kind is ChatKind.GROUP else None
            await self._responder.answer(request, reply_to=reply_to_id)
            return
        try:
            turn_id = await self._chat.records.record(
                self._incoming(due, "schedule-reminder"), heading.text, origin=job.id
            )
            await self._turns.note_answer(turn_id, [sent.message_id])
        except StorageError as error:
            # The reminder has arrived; only the memory of it is missing.
            log.warning("schedule.reminder_not_recorded", schedule=due.schedule, error=str(error))

    def _heading(self, due: ScheduleDue) -> Rendered:
        language, at = due.speaker.language, datetime.fromtimestamp(due.due, UTC)
        entities: tuple[MessageEntity, ...] = ()
        text = f"⏰ {due.text}"
        if due.chat_kind is ChatKind.GROUP and due.speaker.user_id > 0:
            # Mentioned by id, which notifies people without a username too.
            text = f"⏰ {due.speaker.name}: {due.text}"
            user = User(id=due.speaker.user_id, is_bot=False, first_name=due.speaker.name or "?")
            length = utf16_length(due.speaker.name)
            entities = (MessageEntity(type="text_mention", offset=2, length=length, user=user),) if length else ()
        if self._clock.now() - at > LATE:
            time = self._schedules.describe_time(at, due.zone)
            text = f"{text}\n\n{self._texts.get('schedule-late', language, time=time)}"
        return Rendered(text, entities)

    def _incoming(self, due: ScheduleDue, key: str) -> Incoming:
        return Incoming(
            key=ConversationKey(Surface.TELEGRAM, due.chat_id, due.topic_id),
            chat_kind=due.chat_kind,
            speaker=due.speaker,
            text=self._texts.get(key, due.speaker.language, text=due.text),
            sent_at=datetime.fromtimestamp(due.due, UTC),
            chat_title=due.chat_title,
        )
