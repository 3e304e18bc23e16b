"""Classifies updates: access, relevance, moderation, queue lane, and the album that a part belongs to."""

import hashlib
import json
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import structlog
from aiogram import Bot
from aiogram.types import Message, Update
from cachetools import TTLCache

from bot.command_table import CommandLane
from bot.telegram.api.filters import addresses_bot, asks_bot, find_command, find_thumb, is_typed
from bot.telegram.api.updates import conversation_key, is_group, message_speaker
from bot.telegram.ingress.admission import AccessList, BanList, is_from_banned
from bot.telegram.jobs import (
    MODERATION_LANE,
    OWN_LANE,
    RejectionReason,
    UpdateArrived,
    UpdateRejected,
    create_job,
)
from core.clock import Clock
from services.inbox.album_parts import MAX_PARTS, AlbumPart
from services.inbox.job import Job

log = structlog.get_logger()

ALBUM_LIFETIME_S = 30.0
"""Lifetime of an album after its last part."""
MAX_ALBUMS = 1000


@dataclass(slots=True)
class _Album:
    is_wanted: bool = False
    is_accepted: bool = False
    is_rejected: bool = False
    parts: dict[int, AlbumPart] = field(default_factory=dict[int, AlbumPart])
    """By message id."""


class AlbumBuffer:
    """Albums with parts that this process received recently.

    In a group usually only the part with the caption is for the bot. The parts before it are buffered here and stored
    together with it; those after it are stored as they arrive.
    """

    def __init__(self, clock: Clock) -> None:
        self._albums: TTLCache[tuple[int, str], _Album] = TTLCache(MAX_ALBUMS, ALBUM_LIFETIME_S, timer=clock.monotonic)

    def join(self, message: Message, update: str, *, is_wanted: bool) -> list[AlbumPart]:
        """Adds a part to its album and returns the parts that are to be stored now.

        Args:
            message: the part.
            update: the update that brought it, as JSON.
            is_wanted: whether the part by itself is for the bot, or is moderated.
        """
        if message.media_group_id is None:
            return []
        album = self._album(message)
        album.is_wanted = album.is_wanted or is_wanted
        if len(album.parts) < MAX_PARTS:
            # Keyed by message: a batch that could not be stored comes again.
            part = AlbumPart(message.chat.id, message.media_group_id, message.message_id, update)
            album.parts.setdefault(part.message_id, part)
        return list(album.parts.values()) if album.is_wanted else []

    def mark_accepted(self, message: Message) -> None:
        """Marks the album of a part as stored: its other parts are answered with it."""
        self._album(message).is_accepted = True

    def reject_once(self, message: Message) -> bool:
        """Marks the album of a part as rejected; returns whether its sender is to be notified, once per album."""
        if message.media_group_id is None:
            return True
        album = self._album(message)
        is_first, album.is_rejected = not (album.is_rejected or album.is_accepted), True
        return is_first

    def _album(self, message: Message) -> _Album:
        key = (message.chat.id, message.media_group_id or "")
        album = self._albums.get(key) or _Album()
        # Storing it again restarts its expiry.
        self._albums[key] = album
        return album


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
        denial = self._find_denial(update)
        if denial is not None and not self._moderation.is_entry_press(update):
            log.info("update.denied", update_id=update.update_id, reason=denial)
            if self._gets_denial(update):
                return Classified(self.rejected(raw, denial), raw, update, is_denial=True)
            # A moderated group's messages are judged even if the bot does not answer their authors.
            judged = self._judged(update, raw, parts, is_admitted=False) if is_moderated else None
            return Classified(judged, raw, update) if judged is not None else None
        lane, is_for_bot = await self._find_lane(update)
        if is_for_bot:
            message = update.message
            if message is not None and lane is not None:
                parts += self._join_album(message, raw, is_wanted=True)
            surplus = self._judged(update, raw, parts) if is_moderated else None
            job = self.arrived(raw, lane, is_moderated=is_moderated)
            return Classified(job, raw, update, surplus, is_limited=True)
        judged = self._judged(update, raw, parts) if is_moderated else None
        if judged is None and update.message is not None:
            parts += self._join_album(update.message, raw, is_wanted=False)
        return Classified(judged, raw, update) if judged is not None else None

    def _find_denial(self, update: Update) -> RejectionReason | None:
        """Returns why the bot does not answer the sender of an update; None if it does."""
        if not self._access.admits(update):
            return "not-allowed"
        if self._bans is not None and is_from_banned(update, self._bans, self._access.admins):
            return "banned"
        return None

    async def _find_lane(self, update: Update) -> tuple[str | None, bool]:
        """Returns the lane of an update, None for one of its own, and whether the update is for the bot."""
        message = update.message
        if (mention := update.guest_message) is not None:
            return f"guest:{message_speaker(mention).user_id}", True
        if (edited := update.edited_message) is not None:
            is_for_bot = edited.media_group_id is None and is_typed(edited) and await asks_bot(edited, self._bot)
            return (str(conversation_key(edited)), True) if is_for_bot else (None, False)
        if message is None:
            reaction = update.message_reaction
            is_vote = reaction is not None and find_thumb(reaction) is not None
            is_press = update.callback_query is not None or update.stopped_message_generation is not None
            return None, is_press or is_vote
        command = await find_command(message, self._bot)
        if command is not None and command.lane is CommandLane.IMMEDIATE:
            return None, True
        if command is not None or await addresses_bot(message, self._bot):
            return str(conversation_key(message)), True
        return None, False

    def _judged(
        self, update: Update, raw: dict[str, Any], parts: list[AlbumPart], *, is_admitted: bool = True
    ) -> Job | None:
        """Returns the job of a moderated message or edit that is not for the bot: ordered by author."""
        message = update.message or update.edited_message
        if message is None:
            return self._joined(update, raw)
        lane = f"{MODERATION_LANE}{message.chat.id}:{message_speaker(message).user_id}"
        if update.message is not None and message.media_group_id is not None:
            parts += self._join_album(message, raw, is_wanted=True)
            # The conversation's lane, since any part may turn out to be for the bot.
            lane = str(conversation_key(message))
        payload = UpdateArrived(update=raw, is_for_bot=False, is_admitted=is_admitted, is_moderated=True)
        return create_job(self._bot.id, raw["update_id"], lane, payload)

    def _joined(self, update: Update, raw: dict[str, Any]) -> Job | None:
        """Returns the job of a change of a moderated group's members: ordered with that person's messages."""
        changed, request = update.chat_member or update.my_chat_member, update.chat_join_request
        if changed is not None:
            lane = f"{MODERATION_LANE}{changed.chat.id}:{changed.new_chat_member.user.id}"
        elif request is not None:
            lane = f"{MODERATION_LANE}{request.chat.id}:{request.from_user.id}"
        else:
            return None
        payload = UpdateArrived(update=raw, is_for_bot=False, is_admitted=False, is_moderated=True)
        return create_job(self._bot.id, raw["update_id"], lane, payload)

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

    def arrived(self, raw: dict[str, Any], lane: str | None, *, is_moderated: bool | None) -> Job:
        """Returns the job that answers an update.

        Args:
            is_moderated: whether its group is moderated; None if that is not known yet.
        """
        payload = UpdateArrived(update=raw, is_moderated=is_moderated)
        return create_job(self._bot.id, raw["update_id"], lane, payload, is_limited=lane is not None)

    def unnumbered(self, raw: dict[str, Any]) -> Job:
        """Returns a job of an update without a valid id: the same one each time, as no offset can confirm it."""
        digest = hashlib.sha256(json.dumps(raw, sort_keys=True).encode()).hexdigest()[:16]
        job = create_job(self._bot.id, 0, None, UpdateArrived(update=raw))
        return replace(job, id=f"tg-{self._bot.id}-{digest}", lane=f"{OWN_LANE}{digest}")

    def rejected(self, raw: dict[str, Any], reason: RejectionReason, renewal_s: int | None = None) -> Job:
        """Returns the job that tells a sender why an update is not answered."""
        payload = UpdateRejected(update=raw, reason=reason, renewal_s=renewal_s)
        return create_job(self._bot.id, raw["update_id"], None, payload)
