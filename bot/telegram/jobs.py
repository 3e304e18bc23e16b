"""Jobs of the inbox: their payloads, and the queue of turns to answer again.

Payloads are stored: a field that is added is optional, and jobs of earlier versions do without it.
"""

import json
from dataclasses import replace
from typing import Annotated, Any, Literal

from aiogram import Bot
from aiogram.types import Message, Update, User
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from bot.telegram.api.messages import is_group, message_speaker, to_speaker
from core.messages import ChatKind, Speaker
from services.chat.store.conversation import Turn
from services.inbox.job import LARGEST_PRIORITY, Job, JobSink
from services.mcp.calls import ToolCall
from services.schedule.schedules import Schedule

RejectionReason = Literal["queue-full", "not-allowed", "rate-limited", "banned"]
OWN_LANE = "now:"
"""Prefix of the lanes of jobs that wait for no other."""
MODERATION_LANE = "group:"
"""Prefix of the lanes of jobs that only moderate."""


class UpdateArrived(BaseModel):
    """An update to handle, with its classification. Its queue lane stands in the job."""

    kind: Literal["update"] = "update"
    update: dict[str, Any]  # Any: as Telegram sent it
    is_for_bot: bool = True
    """True if it is a command or addresses the bot; otherwise it is only moderated."""
    is_admitted: bool = True
    """True if the bot answers its sender."""
    is_moderated: bool | None = None
    """True if moderation handles it; None in jobs of earlier versions, and where the classification failed."""


class UpdateRejected(BaseModel):
    """An update that is not handled; its sender gets the reason."""

    kind: Literal["turned_away"] = "turned_away"
    update: dict[str, Any]  # Any: as above
    reason: RejectionReason
    renewal_s: int | None = None
    """Seconds until the sender is admitted again, where a rate was exceeded."""


class RegenerateTurn(BaseModel):
    """A turn to answer again, requested by a button."""

    kind: Literal["again"] = "again"
    turn: int
    speaker: Speaker
    chat_kind: ChatKind
    chat_title: str | None = None
    reply_to: int | None = None
    provider: str | None = None
    only_latest: bool
    """True if the job is dropped if the turn is no longer the latest of its conversation."""
    continues: bool = False
    """True if the answer is continued in a turn of its own."""
    edited: bool = False
    """True if the question is answered as its author edited it."""


class ScheduleDue(BaseModel):
    """A reminder or a prompt of a schedule that is due."""

    kind: Literal["schedule"] = "schedule"
    schedule: int
    chat_id: int
    topic_id: int
    speaker: Speaker
    chat_kind: ChatKind
    chat_title: str | None = None
    text: str
    is_prompt: bool
    due: float
    """Seconds since the epoch."""
    zone: str = ""


class JobErased(BaseModel):
    """A job whose message was erased by `/forget`: a no-op. See `services/privacy/redaction.py`."""

    kind: Literal["erased"] = "erased"


class CallDecided(BaseModel):
    """A call of a tool that its user has allowed or denied."""

    kind: Literal["call"] = "call"
    call: int
    speaker: Speaker
    chat_kind: ChatKind
    chat_title: str | None = None
    reply_to: int | None = None


Payload = UpdateArrived | UpdateRejected | RegenerateTurn | ScheduleDue | JobErased | CallDecided
_PAYLOAD: TypeAdapter[Payload] = TypeAdapter(
    Annotated[Payload, Field(discriminator="kind")],
    # An error that quotes its input would put users' messages into the log.
    config=ConfigDict(hide_input_in_errors=True),
)


def parse_payload(job: Job) -> Payload:
    """Returns the payload of a job.

    Raises:
        ValidationError: an incompatible version of the bot stored it.
    """
    return _PAYLOAD.validate_python(json.loads(job.payload))


