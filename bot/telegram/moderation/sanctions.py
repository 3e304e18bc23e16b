"""Deletes, mutes and bans through the Bot API. The delivery waits for rate limits."""

import re
from collections.abc import Sequence
from datetime import datetime

import structlog
from aiogram.exceptions import TelegramBadRequest, TelegramForbiddenError
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

from bot.telegram.api.errors import describe_api_error
from bot.telegram.api.group_admins import GroupAdmins
from bot.telegram.delivery.delivery import Delivery
from services.moderation.domain.message import AuthorKind
from services.moderation.domain.ports import ActionResult, Restriction

log = structlog.get_logger()

DELETE_BATCH = 100
"""Messages per `deleteMessages` call, Telegram's limit."""
_PERMISSIONS = tuple(name for name in ChatPermissions.model_fields if name.startswith("can_"))
MUTED = ChatPermissions(**dict.fromkeys(_PERMISSIONS, False))
UNMUTED = ChatPermissions(**dict.fromkeys(_PERMISSIONS, True))
"""The group's default permissions still apply."""

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
    """Deletes messages, mutes and bans members and channels. All methods are idempotent."""

    def __init__(self, delivery: Delivery, admins: GroupAdmins) -> None:
        self._delivery = delivery
        self._admins = admins

    async def delete(self, group_id: int, message_ids: Sequence[int]) -> ActionResult:
        """Deletes messages, all parts of an album in one call; returns a failure if any of the calls failed."""
        if len(message_ids) == 1:
            return await self._call("delete", DeleteMessage(chat_id=group_id, message_id=message_ids[0]), group_id)
        results: list[ActionResult] = []
        for first in range(0, len(message_ids), DELETE_BATCH):
            batch = list(message_ids[first : first + DELETE_BATCH])
            results.append(await self._call("delete", DeleteMessages(chat_id=group_id, message_ids=batch), group_id))
        done = ActionResult.DONE if ActionResult.DONE in results else ActionResult.GONE
        return next((result for result in results if not result.is_effective), done)

    async def mute(self, group_id: int, member_id: int, until: datetime) -> ActionResult:
        """Makes a member read-only until then."""
        method = RestrictChatMember(chat_id=group_id, user_id=member_id, permissions=MUTED, until_date=until)
        return await self._call("mute", method, group_id)

    async def fetch_restriction(self, group_id: int, member_id: int) -> Restriction | None:
        """Returns the restriction of a member, `UNRESTRICTED` if there is none; None if that is not known."""
        return await self._admins.fetch_restriction(group_id, member_id)

    async def unmute(self, group_id: int, member_id: int, before: Restriction | None = None) -> ActionResult:
        """Lifts a mute, or puts the restriction back that it replaced."""
        permissions, until = UNMUTED, None
        if before is not None:
            granted = {name: name in before.permissions for name in _PERMISSIONS}
            permissions, until = ChatPermissions(**granted), before.until
        method = RestrictChatMember(
            chat_id=group_id,
            user_id=member_id,
            permissions=permissions,
            use_independent_chat_permissions=None if before is None else True,
            until_date=until,
        )
        return await self._call("unmute", method, group_id)

    async def ban(self, group_id: int, author_id: int, kind: AuthorKind) -> ActionResult:
        """Bans a member permanently, or a channel from posting here."""
        method: TelegramMethod[bool] = (
            BanChatSenderChat(chat_id=group_id, sender_chat_id=author_id)
            if kind is AuthorKind.CHANNEL
            else BanChatMember(chat_id=group_id, user_id=author_id)
        )
        return await self._call("ban", method, group_id)

    async def unban(self, group_id: int, author_id: int, kind: AuthorKind) -> ActionResult:
        """Lifts a ban."""
        method: TelegramMethod[bool] = (
            UnbanChatSenderChat(chat_id=group_id, sender_chat_id=author_id)
            if kind is AuthorKind.CHANNEL
            else UnbanChatMember(chat_id=group_id, user_id=author_id, only_if_banned=True)
        )
        return await self._call("unban", method, group_id)

    async def _call(self, action: str, method: TelegramMethod[bool], group_id: int) -> ActionResult:
        error = await self._delivery.attempt(method, group_id)
        if error is None:
            return ActionResult.DONE
        result, reason = classify_sanction_error(error), describe_api_error(error)
        log.info("moderation.action_failed", action=action, group_id=group_id, result=result.value, reason=reason)
        return result


def classify_sanction_error(error: Exception) -> ActionResult:
    """Classifies the error of a sanction or deletion: by the words of a refusal, anything else is a failure."""
    if isinstance(error, TelegramBadRequest | TelegramForbiddenError):
        for result, wording in _WORDINGS:
            if re.search(wording, error.message, re.IGNORECASE):
                return result
    return ActionResult.FAILED
