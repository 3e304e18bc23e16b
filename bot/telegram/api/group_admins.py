"""Looks up the admins of groups, cached for exemptions and uncached for everything else."""

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast

import structlog
from aiogram import Bot
from aiogram.enums import ChatMemberStatus, ChatType
from aiogram.exceptions import ClientDecodeError, TelegramAPIError, TelegramBadRequest
from aiogram.types import Message
from cachetools import LRUCache
from pydantic import JsonValue

from bot.telegram.api.errors import describe_api_error
from core.background import cancel_and_wait
from core.clock import Clock
from services.moderation.domain.ports import UNRESTRICTED, Administrators, Restriction, Standing

log = structlog.get_logger()

ADMIN_STATUSES = frozenset({ChatMemberStatus.CREATOR, ChatMemberStatus.ADMINISTRATOR})
PRESENT_STATUSES = ADMIN_STATUSES | {ChatMemberStatus.MEMBER}
CACHED_GROUPS = 10_000
CALL_TIMEOUT_S = 10
_NO_MEMBER = re.compile(r"user not found|member not found|participant_id_invalid|user_id_invalid", re.IGNORECASE)
_CHAT_NAME = re.compile(r"(?:@|(?:https?://)?t\.me/)([a-zA-Z]\w{3,31})/?")
_CHAT_ID = re.compile(r"-\d{1,16}")
REQUIRED_RIGHTS = ("can_delete_messages", "can_restrict_members")


@dataclass(frozen=True, slots=True)
class AdminCacheTiming:
    """Lifetime of a cached admin list."""

    fresh_s: float = 300.0
    failure_s: float = 15.0
    """Lifetime of a cached failure; until it expires, moderation does nothing in that group."""


@dataclass(frozen=True, slots=True)
class _CacheEntry:
    admins: Administrators | None
    fetched_at: float


