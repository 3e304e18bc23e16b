"""The daemon: it connects to Telegram, takes updates until it is told to stop, and leaves nothing half said."""

import asyncio
import gc
import resource
import signal
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from typing import Any

import structlog
from aiogram import Bot, Dispatcher, Router
from aiogram.types import ErrorEvent

from bot.app import House
from bot.probing import probe_all
from bot.telegram.answering import Answering
from bot.telegram.connecting import KnownBot, bot_at, connect, introduce
from bot.telegram.delivery import Delivery
from bot.telegram.doorway import Doorway, Guests
from bot.telegram.handlers.admin import admin_router
from bot.telegram.handlers.chat import chat_router
from bot.telegram.handlers.models import model_router
from bot.telegram.handlers.moderation import moderation_router
from bot.telegram.handlers.moderation_settings import moderation_settings_router
from bot.telegram.handlers.privacy import privacy_router
from bot.telegram.handlers.retry import retry_router
from bot.telegram.handlers.rules import rules_router
from bot.telegram.handlers.threads import threads_router
from bot.telegram.handlers.usage import usage_router
from bot.telegram.incoming import speaker_behind
from bot.telegram.intake import Poller
from bot.telegram.lanes import Lanes
from bot.telegram.live import LiveReplies
from bot.telegram.moderating import Moderation, moderation_for
from bot.telegram.moderation_settings import SettingsCard
from bot.telegram.rendering import Rendered
from bot.telegram.spans import UpdateSpans
from bot.telegram.telling import tell
from bot.telegram.watch import Phase, Watch
from bot.web.side import web_side
from core.errors import StartupError, StorageError
from core.i18n import Texts
from services.notices import AdminNotices

log = structlog.get_logger()

PROBE_TIMEOUT_S = 5.0
OPEN_FILES = 65_536
GC_THRESHOLDS = (50_000, 50, 100)
"""After the imports there are half a million objects that never die; measured, the default thresholds doubled
aiogram's cost of an update, and a full collection paused for 129 ms."""


async def run(house: House) -> int:
    """Serve until SIGTERM or SIGINT.

    Returns:
        The exit code.

    Raises:
        StartupError: the token is refused, another process polls with it, or WEB_PORT is taken.
    """
    settings = house.settings
    if settings.telegram_bot_token is None:
        raise StartupError("TELEGRAM_BOT_TOKEN is not set; example: TELEGRAM_BOT_TOKEN=123456789:AAF...")
    bot = bot_at(settings.telegram_bot_token.get_secret_value(), settings.telegram_api_base_url)
    watch = Watch(bot, house.clock, house.metrics, house.tracing)
    with _stop_signal() as stop:
        try:
            async with web_side(house, watch.checks):
                return await _serve(house, bot, stop, watch)
        finally:
            await bot.session.close()


async def _serve(house: House, bot: KnownBot, stop: asyncio.Event, watch: Watch) -> int:
    connecting = asyncio.create_task(connect(bot, house.clock), name="connect")
    await _first(connecting, stop)
    if not connecting.done():
        await _end(connecting)
        return 0
    me = connecting.result()
    settings = house.settings
    if settings.telegram_mode == "webhook":
        log.warning("telegram.webhook_not_served", detail="this version fetches its updates by polling")
    lanes = Lanes()
    watch.figures.follow(lanes)
    delivery = Delivery(bot, house.clock, watch.figures)
    moderation = moderation_for(house, bot, delivery)
    doorway = _furnish(house, bot, delivery, lanes, moderation)
    poller = Poller(bot, house.clock, watch.figures.counted(doorway.take))
    notices = AdminNotices(house.redis, settings.redis_prefix, house.clock, _to_admins(house, delivery))
    house.fallback.listen(notices.hear)
    await house.warm()
    _allow_connections()
    _tune_garbage_collection()
    polling = asyncio.create_task(poller.run(), name="poll")
    aside = [
        asyncio.create_task(notices.run(), name="notices"),
        asyncio.create_task(introduce(bot, house.texts), name="introduce"),
        asyncio.create_task(_look_around(house), name="look around"),
        asyncio.create_task(moderation.caretaker.run(), name="moderation"),
    ]
    for task in aside:
        task.add_done_callback(_report_death)
    watch.phase = Phase.SERVING
    log.info("bot.started", username=me.username, providers=[p.id for p in house.fallback.providers])
    try:
        await _first(polling, stop)
    finally:
        watch.phase = Phase.STOPPING
        await _end(polling)
        log.info("bot.stopping", timeout_s=settings.shutdown_timeout)
        await lanes.drain(settings.shutdown_timeout)
        await moderation.door.close()
        await _end(*aside)
        log.info("bot.stopped")
    if not polling.cancelled():
        polling.result()
    return 0


