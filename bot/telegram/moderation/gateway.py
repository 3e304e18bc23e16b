"""Entry point of moderation: passes every message of a moderated group, and every edit, to the pipeline."""

from collections.abc import Sequence

import structlog
from aiogram.types import Message, Update

from bot.telegram.api.messages import is_group
from bot.telegram.api.updates import SERVICE_CONTENT
from bot.telegram.moderation.messages import to_group_message
from services.moderation.pipeline import ModerationOutcome, Pipeline, Stage
from services.moderation.records.groups import GroupStore

log = structlog.get_logger()

UNTOUCHED = ModerationOutcome(Stage.EXEMPT)


class ModerationGateway:
    """Moderates the updates of groups where moderation is on."""

    def __init__(self, groups: GroupStore, pipeline: Pipeline) -> None:
        self._groups = groups
        self._pipeline = pipeline

    async def concerns(self, update: Update) -> bool:
        """Returns whether an update is a message of a moderated group, or reports that such a group was migrated.

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
        """Judges the message of an update and enforces the verdict; idempotent, also across replicas.

        Args:
            update: a new or edited message.
            album: every part of its album, judged as one message; empty for a single message.

        Raises:
            StorageError: the database fails; a retry continues where this call stopped.
        """
        message = update.message or update.edited_message
        if message is None:
            return UNTOUCHED
        if message.migrate_to_chat_id is not None or message.migrate_from_chat_id is not None:
            await self._migrate(message)
            return UNTOUCHED
        settings = await self._groups.get(message.chat.id)
        if settings is None or not settings.is_on or message.content_type in SERVICE_CONTENT:
            return UNTOUCHED
        group_message = to_group_message(message, album)
        outcome = await self._pipeline.handle(group_message, settings)
        log.debug(
            "moderation.handled", group_id=message.chat.id, message_id=group_message.message_id,
            stage=outcome.stage.value, removed=outcome.removed, incident=outcome.incident,
        )  # fmt: skip
        return outcome

    async def _migrate(self, message: Message) -> None:
        """Moves a group's data to the id of its supergroup."""
        old_id = message.migrate_from_chat_id or message.chat.id
        new_id = message.migrate_to_chat_id or message.chat.id
        if await self._groups.move(old_id, new_id):
            log.info("moderation.group_moved", group_id=old_id, new_group_id=new_id)
