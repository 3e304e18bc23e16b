"""Jobs of the inbox: their payloads, and which of them run now.

Payloads are stored: a field that is added is optional, and jobs of earlier versions do without it.
"""

import hashlib
import json
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, cast

from aiogram.types import Update
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from bot.telegram.api.updates import conversation_key, message_speaker
from core.messages import ChatKind, Speaker
from services.inbox.job import LARGEST_PRIORITY, Job
from services.limits.party_limits import Quota, TurnLimits, TurnPlaces
from services.mcp.calls import ToolCall
from services.schedule.schedules import Schedule

RejectionReason = Literal["queue-full", "not-allowed", "rate-limited", "banned"]
OWN_LANE = "now:"
"""Prefix of the lanes of jobs that wait for no other."""
MODERATION_LANE = "group:"
"""Prefix of the lanes of jobs that only moderate."""
SIDE_LIMITS = TurnLimits(most=500, least=16)


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


def arrival_job(bot_id: int, raw: dict[str, Any], lane: str | None, *, is_moderated: bool | None = None) -> Job:
    """Returns the job that answers an update.

    Args:
        is_moderated: whether its group is moderated; None if that is not known yet.
    """
    payload = UpdateArrived(update=raw, is_moderated=is_moderated)
    return create_job(bot_id, raw["update_id"], lane, payload, is_limited=lane is not None)


def moderation_job(bot_id: int, update: Update, raw: dict[str, Any], *, is_admitted: bool) -> Job | None:
    """Returns the job of an update that is only moderated, ordered by author; None if it is of another kind.

    Changes of a group's members are ordered with that person's messages.

    Args:
        is_admitted: whether the bot answers its sender.
    """
    message, changed = update.message or update.edited_message, update.chat_member or update.my_chat_member
    if update.message is not None and update.message.media_group_id is not None:
        # The conversation's lane, since any part may turn out to be for the bot.
        lane = str(conversation_key(update.message))
    elif message is not None:
        lane = f"{MODERATION_LANE}{message.chat.id}:{message_speaker(message).user_id}"
    elif changed is not None:
        lane = f"{MODERATION_LANE}{changed.chat.id}:{changed.new_chat_member.user.id}"
    elif (request := update.chat_join_request) is not None:
        lane = f"{MODERATION_LANE}{request.chat.id}:{request.from_user.id}"
    else:
        return None
    is_admitted = is_admitted and message is not None
    payload = UpdateArrived(update=raw, is_for_bot=False, is_admitted=is_admitted, is_moderated=True)
    return create_job(bot_id, raw["update_id"], lane, payload)


def unnumbered_job(bot_id: int, raw: dict[str, Any]) -> Job:
    """Returns a job of an update without a valid id: the same one each time, as no offset can confirm it."""
    digest = hashlib.sha256(json.dumps(raw, sort_keys=True).encode()).hexdigest()[:16]
    job = create_job(bot_id, 0, None, UpdateArrived(update=raw))
    return replace(job, id=f"tg-{bot_id}-{digest}", lane=f"{OWN_LANE}{digest}")


def rejection_job(bot_id: int, raw: dict[str, Any], reason: RejectionReason, renewal_s: int | None = None) -> Job:
    """Returns the job that tells a sender why an update is not answered."""
    payload = UpdateRejected(update=raw, reason=reason, renewal_s=renewal_s)
    return create_job(bot_id, raw["update_id"], None, payload)


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


@dataclass(frozen=True, slots=True)
class JobLimits:
    """Bounds of the jobs that run at once.

    Args:
        running_per_user: answers of a person, over all chats; 0: no limit.
        exempt: users without this limit.
        group_factor: how many times as many answers run in a group.
        moderation: bounds of the jobs that only moderate.
        quick: bounds of commands about the running answer, presses and notices.
    """

    running_per_user: int = 4
    exempt: frozenset[int] = frozenset()
    group_factor: int = 5
    moderation: TurnLimits = SIDE_LIMITS
    quick: TurnLimits = SIDE_LIMITS


@dataclass(frozen=True, slots=True)
class _Sender:
    person: int
    group: int | None


class FairJobPlaces:
    """Gives each job a place among those of its kind.

    Args:
        answers: the places of answers.
        limits: bounds of the others, and quotas.
    """

    def __init__(self, answers: TurnPlaces, limits: JobLimits) -> None:
        self._answers = answers
        self._moderation = TurnPlaces(limits.moderation)
        self._quick = TurnPlaces(limits.quick)
        self._limits = limits

    def place(self, job: Job) -> AbstractAsyncContextManager[None]:
        """Holds a place for a job while the context lasts, once it is its turn."""
        sender = _find_sender(job)
        # A group is one party: its members share its turns.
        party = f"group:{sender.group}" if sender.group is not None else f"user:{sender.person}"
        if job.lane.startswith(OWN_LANE):
            # By person in groups too: the one who presses Stop must not wait behind others.
            return self._quick.place(f"user:{sender.person}")
        if job.lane.startswith(MODERATION_LANE):
            return self._moderation.place(party)
        return self._answers.place(party, self._quotas(sender))

    def close(self) -> None:
        """Cancels the jobs that wait; they are handed back."""
        for places in (self._answers, self._moderation, self._quick):
            places.close()

    def _quotas(self, sender: _Sender) -> tuple[Quota, ...]:
        limit = self._limits.running_per_user
        if not limit or sender.person in self._limits.exempt:
            return ()
        own = Quota(f"user:{sender.person}", limit)
        return (
            (own,) if sender.group is None else (own, Quota(f"group:{sender.group}", limit * self._limits.group_factor))
        )


def _find_sender(job: Job) -> _Sender:
    """Returns the sender of a job's update, as far as it can be read; the job itself checks the rest."""
    payload: object = json.loads(job.payload)
    update = _field(payload, "update")
    if (mention := _field(update, "guest_message")) is not None:
        return _Sender(_number(_field(_field(mention, "from"), "id")), None)
    query = _field(update, "callback_query")
    message = _field(query, "message") or _field(update, "message") or _field(update, "edited_message")
    entry = _field(update, "chat_member") or _field(update, "my_chat_member") or _field(update, "chat_join_request")
    reaction = _field(update, "message_reaction")
    chat = _field(message or entry or reaction or _field(update, "stopped_message_generation"), "chat")
    chat_id = _number(_field(chat, "id"))
    author = (
        _field(query, "from") or _field(message, "sender_chat") or _field(message, "from") or _field(reaction, "user")
    )
    person = _number(_field(author, "id")) or _number(_field(_field(payload, "speaker"), "user_id")) or chat_id
    return _Sender(person, chat_id if chat_id and _field(chat, "type") != "private" else None)


def _field(value: object, name: str) -> object:
    return cast("dict[str, Any]", value).get(name) if isinstance(value, dict) else None  # Any: JSON


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0
