"""The Bot API client: checks the token at startup, publishes the command menus, downloads files within bounds."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING

import structlog
from aiogram import Bot
from aiogram.client.telegram import PRODUCTION, TelegramAPIServer
from aiogram.exceptions import (
    ClientDecodeError,
    TelegramAPIError,
    TelegramNotFound,
    TelegramRetryAfter,
    TelegramUnauthorizedError,
)
from aiogram.types import (
    BotCommand,
    BotCommandScopeAllChatAdministrators,
    BotCommandScopeAllGroupChats,
    BotCommandScopeChat,
    BotCommandScopeUnion,
    User,
)

from bot.command_table import CommandMenu, listed_in
from bot.telegram.api.errors import ApiFailure, classify_api_error, describe_api_error
from bot.telegram.api.session import ApiSession
from core.clock import Backoff, Clock
from core.errors import StartupError
from core.i18n import DEFAULT_LANGUAGE, Texts

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

log = structlog.get_logger()

CALL_TIMEOUT_S = 10
DOWNLOAD_TIMEOUT_S = 30
MENU_SCOPES = {
    CommandMenu.DEFAULT: None,
    CommandMenu.GROUPS: BotCommandScopeAllGroupChats(),
    CommandMenu.GROUP_ADMINS: BotCommandScopeAllChatAdministrators(),
}
CONNECT_BACKOFF = Backoff(first_s=1.0, longest_s=30.0)


class KnownBot(Bot):
    """A bot that caches its identity from `connect`: filters need it for every message in a group."""

    identity: User | None = None

    async def me(self) -> User:
        """Returns the cached identity, or requests it."""
        return self.identity or await super().me()


def create_bot(token: str, api_base_url: str | None) -> KnownBot:
    """Creates a client of Telegram's Bot API, or of a self-hosted Bot API server."""
    api = TelegramAPIServer.from_base(api_base_url) if api_base_url else PRODUCTION
    return KnownBot(token, session=ApiSession(api))


async def connect(bot: KnownBot, clock: Clock, *, polls: bool = True) -> User:
    """Checks the token and caches the bot's identity; retries with backoff until Telegram responds.

    Args:
        bot: the client.
        clock: times the pauses.
        polls: delete a webhook, because Telegram allows either a webhook or polling.

    Raises:
        StartupError: Telegram rejects the token.
    """
    failures = 0
    while True:
        try:
            bot.identity = await _fetch_identity(bot)
            if polls:
                await _delete_webhook(bot)
        except (TelegramAPIError, ClientDecodeError) as error:
            failures += 1
            pause_s = CONNECT_BACKOFF.pause_s(failures)
            if isinstance(error, TelegramRetryAfter):
                pause_s = float(error.retry_after)
            log.warning("telegram.unreachable", reason=describe_api_error(error), pause_s=pause_s)
            await clock.sleep(pause_s)
        else:
            return bot.identity


async def publish_commands(bot: Bot, texts: Texts, admin_ids: Iterable[int] = ()) -> None:
    """Publishes the command menus in every language; a server without this method is only logged.

    Args:
        admin_ids: operators, whose private chats get a menu of their own. Telegram knows no chat with an operator who
            has not written to the bot yet; that one gets it at the next start.
    """
    for menu, scope in MENU_SCOPES.items():
        if not await _publish(bot, texts, menu, scope):
            return
    for admin_id in sorted(admin_ids):
        await _publish(bot, texts, CommandMenu.OPERATORS, BotCommandScopeChat(chat_id=admin_id))


async def _publish(bot: Bot, texts: Texts, menu: CommandMenu, scope: BotCommandScopeUnion | None) -> bool:
    for language in (None, *(known for known in texts.languages if known != DEFAULT_LANGUAGE)):
        commands = [
            BotCommand(command=spec.name, description=texts.get(spec.description_key, language))
            for spec in listed_in(menu)
        ]
        try:
            await bot.set_my_commands(commands, scope=scope, language_code=language, request_timeout=CALL_TIMEOUT_S)
        except (TelegramAPIError, ClientDecodeError) as error:
            log.info("telegram.command_menus_failed", menu=menu.name.lower(), reason=describe_api_error(error))
            return False
    return True


async def _fetch_identity(bot: Bot) -> User:
    try:
        return await bot.get_me(request_timeout=CALL_TIMEOUT_S)
    except (TelegramUnauthorizedError, TelegramNotFound) as error:
        raise StartupError(
            "TELEGRAM_BOT_TOKEN: Telegram does not accept this token; copy it anew from @BotFather, "
            "for example TELEGRAM_BOT_TOKEN=123456789:AAF..."
        ) from error
    except ClientDecodeError as error:
        match error.data:
            case {"ok": True, "result": {"username": str(username)}}:
                # Some Bot API compatible servers omit fields that aiogram requires.
                return User(id=bot.id, is_bot=True, first_name=username, username=username)
            case _:
                raise


async def _delete_webhook(bot: Bot) -> None:
    """Deletes the webhook: while one is set Telegram rejects polling."""
    try:
        await bot.delete_webhook(drop_pending_updates=False, request_timeout=CALL_TIMEOUT_S)
    except TelegramNotFound as error:
        # A server without webhook support has none to delete.
        log.info("telegram.webhook_delete_unsupported", reason=describe_api_error(error))
    except ClientDecodeError as error:
        if classify_api_error(error) is not ApiFailure.DONE:
            raise


class FileTooLarge(Exception):
    """A file is larger than its limit, whether or not Telegram reported its size."""


@dataclass(slots=True)
class Allowance:
    """Bytes that several files may still have together."""

    left: int


async def download_bounded(bot: Bot, file_id: str, limit: int, allowance: Allowance) -> bytes:
    """Downloads a file.

    Args:
        limit: bytes of the file.
        allowance: bytes of all files of its kind in a message; what is downloaded is taken from it.

    Raises:
        FileTooLarge: it exceeds the limit or the allowance.
        TimeoutError: it took longer than `DOWNLOAD_TIMEOUT_S`.
    """
    target = _BoundedBuffer(limit, allowance)
    async with asyncio.timeout(DOWNLOAD_TIMEOUT_S):
        await bot.download(file_id, destination=target, timeout=DOWNLOAD_TIMEOUT_S)
    return target.getvalue()


class _BoundedBuffer(BytesIO):
    """Takes a download up to a number of bytes, its own and those of the whole message."""

    def __init__(self, limit: int, allowance: Allowance) -> None:
        super().__init__()
        self._left = limit
        self._allowance = allowance

    def write(self, data: "ReadableBuffer", /) -> int:
        size = memoryview(data).nbytes
        self._left -= size
        self._allowance.left -= size
        if self._left < 0 or self._allowance.left < 0:
            raise FileTooLarge
        return super().write(data)
