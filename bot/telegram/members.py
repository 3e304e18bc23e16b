"""Who is who in a group."""

import structlog
from aiogram import Bot
from aiogram.enums import ChatMemberStatus
from aiogram.exceptions import ClientDecodeError, TelegramAPIError

from bot.telegram.faults import reason_of

log = structlog.get_logger()

ADMINS = frozenset({ChatMemberStatus.CREATOR, ChatMemberStatus.ADMINISTRATOR})


async def is_chat_admin(bot: Bot, chat_id: int, user_id: int) -> bool:
    """Whether a user is an admin of a chat; not, where Telegram does not tell."""
    try:
        member = await bot.get_chat_member(chat_id, user_id)
    except (TelegramAPIError, ClientDecodeError) as error:
        match getattr(error, "data", None):
            case {"ok": True, "result": {"status": str(status)}}:
                # A server of another version, whose rights are not quite those that the library knows.
                return status in ADMINS
            case _:
                pass
        log.warning("members.admin_unknown", chat_id=chat_id, reason=reason_of(error))
        return False
    return member.status in ADMINS
