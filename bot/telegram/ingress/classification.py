"""Classifies updates: access, relevance, moderation, and the job of each with its queue lane.

The facts of the classification travel in the job: the worker does not classify again.
"""

import hashlib
import json
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any, Protocol

import structlog
from aiogram import Bot
from aiogram.types import Chat, Message, Update, User

from bot.command_table import CommandLane
from bot.telegram.api.filters import asks_bot, find_thumb
from bot.telegram.api.updates import (
    conversation_key,
    find_addressed_text,
    find_command,
    is_group,
    is_typed,
    is_written,
    message_speaker,
)
from bot.telegram.ingress.album_buffer import AlbumBuffer
from bot.telegram.jobs import MODERATION_LANE, OWN_LANE, Payload, RejectionReason, UpdateArrived, UpdateRejected
from core.clock import Clock
from core.messages import Surface, chat_ref
from services.inbox.album_parts import AlbumPart
from services.inbox.job import LARGEST_PRIORITY, Job

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class AccessList:
    """ADMIN_IDS, ALLOWED_USER_IDS and ALLOWED_CHAT_IDS; empty users and chats admit every update."""

    admins: frozenset[int] = frozenset()
    users: frozenset[int] = frozenset()
    chats: frozenset[int] = frozenset()

    def admits(self, update: Update) -> bool:
        """Returns whether an update comes from a listed user or chat."""
        user, chat, _ = _parties(update)
        # A private chat has the id of its user, and some updates carry only the chat.
        return self.admits_ids(
            {each.id for each in (user, chat) if each is not None}, None if chat is None else chat.id
        )

    def admits_ids(self, users: Collection[int], chat_id: int | None) -> bool:
        """Returns whether one of these users, or the chat, is listed."""
        if not self.users and not self.chats:
            return True
        return not (self.users | self.admins).isdisjoint(users) or chat_id in self.chats


class BanList(Protocol):
    """Looks up bans."""

    is_empty: bool
    """True if there is none."""

    def is_banned(self, *references: str) -> bool:
        """Returns whether any of these people and chats is banned."""
        ...


def find_denial(update: Update, access: AccessList, bans: BanList | None) -> RejectionReason | None:
    """Returns why the bot does not answer the sender of an update, None if it does; operators are never banned."""
    if not access.admits(update):
        return "not-allowed"
    if bans is None or bans.is_empty:
        return None
    senders = {each.id for each in _parties(update) if each is not None}
    references = [chat_ref(Surface.TELEGRAM, each) for each in senders]
    return "banned" if senders.isdisjoint(access.admins) and bans.is_banned(*references) else None


def _parties(update: Update) -> tuple[User | None, Chat | None, Chat | None]:
    """Returns the user, the chat and the sending channel of an update, as far as it has them."""
    event = (
        update.message
        or update.edited_message
        or update.callback_query
        or update.stopped_message_generation
        or update.message_reaction
        or update.guest_message
    )
    user: User | None = getattr(event, "from_user", None) or getattr(event, "user", None)
    chat: Chat | None = getattr(event, "chat", None) or getattr(getattr(event, "message", None), "chat", None)
    return user, chat, getattr(event, "sender_chat", None)


class ModerationScope(Protocol):
    """Knows which groups are moderated."""

    async def concerns(self, update: Update) -> bool:
        """Returns whether moderation handles an update."""
        ...

    def is_entry_press(self, update: Update) -> bool:
        """Returns whether an update is a press at a group's gate, which is open to everyone."""
        ...


@dataclass(frozen=True, slots=True)
class Classified:
    """An update that leads to a job.

    Args:
        update: None if a bug prevented its classification.
        surplus_job: replaces the job if a limit refuses the update.
        is_limited: whether it counts in the rates of its sender.
    """

    job: Job
    raw: dict[str, Any]  # Any: as Telegram sent it
    update: Update | None
    surplus_job: Job | None = None
    is_limited: bool = False
    is_denial: bool = False
    """True if the job only tells a sender that the bot is not for them."""

    @property
    def message(self) -> Message | None:
        """The message of the update, if it has one."""
        return self.update.message if self.update is not None else None


@dataclass(frozen=True, slots=True)
class _Work:
    """The bot's work on an update.

    Args:
        lane: the queue lane; None for one of its own.
        is_prompt: as in `UpdateArrived`.
    """

    lane: str | None = None
    is_prompt: bool = False


