"""Moderation's door: every message of a moderated group, and every edit, comes in here once."""

from collections.abc import Sequence

import structlog
from aiogram.types import Message, Update

from bot.telegram.api.messages import is_group
from bot.telegram.api.updates import SERVICE_CONTENT
from bot.telegram.moderation.messages import to_group_message
from services.moderation.pipeline import ModerationOutcome, Pipeline, Stage
from services.moderation.records.groups import GroupStore

log = structlog.get_logger()

PASSED = ModerationOutcome(Stage.EXEMPT)


class ModerationGateway:
    """Looks at the messages of moderated groups.

    Args:
        groups: which groups are moderated, and how.
        pipeline: judges.
    """

    def __init__(self, groups: GroupStore, pipeline: Pipeline) -> None:
        self._groups = groups
        self._pipeline = pipeline

    async def concerns(self, update: Update) -> bool:
        """Whether an update is a message of a moderated group, or tells that such a group has another id now.

        Raises:
            StorageError: the database fails.
        """
        message = update.message or update.edited_message
        if message is None or not is_group(message):
            return False
        if message.migrate_from_chat_id is not None:
            return await self._groups.get(message.migrate_from_chat_id) is not None
        settings = await self._groups.get(message.chat.id)
        return settings is not None and (settings.is_on or message.migrate_to_chat_id is not None)

    async def moderate(self, update: Update, album: Sequence[Message] = ()) -> ModerationOutcome:
        """Judge the message of an update and do what follows; may be repeated, here and on other replicas.

        Args:
            update: the message, or a version of it.
            album: every part of the album that it belongs to, which are judged as one; empty where it is none.

        Raises:
            StorageError: the database fails; nothing is lost if it is tried again.
        """
        message = update.message or update.edited_message
        if message is None:
            return PASSED
        if message.migrate_to_chat_id is not None or message.migrate_from_chat_id is not None:
            await self._follow(message)
            return PASSED
        settings = await self._groups.get(message.chat.id)
        if settings is None or not settings.is_on or message.content_type in SERVICE_CONTENT:
            return PASSED
        seen = to_group_message(message, album)
        outcome = await self._pipeline.handle(seen, settings, album=message.media_group_id if album else None)
        log.debug(
            "moderation.handled", group_id=message.chat.id, message_id=seen.message_id,
            stage=outcome.stage.value, removed=outcome.removed, incident=outcome.incident,
        )  # fmt: skip
        return outcome

    async def _follow(self, message: Message) -> None:
        """A group became a supergroup: what its admins chose goes with it."""
        old_id = message.migrate_from_chat_id or message.chat.id
        new_id = message.migrate_to_chat_id or message.chat.id
        if await self._groups.move(old_id, new_id):
            log.info("moderation.group_moved", group_id=old_id, new_group_id=new_id)