def create_job(bot_id: int, update_id: int, lane: str | None, payload: Payload, *, is_limited: bool = False) -> Job:
    """Returns the job of an update.

    Args:
        bot_id: the bot that received the update.
        update_id: the update's id, which also orders the jobs of a lane.
        lane: the queue lane, within which jobs run in order; None for a lane of its own.
        payload: the work.
        is_limited: whether the job is refused when its lane is full.
    """
    return Job(
        id=f"tg-{bot_id}-{update_id:012d}",
        lane=lane or f"{OWN_LANE}{update_id}",
        priority=update_id % (LARGEST_PRIORITY - 1) + 1,
        # Not Pydantic's own JSON, which rejects the lone surrogates that Telegram may cut a text at.
        payload=json.dumps(payload.model_dump(), separators=(",", ":")),
        is_limited=is_limited,
    )


def schedule_job(bot_id: int, schedule: Schedule) -> Job:
    """Returns the job of a schedule that is due; its id is the same for every replica."""
    owner, due = schedule.owner, schedule.next_at.timestamp()
    payload = ScheduleDue(
        schedule=schedule.id,
        chat_id=owner.key.chat_id,
        topic_id=owner.key.topic_id,
        speaker=owner.speaker,
        chat_kind=owner.chat_kind,
        chat_title=owner.chat_title,
        text=schedule.text,
        is_prompt=schedule.is_prompt,
        due=due,
        zone=schedule.zone,
    )
    return Job(
        id=f"tg-{bot_id}-schedule-{schedule.id}-{int(due)}",
        lane=str(owner.key),
        # Before the messages that wait in the conversation.
        priority=1,
        payload=json.dumps(payload.model_dump(), separators=(",", ":")),
    )


def call_job(bot_id: int, call: ToolCall, payload: CallDecided) -> Job:
    """Returns the job of a call that was decided; a call has one job."""
    return Job(
        id=f"tg-{bot_id}-call-{call.id}",
        lane=str(call.key),
        priority=1,
        payload=json.dumps(payload.model_dump(), separators=(",", ":")),
    )


class RegenerateQueue:
    """Enqueues turns to answer again."""

    def __init__(self, bot: Bot, inbox: JobSink) -> None:
        self._bot = bot
        self._inbox = inbox

    async def enqueue(
        self,
        update: Update,
        turn: Turn,
        message: Message,
        user: User,
        *,
        provider: str | None,
        only_latest: bool,
        continues: bool = False,
        edited: bool = False,
    ) -> bool:
        """Enqueues a turn; returns False if its conversation's lane is full. Idempotent per update.

        Args:
            update: the button press.
            turn: the turn to answer again.
            message: the message with the button.
            user: the user who pressed it.
            provider: id of the provider to ask first, for this answer only.
            edited: answer the question as its author edited it.
            continues: ask for the rest of the answer instead of another one.
            only_latest: drop the job if the turn is no longer the latest of its conversation.
        """
        question = message.reply_to_message
        payload = RegenerateTurn(
            turn=turn.id,
            speaker=_find_speaker(turn, message, user),
            chat_kind=ChatKind.GROUP if is_group(message) else ChatKind.PRIVATE,
            chat_title=message.chat.title,
            reply_to=question.message_id if question is not None and is_group(message) else None,
            provider=provider,
            only_latest=only_latest,
            continues=continues,
            edited=edited,
        )
        job = create_job(self._bot.id, update.update_id, str(turn.thread.key), payload, is_limited=True)
        # The button press itself is a job under the plain id.
        return not await self._inbox.put([replace(job, id=f"{job.id}+")])


def _find_speaker(turn: Turn, message: Message, user: User) -> Speaker:
    """Returns the author of a turn, also where an admin pressed the button: the answer counts as the author's."""
    if user.id == turn.speaker_id:
        return to_speaker(user)
    question = message.reply_to_message
    if question is not None and message_speaker(question).user_id == turn.speaker_id:
        return message_speaker(question)
    return Speaker(turn.speaker_id, message.chat.full_name, user.language_code)
