"""Entry point of moderation: passes every message of a moderated group, and every edit, to the pipeline."""

from collections.abc import Sequence

import structlog
from aiogram.types import Chat, ChatMemberRestricted, ChatMemberUpdated, Message, Update
from aiogram.types.chat_member_union import ChatMemberUnion

from bot.telegram.api.group_admins import ADMIN_STATUSES, PRESENT_STATUSES
from bot.telegram.api.updates import SERVICE_CONTENT, is_group
from bot.telegram.moderation.attachments import read_event_words
from bot.telegram.moderation.gate_messages import PRESS_PREFIX, read_group
from bot.telegram.moderation.messages import to_group_message
from services.moderation.case import ModerationOutcome, Stage
from services.moderation.domain.settings import GroupSettings
from services.moderation.newcomers.newcomers import Join, Newcomers
from services.moderation.pipeline import Pipeline
from services.moderation.records.groups import GroupStore

log = structlog.get_logger()

GROUPS = frozenset({"group", "supergroup"})
UNTOUCHED = ModerationOutcome(Stage.EXEMPT)


class ModerationGateway:
    """Moderates the updates of groups where moderation is on."""

    def __init__(self, groups: GroupStore, pipeline: Pipeline, newcomers: Newcomers, self_id: int) -> None:
        self._newcomers = newcomers
        self._self_id = self_id
        self._groups = groups
        self._pipeline = pipeline

    async def concerns(self, update: Update) -> bool:
        """Returns whether an update is of a moderated group: a message, a change of its members, its migration.

        Raises:
            StorageError: the database fails.
        """
        chat = _entry_chat(update)
        if chat is not None and update.my_chat_member is not None:
            # The bot often becomes an admin before moderation is switched on.
            return chat.type in GROUPS
        if chat is not None:
            settings = await self._groups.get(chat.id)
            return settings is not None and settings.is_on
        message = update.message or update.edited_message
        if message is None or not is_group(message):
            return False
        if message.migrate_from_chat_id is not None:
            return await self._groups.get(message.migrate_from_chat_id) is not None
        settings = await self._groups.get(message.chat.id)
        return settings is not None and (settings.is_on or message.migrate_to_chat_id is not None)

    def is_entry_press(self, update: Update) -> bool:
        """Returns whether an update is a press or a `/start` at a group's gate, which is open to everyone."""
        query, message = update.callback_query, update.message
        if query is not None:
            return (query.data or "").startswith(f"{PRESS_PREFIX}:")
        command, _, argument = (message.text or "" if message is not None else "").partition(" ")
        return command == "/start" and read_group(argument) is not None

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
            await self._handle_entry(update)
            return UNTOUCHED
        if message.migrate_to_chat_id is not None or message.migrate_from_chat_id is not None:
            await self._migrate(message)
            return UNTOUCHED
        settings = await self._groups.get(message.chat.id)
        if settings is None or not settings.is_on:
            return UNTOUCHED
        if message.content_type in SERVICE_CONTENT and not any(read_event_words(message)):
            return UNTOUCHED
        group_message = to_group_message(message, album)
        outcome = await self._pipeline.handle(group_message, settings)
        log.debug(
            "moderation.handled", group_id=message.chat.id, message_id=group_message.message_id,
            stage=outcome.stage.value, removed=outcome.removed, incident=outcome.incident,
        )  # fmt: skip
        return outcome

    async def _handle_entry(self, update: Update) -> None:
        """Handles a change of a member, of the bot's own rights, or a request to join."""
        chat = _entry_chat(update)
        if chat is not None and update.my_chat_member is not None:
            is_admin = update.my_chat_member.new_chat_member.status in ADMIN_STATUSES
            await self._newcomers.set_presence(chat.id, is_admin=is_admin)
            return
        settings = await self._groups.get(chat.id) if chat is not None else None
        if settings is None or not settings.is_on:
            return
        changed, request = update.chat_member, update.chat_join_request
        if request is not None:
            await self._newcomers.gate.request(settings.group_id, request.from_user.id, request.user_chat_id, settings)
        elif changed is not None:
            await self._handle_change(changed, settings)

    async def _handle_change(self, changed: ChatMemberUpdated, settings: GroupSettings) -> None:
        user, actor = changed.new_chat_member.user, changed.from_user.id
        before, after = map(_is_in, (changed.old_chat_member, changed.new_chat_member))
        if after and not before:
            join = Join(settings.group_id, user.id, actor, changed.date, is_bot=user.is_bot)
            await self._newcomers.join(join, settings)
        elif (
            after
            and actor not in {user.id, self._self_id}
            and isinstance(changed.new_chat_member, ChatMemberRestricted)
        ):
            await self._newcomers.gate.restricted_by_admin(settings.group_id, user.id)

    async def _migrate(self, message: Message) -> None:
        """Moves a group's data to the id of its supergroup."""
        old_id = message.migrate_from_chat_id or message.chat.id
        new_id = message.migrate_to_chat_id or message.chat.id
        if await self._groups.move(old_id, new_id):
            log.info("moderation.group_moved", group_id=old_id, new_group_id=new_id)


def _entry_chat(update: Update) -> Chat | None:
    """Returns the group of a change of its members or of a request to join; None for another update."""
    event = update.chat_member or update.my_chat_member or update.chat_join_request
    return None if event is None else event.chat


def _is_in(member: ChatMemberUnion) -> bool:
    is_member = isinstance(member, ChatMemberRestricted) and member.is_member
    return member.status in PRESENT_STATUSES or is_member
