"""Where an update goes: whether it is let in, whether anything is to be done about it, and behind which others."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import structlog
from aiogram import Bot
from aiogram.types import Message, Update

from bot.telegram.api.commands import CommandLane, find_command
from bot.telegram.api.messages import conversation_key, is_group, message_speaker
from bot.telegram.api.updates import is_for_bot, parse_update
from bot.telegram.ingress.access import AccessList
from bot.telegram.ingress.album_buffer import AlbumBuffer
from bot.telegram.jobs.payloads import JobSink, UpdateArrived, UpdateRejected, create_job
from core.clock import Clock
from core.errors import StorageError
from services.inbox.album_parts import AlbumPart
from services.inbox.job import Job

log = structlog.get_logger()


class ModerationScope(Protocol):
    """Knows which groups are moderated."""

    async def concerns(self, update: Update) -> bool:
        """Whether an update is its business."""
        ...


class AlbumPartStore(Protocol):
    """What keeps the parts of albums."""

    async def put(self, parts: Sequence[AlbumPart]) -> None:
        """Store them."""
        ...


@dataclass(frozen=True, slots=True)
class _Arrived:
    """An update that something is to be done about."""

    job: Job
    raw: dict[str, Any]  # Any: as Telegram sent it
    message: Message | None


class UpdateIngest:
    """Takes every update that came in, by polling or by webhook.

    Args:
        bot: whose updates.
        inbox: keeps what is to be done.
        parts: keeps the parts of albums.
        clock: tells when an album of a group is forgotten.
        moderation: knows which groups are moderated.
    """

    def __init__(
        self,
        *,
        bot: Bot,
        inbox: JobSink,
        parts: AlbumPartStore,
        clock: Clock,
        moderation: ModerationScope,
        access: AccessList,
    ) -> None:
        self._bot = bot
        self._inbox = inbox
        self._parts = parts
        self._moderation = moderation
        self._access = access
        self._albums = AlbumBuffer(clock)

    async def take(self, batch: Sequence[dict[str, Any]]) -> None:
        """Store what is to be done about a batch of updates, as Telegram sent them. What was stored before is no harm.

        Raises:
            StorageError: the database does not take it; nothing may be confirmed to Telegram.
        """
        parts: list[AlbumPart] = []
        arrived: list[_Arrived] = []
        for raw in batch:
            if not isinstance(raw.get("update_id"), int):
                log.error("intake.unreadable", kinds=list(raw))
                continue
            looked_at = await self._looked_at(raw, parts)
            if looked_at is not None:
                arrived.append(looked_at)
        await self._parts.put(parts)
        refused = {job.id for job in await self._inbox.put([each.job for each in arrived])}
        turned_away: list[Job] = []
        for each in arrived:
            message = each.message
            if each.job.id not in refused:
                if message is not None and message.media_group_id is not None:
                    self._albums.placed(message)
            elif message is None or self._albums.refused(message):
                turned_away.append(self._turned_away(each.raw, "queue-full"))
        if refused:
            log.warning("update.queue_full", updates=len(refused))
            await self._inbox.put(turned_away)

    async def _looked_at(self, raw: dict[str, Any], parts: list[AlbumPart]) -> "_Arrived | None":
        try:
            update = parse_update(raw, self._bot)
            job = await self._job(update, raw, parts) if update is not None else None
            return _Arrived(job, raw, update.message) if job is not None and update is not None else None
        except StorageError:
            raise
        except Exception:
            # A bug of ours neither loses this update nor keeps those beside it from being stored.
            log.exception("intake.not_understood", update_id=raw["update_id"])
            return _Arrived(self._arrived(raw, None), raw, None)

    async def _job(self, update: Update, raw: dict[str, Any], parts: list[AlbumPart]) -> Job | None:
        """What is to be done about an update, if anything: most of what people in a group say is not for the bot."""
        is_moderated = await self._moderation.concerns(update)
        if not self._access.admits(update):
            log.info("update.not_admitted", update_id=update.update_id)
            if self._is_to_be_told(update):
                return self._turned_away(raw, "not-allowed")
            # Whom the bot does not talk to is moderated all the same, where a group wants that.
            return self._judged(update, raw, parts, is_admitted=False) if is_moderated else None
        message = update.message
        command = await find_command(message, self._bot) if message is not None else None
        if command is not None and command.lane is CommandLane.IMMEDIATE:
            return self._arrived(raw, None)
        if message is not None and await is_for_bot(message, self._bot):
            parts += self._joined(message, raw, is_wanted=True)
            return self._arrived(raw, str(conversation_key(message)))
        if is_moderated:
            return self._judged(update, raw, parts)
        if message is not None:
            parts += self._joined(message, raw, is_wanted=False)
            return None
        is_of_use = update.callback_query is not None or update.stopped_message_generation is not None
        return self._arrived(raw, None) if is_of_use else None

    def _judged(
        self, update: Update, raw: dict[str, Any], parts: list[AlbumPart], *, is_admitted: bool = True
    ) -> Job | None:
        """What people in a moderated group say to each other, and every edit of it."""
        message = update.message or update.edited_message
        if message is None:
            return None
        lane = f"group:{message.chat.id}:{message_speaker(message).user_id}"
        if update.message is not None and message.media_group_id is not None:
            parts += self._joined(message, raw, is_wanted=True)
            # Behind each other, whichever of them turns out to be for the bot.
            lane = str(conversation_key(message))
        payload = UpdateArrived(update=raw, is_for_bot=False, is_admitted=is_admitted)
        return create_job(self._bot.id, raw["update_id"], lane, payload)

    def _joined(self, message: Message, raw: dict[str, Any], *, is_wanted: bool) -> list[AlbumPart]:
        """What is to be stored of the album that a message belongs to; most belong to none, and cost nothing here."""
        if message.media_group_id is None:
            return []
        return self._albums.join(message, json.dumps(raw), is_wanted=is_wanted)

    def _is_to_be_told(self, update: Update) -> bool:
        """Whether somebody is told that they are not let in: in a group it would disturb those who did not ask."""
        message = update.message
        if message is None:
            return update.callback_query is not None
        return not is_group(message) and self._albums.refused(message)

    def _arrived(self, raw: dict[str, Any], lane: str | None) -> Job:
        return create_job(self._bot.id, raw["update_id"], lane, UpdateArrived(update=raw), is_limited=lane is not None)

    def _turned_away(self, raw: dict[str, Any], reason: Any) -> Job:  # noqa: ANN401 - checked by the model
        return create_job(self._bot.id, raw["update_id"], None, UpdateRejected(update=raw, reason=reason))
