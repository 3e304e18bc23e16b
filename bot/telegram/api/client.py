"""Meeting Telegram: who am I, is the token good, and which commands are in the menu."""

import structlog
from aiogram import Bot
from aiogram.client.session.aiohttp import AiohttpSession
from aiogram.client.telegram import PRODUCTION, TelegramAPIServer
from aiogram.exceptions import (
    ClientDecodeError,
    TelegramAPIError,
    TelegramNotFound,
    TelegramRetryAfter,
    TelegramUnauthorizedError,
)
from aiogram.types import BotCommand, BotCommandScopeAllChatAdministrators, BotCommandScopeAllGroupChats, User

from bot.telegram.api.commands import COMMANDS, CommandMenu
from bot.telegram.api.errors import ApiFailure, classify_api_error, describe_api_error
from core.clock import Clock
from core.errors import StartupError
from core.i18n import DEFAULT_LANGUAGE, Texts

log = structlog.get_logger()

CONNECTIONS = 512
"""Calls to the Bot API at the same time; aiogram's default of 100 would also cap concurrent sends."""
CALL_TIMEOUT_S = 10
MENU_SCOPES = {
    CommandMenu.DEFAULT: None,
    CommandMenu.GROUPS: BotCommandScopeAllGroupChats(),
    CommandMenu.GROUP_ADMINS: BotCommandScopeAllChatAdministrators(),
}
FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 30.0


class KnownBot(Bot):
    """A bot that found out who it is before anything else: filters ask for that with every message in a group."""

    identity: User | None = None

    async def me(self) -> User:
        """Who it is."""
        return self.identity or await super().me()


def create_bot(token: str, api_base_url: str | None) -> KnownBot:
    """A bot of Telegram, or of a Bot API server of one's own."""
    api = TelegramAPIServer.from_base(api_base_url) if api_base_url else PRODUCTION
    return KnownBot(token, session=AiohttpSession(limit=CONNECTIONS, api=api))


async def connect(bot: KnownBot, clock: Clock, *, polls: bool = True) -> User:
    """Make sure of the token and of the right to poll; a Telegram that is out of reach is waited for.

    Args:
        bot: who connects.
        clock: what pauses are measured by.
        polls: whether it is going to poll, for which there may be no webhook.

    Raises:
        StartupError: the token is refused.
    """
    pause = FIRST_PAUSE_S
    while True:
        try:
            bot.identity = await _identity(bot)
            if polls:
                await _end_webhook(bot)
        except (TelegramAPIError, ClientDecodeError) as error:
            wait = float(error.retry_after) if isinstance(error, TelegramRetryAfter) else pause
            log.warning("telegram.unreachable", reason=describe_api_error(error), pause_s=wait)
            await clock.sleep(wait)
            pause = min(2 * pause, LONGEST_PAUSE_S)
        else:
            return bot.identity


async def publish_commands(bot: Bot, texts: Texts) -> None:
    """Put the commands into the menus; a server that does not know how is no fault."""
    for menu, scope in MENU_SCOPES.items():
        listed = [spec for spec in COMMANDS.values() if menu in spec.menus]
        for language in (None, *(known for known in texts.languages if known != DEFAULT_LANGUAGE)):
            commands = [
                BotCommand(command=spec.name, description=texts.get(spec.description_key, language)) for spec in listed
            ]
            try:
                await bot.set_my_commands(commands, scope=scope, language_code=language, request_timeout=CALL_TIMEOUT_S)
            except (TelegramAPIError, ClientDecodeError) as error:
                log.info("telegram.commands_not_set", reason=describe_api_error(error))
                return


async def _identity(bot: Bot) -> User:
    try:
        return await bot.get_me(request_timeout=CALL_TIMEOUT_S)
    except (TelegramUnauthorizedError, TelegramNotFound) as error:
        raise StartupError(
            "TELEGRAM_BOT_TOKEN: Telegram does not accept this token; copy it anew from @BotFather, "
            "example: TELEGRAM_BOT_TOKEN=123456789:AAF..."
        ) from error
    except ClientDecodeError as error:
        match error.data:
            case {"ok": True, "result": {"username": str(username)}}:
                # Some servers that stand in for Telegram leave out what the library insists on.
                return User(id=bot.id, is_bot=True, first_name=username, username=username)
            case _:
                raise


async def _end_webhook(bot: Bot) -> None:
    """While there is a webhook Telegram lets nobody poll."""
    try:
        await bot.delete_webhook(drop_pending_updates=False, request_timeout=CALL_TIMEOUT_S)
    except TelegramNotFound as error:
        # A server that has no webhooks has none to end.
        log.info("telegram.webhook_not_ended", reason=describe_api_error(error))
    except ClientDecodeError as error:
        if classify_api_error(error) is not ApiFailure.DONE:
            raise