async def _look_around(house: House) -> None:
    """Say which providers do not answer. That is no fault: each is used when it is back."""
    probes = await probe_all(house.catalog, house.fallback.providers, PROBE_TIMEOUT_S, house.clock)
    for probe in probes:
        if probe.reason is not None:
            log.warning("provider.silent", provider=probe.provider.id, reason=probe.reason)
        elif not probe.ready:
            log.warning("provider.lacks_model", provider=probe.provider.id, models=probe.unlisted)
    if not any(probe.ready for probe in probes):
        log.error("bot.no_provider_answers", detail="messages are answered when one is back")


def _allow_connections() -> None:
    """As many open files as the system lets us have: each answer in the making is a connection.

    The soft limit is mostly 1,024, for the sake of programs that use `select`; beyond it connections would fail, and
    the providers would be blamed for that.
    """
    now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Some systems name no limit at all and refuse to set none.
    wanted = OPEN_FILES if most == resource.RLIM_INFINITY else min(most, OPEN_FILES)
    if wanted > now:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))


def _tune_garbage_collection() -> None:
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


def _to_admins(house: House, delivery: Delivery) -> Callable[[str], Awaitable[None]]:
    admins = sorted(house.settings.admin_ids)

    async def send(text: str) -> None:
        # Side by side: one whose chat is held must not keep the others waiting.
        await asyncio.gather(*(delivery.send(admin, Rendered(text)) for admin in admins))

    return send


def _furnish(house: House, bot: Bot, delivery: Delivery, lanes: Lanes, moderation: Moderation) -> Doorway:
    """Put the Telegram side together."""
    settings = house.settings
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
    cards = SettingsCard(moderation, house.texts, house.accounts)
    dispatcher = Dispatcher(disable_fsm=True)
    if house.tracing.on:
        dispatcher.update.outer_middleware(UpdateSpans(house.tracing.tracer))
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
        privacy_router(
            answering=answering,
            delivery=delivery,
            lanes=lanes,
            threads=threads,
            consent=house.consent,
            texts=house.texts,
        ),
        threads_router(delivery=delivery, shelf=house.shelf, threads=threads, texts=house.texts),
        usage_router(admin_ids=settings.admin_ids, delivery=delivery, usage=house.usage),
        moderation_router(moderation=moderation, delivery=delivery, texts=house.texts),
        moderation_settings_router(
            moderation=moderation,
            cards=cards,
            delivery=delivery,
            texts=house.texts,
            starts_dry=settings.moderation_dry_run,
        ),
        rules_router(moderation=moderation, cards=cards, delivery=delivery, texts=house.texts),
        chat_router(answering=answering, delivery=delivery, live=live, threads=threads, texts=house.texts),
        _apologies(delivery, house.texts),
    )
    return Doorway(
        bot=bot,
        dispatcher=dispatcher,
        lanes=lanes,
        delivery=delivery,
        texts=house.texts,
        clock=house.clock,
        moderation=moderation.door,
        guests=Guests(settings.admin_ids, settings.allowed_user_ids, settings.allowed_chat_ids),
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
            await tell(delivery, message, texts.get(key, speaker_behind(message).language))
        elif event.update.callback_query is not None:
            query = event.update.callback_query
            await delivery.answer_callback(query.id, texts.get(key, query.from_user.language_code), alert=True)

    return router


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


async def _end(*tasks: asyncio.Task[Any]) -> None:
    """Cancel tasks and wait until they have come to their end."""
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


def _report_death(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("bot.task_died", task=task.get_name(), exc_info=error)
