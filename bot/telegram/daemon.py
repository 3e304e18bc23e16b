"""The daemon: it connects to Telegram, takes updates until it is told to stop, and leaves nothing half said."""

import asyncio
import gc
import signal
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from typing import Any

import structlog
from aiogram import Bot, Dispatcher, Router
from aiogram.client.session.aiohttp import AiohttpSession
from aiogram.client.telegram import PRODUCTION, TelegramAPIServer
from aiogram.exceptions import (
    ClientDecodeError,
    TelegramAPIError,
    TelegramNotFound,
    TelegramRetryAfter,
    TelegramUnauthorizedError,
)
from aiogram.types import BotCommand, ErrorEvent, User

from bot.app import House
from bot.telegram.answering import Answering
from bot.telegram.delivery import Delivery
from bot.telegram.doorway import Doorway
from bot.telegram.faults import reason_of
from bot.telegram.handlers.admin import admin_router
from bot.telegram.handlers.chat import chat_router
from bot.telegram.handlers.models import model_router
from bot.telegram.handlers.retry import retry_router
from bot.telegram.incoming import key_of, speaker_behind
from bot.telegram.intake import Poller
from bot.telegram.lanes import Lanes
from bot.telegram.live import LiveReplies
from bot.telegram.rendering import Rendered
from core.clock import Clock
from core.errors import StartupError, StorageError
from core.i18n import Texts
from services.notices import AdminNotices

log = structlog.get_logger()

CONNECTIONS = 512
"""Calls to the Bot API at the same time; aiogram's default of 100 would also cap concurrent sends."""
CALL_TIMEOUT_S = 10
COMMAND_LANGUAGES = (None, "ru")
GC_THRESHOLDS = (50_000, 50, 100)
"""After the imports there are half a million objects that never die; measured, the default thresholds doubled
aiogram's cost of an update, and a full collection paused for 129 ms."""
LONGEST_PAUSE_S = 30.0


async def run(house: House) -> int:
    """Serve until SIGTERM or SIGINT.

    Returns:
        The exit code.

    Raises:
        StartupError: the token is refused, or another process polls with it.
    """
    settings = house.settings
    if settings.telegram_bot_token is None:
        raise StartupError("TELEGRAM_BOT_TOKEN is not set; example: TELEGRAM_BOT_TOKEN=123456789:AAF...")
    bot = _bot(settings.telegram_bot_token.get_secret_value(), settings.telegram_api_base_url)
    with _stop_signal() as stop:
        try:
            return await _serve(house, bot, stop)
        finally:
            await bot.session.close()


async def _serve(house: House, bot: Bot, stop: asyncio.Event) -> int:
    settings = house.settings
    connecting = asyncio.create_task(_connect(bot, house.clock), name="connect")
    await _first(connecting, stop)
    if not connecting.done():
        connecting.cancel()
        return 0
    me = connecting.result()
    lanes = Lanes()
    doorway = _furnish(house, bot, lanes)
    poller = Poller(bot, house.clock, doorway.take)
    await _introduce(bot, house.texts)
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    notices = AdminNotices(house.redis, settings.redis_prefix, house.clock, _to_admins(house, bot))
    house.fallback.listen(notices.hear)
    polling = asyncio.create_task(poller.run(), name="poll")
    telling = asyncio.create_task(notices.run(), name="notices")
    log.info("bot.started", username=me.username, providers=[p.id for p in house.fallback.providers])
    try:
        await _first(polling, stop)
    finally:
        polling.cancel()
        telling.cancel()
        await asyncio.wait([polling, telling])
        log.info("bot.stopping", timeout_s=settings.shutdown_timeout)
        await lanes.drain(settings.shutdown_timeout)
        log.info("bot.stopped")
    if not polling.cancelled():
        polling.result()
    return 0


def _to_admins(house: House, bot: Bot) -> Callable[[str], Awaitable[None]]:
    delivery = Delivery(bot, house.clock)

    async def send(text: str) -> None:
        for admin in sorted(house.settings.admin_ids):
            await delivery.send(admin, Rendered(text))

    return send


def _bot(token: str, api_base_url: str | None) -> Bot:
    api = TelegramAPIServer.from_base(api_base_url) if api_base_url else PRODUCTION
    return Bot(token, session=AiohttpSession(limit=CONNECTIONS, api=api))


