"""Payloads of the inbox's jobs, and the jobs that come from no update.

Payloads are stored: a field that is added is optional, and jobs of earlier versions do without it.
"""

import json
from typing import Any, Literal

from pydantic import BaseModel

from core.messages import ChatKind, Speaker
from services.inbox.job import Job
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
    is_prompt: bool = False
    """True if the model answers it: it is a message of a user that addresses the bot, and no command."""


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