class GroupAdmins:
    """The admins of groups, as Telegram reports them.

    `get_admins` uses a cache with one request in flight per group and is good for exempting only. Who is empowered or
    sanctioned is asked for anew by `fetch_standing`: a cached list would let a dismissed admin act for minutes.
    """

    def __init__(self, bot: Bot, clock: Clock, timing: AdminCacheTiming | None = None) -> None:
        self._bot = bot
        self._clock = clock
        self._timing = timing or AdminCacheTiming()
        self._cache: LRUCache[int, _CacheEntry] = LRUCache(CACHED_GROUPS)
        self._in_flight: dict[int, asyncio.Task[Administrators | None]] = {}

    async def get_admins(self, group_id: int) -> Administrators | None:
        """Returns a group's admins, at most `fresh_s` old; None when the look-up failed."""
        entry = self._cache.get(group_id)
        if entry is not None:
            limit_s = self._timing.failure_s if entry.admins is None else self._timing.fresh_s
            if self._clock.monotonic() - entry.fetched_at < limit_s:
                return entry.admins
        task = self._in_flight.get(group_id)
        if task is None:
            task = self._in_flight[group_id] = asyncio.create_task(self._fetch(group_id), name="group admins")
            task.add_done_callback(lambda _: self._in_flight.pop(group_id, None))
        # Others may wait for the same request: cancelling one caller must not cancel it.
        return await asyncio.shield(task)

    async def close(self) -> None:
        """Ends the look-ups whose callers were cancelled."""
        await cancel_and_wait(*self._in_flight.values())

    async def fetch_author_standing(self, message: Message) -> Standing:
        """Asks Telegram for the standing of a message's author; who writes in the group's own name is an admin."""
        if message.sender_chat is not None:
            return Standing.ADMIN if message.sender_chat.id == message.chat.id else Standing.MEMBER
        user = message.from_user
        return Standing.MEMBER if user is None else await self.fetch_standing(message.chat.id, user.id)

    async def fetch_standing(self, group_id: int, user_id: int) -> Standing:
        """Asks Telegram for the standing of a user in a group, uncached."""
        try:
            member = await self._bot.get_chat_member(group_id, user_id, request_timeout=CALL_TIMEOUT_S)
        except (TelegramAPIError, ClientDecodeError) as error:
            match _payload(error):
                case {"status": str(status)}:
                    # A Bot API server of another version: aiogram rejects the rights, the status is readable.
                    return _standing(status)
                case _ if _is_no_member(error):
                    return Standing.MEMBER
                case _:
                    reason = describe_api_error(error)
                    log.warning("group_admins.member_lookup_failed", group_id=group_id, reason=reason)
                    return Standing.UNKNOWN
        return _standing(member.status)

    async def is_present(self, group_id: int, user_id: int) -> bool | None:
        """Asks Telegram whether a user is in a group at this moment; None when the look-up failed."""
        try:
            member = await self._bot.get_chat_member(group_id, user_id, request_timeout=CALL_TIMEOUT_S)
        except (TelegramAPIError, ClientDecodeError) as error:
            match _payload(error):
                case {"status": str(status), **fields}:
                    return _is_present(status, is_member=fields.get("is_member") is True)
                case _:
                    return False if _is_no_member(error) else None
        return _is_present(member.status, is_member=getattr(member, "is_member", False) is True)

    async def fetch_restriction(self, group_id: int, user_id: int) -> Restriction | None:
        """Asks Telegram for the ban or restriction of a user in a group; None when the look-up failed."""
        try:
            member = await self._bot.get_chat_member(group_id, user_id, request_timeout=CALL_TIMEOUT_S)
        except (TelegramAPIError, ClientDecodeError) as error:
            match _payload(error):
                case {"status": str(status), **fields}:
                    return _read_restriction({**fields, "status": status})
                case _ if _is_no_member(error):
                    return UNRESTRICTED
                case _:
                    reason = describe_api_error(error)
                    log.warning("group_admins.member_lookup_failed", group_id=group_id, reason=reason)
                    return None
        return _read_restriction(member.model_dump(mode="json"))

    async def find_chat(self, reference: str) -> int | None:
        """Returns the id of a group or channel by its id, its user name or a link to it; None if there is none."""
        name = _CHAT_NAME.fullmatch(reference)
        if name is None and not _CHAT_ID.fullmatch(reference):
            return None
        try:
            chat = await self._bot.get_chat(f"@{name[1]}" if name else int(reference), request_timeout=CALL_TIMEOUT_S)
        except (TelegramAPIError, ClientDecodeError) as error:
            match _payload(error):
                case {"id": int(chat_id), "type": str(kind)}:
                    return chat_id if kind != ChatType.PRIVATE else None
                case _:
                    log.info("group_admins.chat_not_found", reason=describe_api_error(error))
                    return None
        return chat.id if chat.type != ChatType.PRIVATE else None

    async def missing_rights(self, group_id: int) -> frozenset[str] | None:
        """Returns the rights that moderation needs and the bot lacks in a group; None when the look-up failed."""
        try:
            me = await self._bot.get_chat_member(group_id, self._bot.id, request_timeout=CALL_TIMEOUT_S)
        except (TelegramAPIError, ClientDecodeError) as error:
            match _payload(error):
                case {"status": _, **fields}:
                    return frozenset(right for right in REQUIRED_RIGHTS if fields.get(right) is not True)
                case _:
                    log.warning(
                        "group_admins.rights_lookup_failed", group_id=group_id, reason=describe_api_error(error)
                    )
                    return None
        return frozenset(right for right in REQUIRED_RIGHTS if getattr(me, right, False) is not True)

    async def _fetch(self, group_id: int) -> Administrators | None:
        user_ids, chat = await asyncio.gather(self._fetch_user_ids(group_id), self._fetch_chat(group_id))
        admins = None
        if user_ids is not None and chat is not None:
            linked, title = chat.get("linked_chat_id"), chat.get("title")
            admins = Administrators(
                user_ids, linked if isinstance(linked, int) else None, title if isinstance(title, str) else None
            )
        self._cache[group_id] = _CacheEntry(admins, self._clock.monotonic())
        return admins

    async def _fetch_user_ids(self, group_id: int) -> frozenset[int] | None:
        try:
            members = await self._bot.get_chat_administrators(
                group_id, return_bots=True, request_timeout=CALL_TIMEOUT_S
            )
        except (TelegramAPIError, ClientDecodeError) as error:
            match _payload(error):
                case [*rows]:
                    # A Bot API server of another version: aiogram rejects the rights, the ids are readable.
                    return frozenset(_read_ids(cast("list[object]", rows)))
                case _:
                    log.warning("group_admins.lookup_failed", group_id=group_id, reason=describe_api_error(error))
                    return None
        return frozenset(member.user.id for member in members)

    async def _fetch_chat(self, group_id: int) -> Mapping[str, object] | None:
        """Returns the group as Telegram's object; None when the look-up failed."""
        try:
            chat = await self._bot.get_chat(group_id, request_timeout=CALL_TIMEOUT_S)
        except (TelegramAPIError, ClientDecodeError) as error:
            match _payload(error):
                case {"id": _, **fields}:
                    return fields
                case _:
                    log.warning(
                        "group_admins.channel_lookup_failed", group_id=group_id, reason=describe_api_error(error)
                    )
                    return None
        return {"linked_chat_id": chat.linked_chat_id, "title": chat.title}


def _standing(status: str) -> Standing:
    return Standing.ADMIN if status in ADMIN_STATUSES else Standing.MEMBER


def _read_restriction(member: Mapping[str, Any]) -> Restriction:
    """Returns the restriction of a member from Telegram's object; an `until_date` of 0 is permanent."""
    end = member.get("until_date")
    until = datetime.fromtimestamp(end, UTC) if isinstance(end, int) and end > 0 else None
    match member.get("status"):
        case ChatMemberStatus.KICKED:
            return Restriction(is_ban=True, until=until)
        case ChatMemberStatus.RESTRICTED:
            return Restriction(
                permissions=frozenset(
                    name for name, value in member.items() if name.startswith("can_") and value is True
                ),
                until=until,
            )
        case _:
            return UNRESTRICTED


def _is_present(status: str, *, is_member: bool) -> bool:
    return status in PRESENT_STATUSES or (status == ChatMemberStatus.RESTRICTED and is_member)


def _is_no_member(error: Exception) -> bool:
    """Returns whether Telegram knows no such member of the group: no admin, without a doubt."""
    return isinstance(error, TelegramBadRequest) and _NO_MEMBER.search(error.message) is not None


def _payload(error: Exception) -> JsonValue:
    """Returns the result of a successful call that aiogram could not parse; None for other errors."""
    match getattr(error, "data", None):
        case {"ok": True, "result": result}:
            return result
        case _:
            return None


def _read_ids(rows: list[object]) -> list[int]:
    found: list[int] = []
    for row in rows:
        match row:
            case {"user": {"id": int(user_id)}}:
                found.append(user_id)
            case _:
                pass
    return found
