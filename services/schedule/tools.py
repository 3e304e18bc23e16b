"""Tools for the model: create, list and cancel schedules as the user words them."""

import hashlib

from pydantic_ai import ModelRetry, RunContext

from core.errors import ScheduleRefused, StorageError
from core.messages import Speaker
from services.chat.turn import Ability, AbilityTools, TurnContext
from services.schedule.schedules import Schedule, ScheduleOwner, Schedules

FORMS = (
    "`in 10 minutes`, `today 18:00`, `tomorrow 09:00`, `friday 09:00`, `2026-12-01 09:00`, `every day 09:00`, "
    "`every weekday 09:00`, `every monday, thursday 09:00`, `every month 1 09:00`, `every 2 hours`"
)
REASONS = {
    "schedule-unreadable": f"The time is not in one of these forms: {FORMS}",
    "schedule-past": "That time is over. Use a later one.",
    "schedule-too-soon": "The time must be at least a minute from now.",
    "schedule-too-far": "The time is more than three years away.",
    "schedule-no-text": "The text is missing.",
    "schedule-too-long": "The text is too long; shorten it.",
    "schedule-unknown-zone": "That is not an IANA time zone such as Europe/Berlin.",
    "schedule-too-many": "The user has as many schedules as allowed. Offer to cancel one of them.",
}
UNAVAILABLE = "The schedules are unavailable just now; nothing was changed."


class ScheduleTools:
    """The tools over the schedules of the user of a turn, in its chat."""

    def __init__(self, schedules: Schedules) -> None:
        self._schedules = schedules

    def toolset(self) -> AbilityTools:
        """Returns the tools. They are offered in chats only: the console has nothing that delivers later."""
        tools = AbilityTools(Ability.SCHEDULE)
        tools.add_function(self.schedule_message)
        tools.add_function(self.list_schedules)
        tools.add_function(self.cancel_schedule)
        return tools

    async def schedule_message(
        self,
        context: RunContext[TurnContext],
        when: str,
        text: str,
        *,
        is_prompt: bool = False,
        time_zone: str | None = None,
    ) -> str:
        """Remind the user of something, or answer a prompt of theirs, at a later time or regularly.

        Args:
            context: the turn.
            when: the user's local time in one of these forms: `in 10 minutes`, `today 18:00`, `tomorrow 09:00`,
                `friday 09:00`, `2026-12-01 09:00`, `every day 09:00`, `every weekday 09:00`,
                `every monday, thursday 09:00`, `every month 1 09:00`, `every 2 hours`.
            text: what to remind the user of, in their language and without the time; or the prompt.
            is_prompt: true if you are to answer the text then, such as a summary of the news; false for a reminder.
            time_zone: the user's IANA time zone such as Europe/Berlin, only if they told you; it is remembered.
        """
        turn = context.deps
        owner = _owner(turn)
        origin: str | None = None
        try:
            if time_zone:
                await self._schedules.set_zone(owner.user_ref, time_zone)
            if turn.origin is not None:
                # A job that is repeated after a crash asks anew, with other ids of its calls.
                digest = hashlib.sha256(f"{when}\0{text}".encode()).hexdigest()[:32]
                origin = f"{turn.origin}#{digest}"
            made = await self._schedules.add(owner, when, text=text, is_prompt=is_prompt, origin=origin)
        except ScheduleRefused as error:
            reason = REASONS.get(error.key, error.key)
            if error.key == "schedule-too-many":
                return reason
            raise ModelRetry(reason) from None
        except StorageError:
            return UNAVAILABLE
        note = "" if made.zone else " The user has told no time zone, so this is the bot's own; say so."
        return f"Scheduled: {self._describe(made)}.{note}"

    async def list_schedules(self, context: RunContext[TurnContext]) -> list[str]:
        """List this user's reminders and scheduled prompts in this chat.

        Args:
            context: the turn.
        """
        turn = context.deps
        try:
            found = await self._schedules.of_user(turn.user_id, turn.conversation)
        except StorageError:
            return [UNAVAILABLE]
        return [self._describe(schedule) for schedule in found] or ["Nothing is scheduled."]

    async def cancel_schedule(self, context: RunContext[TurnContext], number: int) -> str:
        """Cancel a reminder or a scheduled prompt of this user.

        Args:
            context: the turn.
            number: its number in the list.
        """
        turn = context.deps
        try:
            own = await self._schedules.of_user(turn.user_id, turn.conversation)
            is_known = any(schedule.id == number for schedule in own)
            if not is_known or not await self._schedules.cancel(number, turn.user_id):
                return "There is no such entry in this chat."
        except StorageError:
            return UNAVAILABLE
        return "Cancelled."

    def _describe(self, schedule: Schedule) -> str:
        kind = "prompt" if schedule.is_prompt else "reminder"
        rule = f", repeats ({schedule.recurrence})" if schedule.recurrence is not None else ""
        state = ", paused" if schedule.is_paused else ""
        at = self._schedules.describe_time(schedule.next_at, schedule.zone)
        return f"number {schedule.id}, {kind} at {at}{rule}{state}: {schedule.text}"


def _owner(turn: TurnContext) -> ScheduleOwner:
    speaker = Speaker(turn.user_id, turn.user_name, turn.language)
    return ScheduleOwner(turn.conversation, speaker, turn.chat_kind, turn.chat_title)