def _furnish(house: House, bot: Bot, lanes: Lanes) -> Doorway:
    """Put the Telegram side together."""
    settings = house.settings
    delivery = Delivery(bot, house.clock)
    live = LiveReplies()
    threads = house.stores.threads
    answering = Answering(
        chat=house.chat,
        threads=threads,
        delivery=delivery,
        live=live,
        texts=house.texts,
        clock=house.clock,
        mode=settings.stream_mode,
        providers=[provider.id for provider in house.fallback.providers],
    )
    dispatcher = Dispatcher(disable_fsm=True)
    dispatcher.include_routers(
        admin_router(
            admin_ids=settings.admin_ids,
            desk=house.desk,
            fallback=house.fallback,
            delivery=delivery,
            texts=house.texts,
        ),
        retry_router(
            answering=answering,
            delivery=delivery,
            lanes=lanes,
            threads=threads,
            texts=house.texts,
            fallback=house.fallback,
        ),
        model_router(
            delivery=delivery,
            preferences=house.stores.preferences,
            catalog=house.catalog,
            fallback=house.fallback,
            texts=house.texts,
        ),
        chat_router(answering=answering, delivery=delivery, live=live, threads=threads, texts=house.texts),
        _apologies(delivery, house.texts),
    )
    return Doorway(
        bot=bot,
        dispatcher=dispatcher,
        lanes=lanes,
        delivery=delivery,
        texts=house.texts,
        users=settings.allowed_user_ids | settings.admin_ids,
        chats=settings.allowed_chat_ids,
        everyone=not settings.allowed_user_ids and not settings.allowed_chat_ids,
    )


def _apologies(delivery: Delivery, texts: Texts) -> Router:
    """What is said when a handler fails."""
    router = Router(name="apologies")

    @router.errors()
    async def apologise(event: ErrorEvent) -> None:
        storage = isinstance(event.exception, StorageError)
        log.error("handler.failed", update_id=event.update.update_id, exc_info=event.exception)
        key = "failed-storage" if storage else "failed-unexpected"
        if event.update.message is not None:
            message = event.update.message
            place = key_of(message)
            text = Rendered(texts.get(key, speaker_behind(message).language))
            await delivery.send(place.chat_id, text, topic_id=place.topic_id or None)
        elif event.update.callback_query is not None:
            query = event.update.callback_query
            await delivery.answer_callback(query.id, texts.get(key, query.from_user.language_code), alert=True)

    return router


async def _connect(bot: Bot, clock: Clock) -> User:
    """Make sure of the token; a Telegram that is out of reach is waited for."""
    pause = 1.0
    while True:
        try:
            me = await bot.get_me(request_timeout=CALL_TIMEOUT_S)
            await bot.delete_webhook(drop_pending_updates=False, request_timeout=CALL_TIMEOUT_S)
        except (TelegramUnauthorizedError, TelegramNotFound) as error:
            raise StartupError(
                "TELEGRAM_BOT_TOKEN: Telegram does not accept this token; copy it anew from @BotFather, "
                "example: TELEGRAM_BOT_TOKEN=123456789:AAF..."
            ) from error
        except (TelegramAPIError, ClientDecodeError) as error:
            wait = float(error.retry_after) if isinstance(error, TelegramRetryAfter) else pause
            log.warning("telegram.unreachable", reason=reason_of(error), pause_s=wait)
            await clock.sleep(wait)
            pause = min(2 * pause, LONGEST_PAUSE_S)
        else:
            return me


async def _introduce(bot: Bot, texts: Texts) -> None:
    """Tell Telegram the commands; a server that does not know how is no fault."""
    for language in COMMAND_LANGUAGES:
        commands = [
            BotCommand(command="new", description=texts.get("command-new", language)),
            BotCommand(command="model", description=texts.get("command-model", language)),
            BotCommand(command="stop", description=texts.get("command-stop", language)),
            BotCommand(command="help", description=texts.get("command-help", language)),
        ]
        try:
            await bot.set_my_commands(commands, language_code=language, request_timeout=CALL_TIMEOUT_S)
        except (TelegramAPIError, ClientDecodeError) as error:
            log.info("telegram.commands_not_set", reason=reason_of(error))
            return


@contextmanager
def _stop_signal() -> Generator[asyncio.Event]:
    """An event that SIGTERM and SIGINT set."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    signals = (signal.SIGTERM, signal.SIGINT)
    for number in signals:
        loop.add_signal_handler(number, stop.set)
    try:
        yield stop
    finally:
        for number in signals:
            loop.remove_signal_handler(number)


async def _first(task: asyncio.Task[Any], stop: asyncio.Event) -> None:
    """Return when the task is done or the event is set."""
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait([task, stopping], return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopping.cancel()