class UpdateClassifier:
    """Finds the job of an update: access, relevance, moderation and queue lane.

    Args:
        bot: the bot that received the updates.
        moderation: knows which groups are moderated.
        access: the users and chats that the bot answers.
        clock: expires buffered albums.
        bans: the people and chats that operators banned.
    """

    def __init__(
        self, bot: Bot, moderation: ModerationScope, access: AccessList, clock: Clock, bans: BanList | None = None
    ) -> None:
        self._bot = bot
        self._moderation = moderation
        self._access = access
        self._bans = bans
        self.albums = AlbumBuffer(clock)
        """The parts that arrived a moment ago."""

    async def classify(self, update: Update, raw: dict[str, Any], parts: list[AlbumPart]) -> Classified | None:
        """Returns the update with its job; None for an irrelevant one, such as most messages of a group."""
        is_private = update.message is not None and not is_group(update.message)
        is_moderated = not is_private and await self._moderation.concerns(update)
        denial = find_denial(update, self._access, self._bans)
        if denial is not None and not self._moderation.is_entry_press(update):
            log.info("update.denied", update_id=update.update_id, reason=denial)
            if self._gets_denial(update):
                return Classified(rejection_job(self._bot.id, raw, denial), raw, update, is_denial=True)
            # A moderated group's messages are judged even if the bot does not answer their authors.
            judged = self._judged(update, raw, parts, is_admitted=False) if is_moderated else None
            return Classified(judged, raw, update) if judged is not None else None
        work = await self._find_work(update)
        if work is not None:
            message = update.message
            if message is not None and work.lane is not None:
                parts += self._join_album(message, raw, is_wanted=True)
            surplus = self._judged(update, raw, parts) if is_moderated else None
            job = arrival_job(self._bot.id, raw, work.lane, is_moderated=is_moderated, is_prompt=work.is_prompt)
            return Classified(job, raw, update, surplus, is_limited=True)
        judged = self._judged(update, raw, parts) if is_moderated else None
        if judged is None and update.message is not None:
            parts += self._join_album(update.message, raw, is_wanted=False)
        return Classified(judged, raw, update) if judged is not None else None

    async def _find_work(self, update: Update) -> _Work | None:
        """Returns the work of the bot; None for an update that is not for it."""
        message = update.message
        if message is not None:
            command = await find_command(message, self._bot)
            if command is not None:
                is_immediate = command.lane is CommandLane.IMMEDIATE
                return _Work(None if is_immediate else str(conversation_key(message)))
            text = await find_addressed_text(message, self._bot)
            if text is None:
                return None
            is_unknown_command = text.startswith("/") and is_typed(message)
            return _Work(str(conversation_key(message)), is_prompt=is_written(message) and not is_unknown_command)
        if (mention := update.guest_message) is not None:
            return _Work(f"guest:{message_speaker(mention).user_id}")
        if (edited := update.edited_message) is not None:
            is_for_bot = edited.media_group_id is None and is_typed(edited) and await asks_bot(edited, self._bot)
            return _Work(str(conversation_key(edited))) if is_for_bot else None
        reaction = update.message_reaction
        is_vote = reaction is not None and find_thumb(reaction) is not None
        is_press = update.callback_query is not None or update.stopped_message_generation is not None
        return _Work() if is_press or is_vote else None

    def _judged(
        self, update: Update, raw: dict[str, Any], parts: list[AlbumPart], *, is_admitted: bool = True
    ) -> Job | None:
        """Returns the job of a moderated update that is not for the bot."""
        if update.message is not None:
            parts += self._join_album(update.message, raw, is_wanted=True)
        return moderation_job(self._bot.id, update, raw, is_admitted=is_admitted)

    def _join_album(self, message: Message, raw: dict[str, Any], *, is_wanted: bool) -> list[AlbumPart]:
        """Returns the parts of the message's album that are to be stored now."""
        if message.media_group_id is None:
            return []
        return self.albums.join(message, json.dumps(raw), is_wanted=is_wanted)

    def _gets_denial(self, update: Update) -> bool:
        """Returns whether a denied user gets a reply: not in groups, as it would disturb others, and once per album."""
        message = update.message
        if message is None:
            return update.callback_query is not None
        return not is_group(message) and self.albums.reject_once(message)


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


def arrival_job(
    bot_id: int, raw: dict[str, Any], lane: str | None, *, is_moderated: bool | None = None, is_prompt: bool = False
) -> Job:
    """Returns the job that answers an update.

    Args:
        is_moderated: whether its group is moderated; None if that is not known yet.
    """
    payload = UpdateArrived(update=raw, is_moderated=is_moderated, is_prompt=is_prompt)
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
