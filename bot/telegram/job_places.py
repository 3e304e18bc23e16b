"""Decides which jobs of this process run now: answers in turn by person, the others within limits."""

import json
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, cast

from bot.telegram.jobs import MODERATION_LANE, OWN_LANE
from services.inbox.job import Job
from services.limits.turns import Quota, TurnLimits, TurnPlaces

SIDE_LIMITS = TurnLimits(most=500, least=16)


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
