"""What moderation does in a group, through the Bot API. Floods are waited out by the delivery."""

import re
from collections.abc import Sequence
from datetime import datetime

import structlog
from aiogram.methods import (
    BanChatMember,
    BanChatSenderChat,
    DeleteMessage,
    DeleteMessages,
    RestrictChatMember,
    TelegramMethod,
    UnbanChatMember,
    UnbanChatSenderChat,
)
from aiogram.types import ChatPermissions

from bot.telegram.api.errors import ApiFailure, classify_api_error, describe_api_error
from bot.telegram.delivery.delivery import Delivery
from services.moderation.domain.message import AuthorKind
from services.moderation.domain.ports import ActionResult

log = structlog.get_logger()

MOST_AT_ONCE = 100
"""Messages that one `deleteMessages` takes."""
_ALL = tuple(name for name in ChatPermissions.model_fields if name.startswith("can_"))
SILENT = ChatPermissions(**dict.fromkeys(_ALL, False))
FREE = ChatPermissions(**dict.fromkeys(_ALL, True))
"""What a group forbids everybody stays forbidden."""

_WORDINGS = (
    (ActionResult.PROTECTED, r"is an administrator|chat owner|user_admin_invalid|restrict self|creator"),
    (
        ActionResult.GONE,
        (
            r"not found|user_not_participant|participant_id_invalid|user is deactivated|input_user_deactivated"
            r"|message_id_invalid|message identifier is not specified"
        ),
    ),
    (
        ActionResult.NO_RIGHT,
        (
            r"not enough rights|administrator rights|chat_admin_required|can't be deleted|have no rights"
            r"|right_forbidden|available only for supergroups|available for supergroup"
        ),
    ),
)


class GroupSanctions:
    """Deletes, mutes and bans.

    Args:
        delivery: the way out.
    """

    def __init__(self, delivery: Delivery) -> None:
        self._delivery = delivery

    async def delete(self, group_id: int, message_ids: Sequence[int]) -> ActionResult:
        """Take messages away, all of an album at once."""
        if len(message_ids) == 1:
            return await self._do("delete", DeleteMessage(chat_id=group_id, message_id=message_ids[0]), group_id)
        done = ActionResult.GONE
        for first in range(0, len(message_ids), MOST_AT_ONCE):
            batch = list(message_ids[first : first + MOST_AT_ONCE])
            done = await self._do("delete", DeleteMessages(chat_id=group_id, message_ids=batch), group_id)
        return done

    async def mute(self, group_id: int, member_id: int, until: datetime) -> ActionResult:
        """Let a member read and not write until then."""
        method = RestrictChatMember(chat_id=group_id, user_id=member_id, permissions=SILENT, until_date=until)
        return await self._do("mute", method, group_id)

    async def unmute(self, group_id: int, member_id: int) -> ActionResult:
        """Let a member write again."""
        method = RestrictChatMember(chat_id=group_id, user_id=member_id, permissions=FREE)
        return await self._do("unmute", method, group_id)

    async def ban(self, group_id: int, author_id: int, kind: AuthorKind) -> ActionResult:
        """Throw a member out for good, or keep a channel from speaking here."""
        method: TelegramMethod[bool] = (
            BanChatSenderChat(chat_id=group_id, sender_chat_id=author_id)
            if kind is AuthorKind.CHANNEL
            else BanChatMember(chat_id=group_id, user_id=author_id)
        )
        return await self._do("ban", method, group_id)

    async def unban(self, group_id: int, author_id: int, kind: AuthorKind) -> ActionResult:
        """Let somebody come back who was banned."""
        method: TelegramMethod[bool] = (
            UnbanChatSenderChat(chat_id=group_id, sender_chat_id=author_id)
            if kind is AuthorKind.CHANNEL
            else UnbanChatMember(chat_id=group_id, user_id=author_id, only_if_banned=True)
        )
        return await self._do("unban", method, group_id)

    async def _do(self, act: str, method: TelegramMethod[bool], group_id: int) -> ActionResult:
        error = await self._delivery.attempt(method, group_id)
        if error is None:
            return ActionResult.DONE
        done = done_after(error)
        log.info("moderation.act_failed", act=act, group_id=group_id, done=done.value, reason=describe_api_error(error))
        return done


def done_after(error: Exception) -> ActionResult:
    """What an act's failure means for what is told of it."""
    words = describe_api_error(error)
    for done, wording in _WORDINGS:
        if re.search(wording, words, re.IGNORECASE):
            return done
    return (
        ActionResult.GONE
        if classify_api_error(error) is ApiFailure.MESSAGE_GONE and "found" in words
        else ActionResult.FAILED
    )
