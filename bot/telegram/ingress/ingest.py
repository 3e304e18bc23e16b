"""Classifies updates: access, relevance, moderation and queue lane; stores them as jobs."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import structlog
from aiogram import Bot
from aiogram.types import Message, Update

from bot.telegram.api.commands import CommandLane, find_command
from bot.telegram.api.messages import conversation_key, is_group, message_speaker
from bot.telegram.api.updates import addresses_bot, is_update_id, parse_update
from bot.telegram.ingress.access import AccessList
from bot.telegram.ingress.album_buffer import AlbumBuffer
from bot.telegram.jobs.payloads import JobSink, RejectionReason, UpdateArrived, UpdateRejected, create_job
from core.clock import Clock
from core.errors import StorageError
from services.inbox.album_parts import AlbumPart
from services.inbox.job import Job

log = structlog.get_logger()


class ModerationScope(Protocol):
    """Knows which groups are moderated."""

    async def concerns(self, update: Update) -> bool:
        """Returns whether moderation handles an update."""
        ...


class Quarantine(Protocol):
    """Keeps jobs that could not be enqueued; the dead letters."""

    async def add(self, job: Job, reason: str) -> bool:
        """Stores a job with the reason; idempotent."""
        ...


class AlbumPartStore(Protocol):
    """Stores the parts of albums."""

    async def put(self, parts: Sequence[AlbumPart]) -> None:
        """Stores parts; idempotent."""
        ...


@dataclass(frozen=True, slots=True)
class _Classified:
    """An update that leads to a job."""

    job: Job
    raw: dict[str, Any]  # Any: as Telegram sent it
    message: Message | None


class UpdateIngest:
    """Classifies each received update once and stores its job.

    The facts of the classification travel in the job: the worker does not classify again.

    Args:
        bot: the bot that received the updates.
        inbox: stores jobs.
        quarantine: keeps updates over which a bug prevents a job.
        on_quarantined: called with the reason of each of these; must not block.
        parts: stores album parts.
        clock: expires buffered albums.
        moderation: knows which groups are moderated.
        access: the users and chats that the bot answers.
    """

    def __init__(
        self,
        *,
        bot: Bot,
        inbox: JobSink,
        quarantine: Quarantine,
        on_quarantined: Callable[[str], None],
        parts: AlbumPartStore,
        clock: Clock,
        moderation: ModerationScope,
        access: AccessList,
    ) -> None:
        self._bot = bot
        self._inbox = inbox
        self._quarantine = quarantine
        self._on_quarantined = on_quarantined
        self._parts = parts
        self._moderation = moderation
        self._access = access
        self._albums = AlbumBuffer(clock)

    async def take(self, batch: Sequence[dict[str, Any]]) -> None:
        """Stores the jobs of a batch of raw updates; idempotent.

        An update over which a bug prevents that is quarantined, and the rest of the batch is stored.

        Raises:
            StorageError: the batch is not stored and must not be confirmed to Telegram.
        """
        try:
            await self._take(batch)
        except StorageError:
            raise
        except Exception:
            log.exception("update.batch_failed", updates=len(batch))
            for raw in batch:
                await self._take_alone(raw)

    async def _take_alone(self, raw: dict[str, Any]) -> None:
        """Stores an update of a batch that could not be stored as a whole, or quarantines it."""
        try:
            await self._take([raw])
        except StorageError:
            raise
        except Exception as error:
            reason = f"taking it in failed: {type(error).__name__}"
            log.exception("update.quarantined", update_id=raw.get("update_id"))
            if await self._quarantine.add(self._arrived(raw, None, is_moderated=None), reason):
                self._on_quarantined(reason)

    async def _take(self, batch: Sequence[dict[str, Any]]) -> None:
        parts: list[AlbumPart] = []
        classified: list[_Classified] = []
        for raw in batch:
            if not is_update_id(raw.get("update_id")):
                log.error("update.unreadable", kinds=list(raw))
                continue
            update = await self._classify(raw, parts)
            if update is not None:
                classified.append(update)
        if parts:
            await self._parts.put(parts)
        refused = {job.id for job in await self._inbox.put([each.job for each in classified])}
        rejections: list[Job] = []
        for each in classified:
            message = each.message
            if each.job.id not in refused:
                if message is not None and message.media_group_id is not None:
                    self._albums.mark_accepted(message)
            elif message is None or self._albums.reject_once(message):
                rejections.append(self._rejected(each.raw, "queue-full"))
        if refused:
            log.warning("update.queue_full", updates=len(refused))
            await self._inbox.put(rejections)

    async def _classify(self, raw: dict[str, Any], parts: list[AlbumPart]) -> _Classified | None:
        """Returns the update with its job, or None if it leads to none; adds the album parts to store to `parts`."""
        try:
            update = parse_update(raw, self._bot)
            job = await self._job(update, raw, parts) if update is not None else None
            return _Classified(job, raw, update.message) if job is not None and update is not None else None
        except StorageError:
            raise
        except Exception:
            # A bug here must neither lose this update nor keep the rest of the batch from being stored.
            log.exception("update.classification_failed", update_id=raw["update_id"])
            return _Classified(self._arrived(raw, None, is_moderated=None), raw, None)

    async def _job(self, update: Update, raw: dict[str, Any], parts: list[AlbumPart]) -> Job | None:
        """Returns the job of an update; None for an irrelevant one, such as most messages of a group."""
        is_moderated = await self._moderation.concerns(update)
        if not self._access.admits(update):
            log.info("update.denied", update_id=update.update_id)
            if self._gets_denial(update):
                return self._rejected(raw, "not-allowed")
            # A moderated group's messages are judged even if the bot does not answer their authors.
            return self._judged(update, raw, parts, is_admitted=False) if is_moderated else None
        message = update.message
        command = await find_command(message, self._bot) if message is not None else None
        if command is not None and command.lane is CommandLane.IMMEDIATE:
            return self._arrived(raw, None, is_moderated=is_moderated)
        if message is not None and (command is not None or await addresses_bot(message, self._bot)):
            parts += self._join_album(message, raw, is_wanted=True)
            return self._arrived(raw, str(conversation_key(message)), is_moderated=is_moderated)
        if is_moderated:
            return self._judged(update, raw, parts)
        if message is not None:
            parts += self._join_album(message, raw, is_wanted=False)
            return None
        is_handled = update.callback_query is not None or update.stopped_message_generation is not None
        return self._arrived(raw, None, is_moderated=False) if is_handled else None

    def _judged(
        self, update: Update, raw: dict[str, Any], parts: list[AlbumPart], *, is_admitted: bool = True
    ) -> Job | None:
        """Returns the job of a moderated message or edit that is not for the bot: ordered by author."""
        message = update.message or update.edited_message
        if message is None:
            return None
        lane = f"group:{message.chat.id}:{message_speaker(message).user_id}"
        if update.message is not None and message.media_group_id is not None:
            parts += self._join_album(message, raw, is_wanted=True)
            # The conversation's lane, since any part may turn out to be for the bot.
            lane = str(conversation_key(message))
        payload = UpdateArrived(update=raw, is_for_bot=False, is_admitted=is_admitted, is_moderated=True)
        return create_job(self._bot.id, raw["update_id"], lane, payload)

    def _join_album(self, message: Message, raw: dict[str, Any], *, is_wanted: bool) -> list[AlbumPart]:
        """Returns the parts of the message's album that are to be stored now."""
        if message.media_group_id is None:
            return []
        return self._albums.join(message, json.dumps(raw), is_wanted=is_wanted)

    def _gets_denial(self, update: Update) -> bool:
        """Returns whether a denied user gets a reply: not in groups, as it would disturb others, and once per album."""
        message = update.message
        if message is None:
            return update.callback_query is not None
        return not is_group(message) and self._albums.reject_once(message)

    def _arrived(self, raw: dict[str, Any], lane: str | None, *, is_moderated: bool | None) -> Job:
        payload = UpdateArrived(update=raw, is_moderated=is_moderated)
        return create_job(self._bot.id, raw["update_id"], lane, payload, is_limited=lane is not None)

    def _rejected(self, raw: dict[str, Any], reason: RejectionReason) -> Job:
        return create_job(self._bot.id, raw["update_id"], None, UpdateRejected(update=raw, reason=reason))
