"""Looks up the admins of groups, cached for moderation and uncached for decisions about a chat."""

import asyncio
from dataclasses import dataclass
from typing import Any, cast

import structlog
from aiogram import Bot
from aiogram.enums import ChatMemberStatus
from aiogram.exceptions import ClientDecodeError, TelegramAPIError
from aiogram.types import Message
from cachetools import LRUCache

from bot.telegram.api.errors import describe_api_error
from core.clock import Clock
from services.moderation.domain.ports import Administrators

log = structlog.get_logger()

ADMIN_STATUSES = frozenset({ChatMemberStatus.CREATOR, ChatMemberStatus.ADMINISTRATOR})
CACHED_GROUPS = 10_000
CALL_TIMEOUT_S = 10
REQUIRED_RIGHTS = ("can_delete_messages", "can_restrict_members")


@dataclass(frozen=True, slots=True)
class AdminCacheTiming:
    """Lifetime of a cached admin list."""

    fresh_s: float = 300.0
    """A new admin need not wait for this: `is_admin` refetches sooner."""
    recheck_s: float = 15.0
    """Age from which a list is refetched because a user who acts as an admin is not in it."""
    failure_s: float = 15.0
    """Lifetime of a cached failure; until it expires, moderation does nothing in that group."""


@dataclass(frozen=True, slots=True)
class _CacheEntry:
    admins: Administrators | None
    fetched_at: float


class GroupAdmins:
    """The admins of groups, as Telegram reports them; a failed look-up never counts as "is an admin".

    `get_admins` and `is_admin` use a cache with one request in flight per group, `fetch_is_admin` asks Telegram
    every time.
    """

    def __init__(self, bot: Bot, clock: Clock, timing: AdminCacheTiming | None = None) -> None:
        self._bot = bot
        self._clock = clock
        self._timing = timing or AdminCacheTiming()
        self._cache: LRUCache[int, _CacheEntry] = LRUCache(CACHED_GROUPS)
        self._in_flight: dict[int, asyncio.Task[Administrators | None]] = {}

    async def get_admins(self, group_id: int) -> Administrators | None:
        """Returns a group's admins, at most `fresh_s` old; None when the look-up failed."""
        return await self._get(group_id, self._timing.fresh_s)

    async def is_admin(self, group_id: int, user_id: int) -> bool:
        """Returns whether a user is an admin by the cached list, refetched after `recheck_s` for an unknown user."""
        for max_age_s in (self._timing.fresh_s, self._timing.recheck_s):
            admins = await self._get(group_id, max_age_s)
            if admins is not None and user_id in admins.user_ids:
                return True
        return False

    async def is_from_admin(self, message: Message) -> bool:
        """Returns whether an admin wrote a message of a group, in person or anonymously in the group's name."""
        if message.sender_chat is not None:
            return message.sender_chat.id == message.chat.id
        user = message.from_user
        return user is not None and await self.is_admin(message.chat.id, user.id)

    async def fetch_is_admin(self, chat_id: int, user_id: int) -> bool:
        """Asks Telegram whether a user is an admin of a chat, uncached."""
        try:
            member = await self._bot.get_chat_member(chat_id, user_id)
        except (TelegramAPIError, ClientDecodeError) as error:
            match _payload(error):
                case {"status": str(status)}:
                    # A Bot API server of another version: aiogram rejects the rights, the status is readable.
                    return status in ADMIN_STATUSES
                case _:
                    log.warning("group_admins.member_lookup_failed", chat_id=chat_id, reason=describe_api_error(error))
                    return False
        return member.status in ADMIN_STATUSES

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

    async def _get(self, group_id: int, max_age_s: float) -> Administrators | None:
        entry = self._cache.get(group_id)
        if entry is not None:
            limit_s = self._timing.failure_s if entry.admins is None else max_age_s
            if self._clock.monotonic() - entry.fetched_at < limit_s:
                return entry.admins
        task = self._in_flight.get(group_id)
        if task is None:
            task = self._in_flight[group_id] = asyncio.create_task(self._fetch(group_id), name="group admins")
            task.add_done_callback(lambda _: self._in_flight.pop(group_id, None))
        # Others may wait for the same request: cancelling one caller must not cancel it.
        return await asyncio.shield(task)

    async def _fetch(self, group_id: int) -> Administrators | None:
        user_ids, linked = await asyncio.gather(self._fetch_user_ids(group_id), self._fetch_linked_channel(group_id))
        admins = None if user_ids is None or linked is None else Administrators(user_ids, linked or None)
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

    async def _fetch_linked_channel(self, group_id: int) -> int | None:
        """Returns the linked channel, 0 if there is none, None when the look-up failed."""
        try:
            chat = await self._bot.get_chat(group_id, request_timeout=CALL_TIMEOUT_S)
        except (TelegramAPIError, ClientDecodeError) as error:
            match _payload(error):
                case {"linked_chat_id": int(linked)}:
                    return linked
                case {"id": _}:
                    return 0
                case _:
                    log.warning(
                        "group_admins.channel_lookup_failed", group_id=group_id, reason=describe_api_error(error)
                    )
                    return None
        return chat.linked_chat_id or 0


def _payload(error: Exception) -> Any:  # noqa: ANN401 - unvalidated JSON
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
