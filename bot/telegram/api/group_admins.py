"""Who is who in a group."""

import asyncio
from dataclasses import dataclass
from typing import Any, cast

import structlog
from aiogram import Bot
from aiogram.enums import ChatMemberStatus
from aiogram.exceptions import ClientDecodeError, TelegramAPIError

from bot.telegram.api.errors import describe_api_error
from core.clock import Clock
from services.moderation.domain.ports import Administrators

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
        log.warning("members.admin_unknown", chat_id=chat_id, reason=describe_api_error(error))
        return False
    return member.status in ADMINS


log = structlog.get_logger()

FRESH_S = 300.0
"""For how long a list holds: whoever was made an admin a moment ago is found by `is_admin` anyway."""
DOUBTED_S = 15.0
"""The age from which a list is asked for anew because somebody is not in it who acts as an admin."""
FAILED_S = 15.0
"""For how long a failure is remembered: until then nothing is done in that group."""
GROUPS_KEPT = 10_000
CALL_TIMEOUT_S = 10
NEEDED = ("can_delete_messages", "can_restrict_members")


@dataclass(frozen=True, slots=True)
class _Known:
    staff: Administrators | None
    at: float


class GroupAdmins:
    """The lists of all groups that this process has asked for.

    Args:
        bot: asks.
        clock: how old a list is.
    """

    def __init__(self, bot: Bot, clock: Clock) -> None:
        self._bot = bot
        self._clock = clock
        self._known: dict[int, _Known] = {}
        self._asking: dict[int, asyncio.Task[Administrators | None]] = {}

    async def get_admins(self, group_id: int) -> Administrators | None:
        """Who runs a group; None where Telegram does not tell."""
        return await self._staff(group_id, FRESH_S)

    async def is_admin(self, group_id: int, user_id: int) -> bool:
        """Whether somebody is an admin; not, where Telegram does not tell."""
        for age_s in (FRESH_S, DOUBTED_S):
            staff = await self._staff(group_id, age_s)
            if staff is not None and user_id in staff.user_ids:
                return True
        return False

    async def lacks(self, group_id: int) -> frozenset[str] | None:
        """The rights that moderation needs and the bot does not have there; None where Telegram does not tell."""
        try:
            me = await self._bot.get_chat_member(group_id, self._bot.id, request_timeout=CALL_TIMEOUT_S)
        except (TelegramAPIError, ClientDecodeError) as error:
            match _payload(error):
                case {"status": _, **fields}:
                    return frozenset(right for right in NEEDED if fields.get(right) is not True)
                case _:
                    log.warning("staff.rights_unknown", group_id=group_id, reason=describe_api_error(error))
                    return None
        return frozenset(right for right in NEEDED if getattr(me, right, False) is not True)

    async def _staff(self, group_id: int, age_s: float) -> Administrators | None:
        known = self._known.get(group_id)
        if known is not None:
            limit = FAILED_S if known.staff is None else age_s
            if self._clock.monotonic() - known.at < limit:
                return known.staff
        asking = self._asking.get(group_id)
        if asking is None:
            asking = self._asking[group_id] = asyncio.create_task(self._asked(group_id), name="staff")
            asking.add_done_callback(lambda _: self._asking.pop(group_id, None))
        # Others may wait for the same answer: whoever stops waiting does not take it from them.
        return await asyncio.shield(asking)

    async def _asked(self, group_id: int) -> Administrators | None:
        admins, linked = await asyncio.gather(self._admins(group_id), self._linked_channel(group_id))
        staff = None if admins is None or linked is None else Administrators(admins, linked or None)
        if len(self._known) >= GROUPS_KEPT:
            self._known.clear()
        self._known[group_id] = _Known(staff, self._clock.monotonic())
        return staff

    async def _admins(self, group_id: int) -> frozenset[int] | None:
        try:
            members = await self._bot.get_chat_administrators(
                group_id, return_bots=True, request_timeout=CALL_TIMEOUT_S
            )
        except (TelegramAPIError, ClientDecodeError) as error:
            match _payload(error):
                case [*rows]:
                    # A server of another version, whose rights are not quite those that the library knows.
                    return frozenset(_ids(cast("list[object]", rows)))
                case _:
                    log.warning("staff.unknown", group_id=group_id, reason=describe_api_error(error))
                    return None
        return frozenset(member.user.id for member in members)

    async def _linked_channel(self, group_id: int) -> int | None:
        """The linked channel, 0 where there is none, None where Telegram does not tell."""
        try:
            chat = await self._bot.get_chat(group_id, request_timeout=CALL_TIMEOUT_S)
        except (TelegramAPIError, ClientDecodeError) as error:
            match _payload(error):
                case {"linked_chat_id": int(linked)}:
                    return linked
                case {"id": _}:
                    return 0
                case _:
                    log.warning("staff.channel_unknown", group_id=group_id, reason=describe_api_error(error))
                    return None
        return chat.linked_chat_id or 0


def _payload(error: Exception) -> Any:  # noqa: ANN401 - whatever JSON came
    """What Telegram answered, where only the library could not read it."""
    match getattr(error, "data", None):
        case {"ok": True, "result": result}:
            return result
        case _:
            return None


def _ids(rows: list[object]) -> list[int]:
    found: list[int] = []
    for row in rows:
        match row:
            case {"user": {"id": int(user_id)}}:
                found.append(user_id)
            case _:
                pass
    return found
