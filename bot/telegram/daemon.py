"""The daemon: it connects to Telegram, takes updates until it is told to stop, and leaves nothing half said."""

import asyncio
import gc
import resource
import signal
from collections.abc import Awaitable, Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import structlog
from aiogram import Bot
from aiogram.types import User

from bot.composition.moderation import build_moderation
from bot.composition.services import InboxServices, Services, open_inbox
from bot.composition.telegram import build_worker
from bot.composition.web import serve_web
from bot.telegram.answers.active_replies import ActiveReplies
from bot.telegram.answers.cancellation import ReplyCancellation
from bot.telegram.api.client import KnownBot, connect, create_bot, publish_commands
from bot.telegram.delivery.delivery import Delivery
from bot.telegram.ingress.access import AccessList
from bot.telegram.ingress.ingest import UpdateIngest
from bot.telegram.ingress.polling import Poller, Sink
from bot.telegram.ingress.webhook import Webhook
from bot.telegram.markdown.render import Rendered
from bot.telegram.observability.status import DaemonPhase, DaemonStatus
from core.config.settings import Settings
from core.errors import StartupError
from services.admin.notices import AdminNotices, WorkGivenUp
from services.inbox.replicas import Replicas
from services.llm.providers.probe import probe_providers

log = structlog.get_logger()

PROBE_TIMEOUT_S = 5.0
OPEN_FILES = 65_536
THREADS = 64
"""Of the event loop's own: a database that is gone keeps some of them until connecting has failed, and every look-up of
a host's name needs one meanwhile. asyncio's default is four more than there are cores."""
GC_THRESHOLDS = (50_000, 50, 100)
"""After the imports there are half a million objects that never die; measured, the default thresholds doubled
aiogram's cost of an update, and a full collection paused for 129 ms."""


async def run(house: Services) -> int:
    """Serve until SIGTERM or SIGINT.

    Returns:
        The exit code.

    Raises:
        StartupError: the token is refused, another process polls with it, or WEB_PORT is taken.
    """
    settings = house.settings
    if settings.telegram_bot_token is None:
        raise StartupError("TELEGRAM_BOT_TOKEN is not set; example: TELEGRAM_BOT_TOKEN=123456789:AAF...")
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(THREADS, thread_name_prefix="work"))
    bot = create_bot(settings.telegram_bot_token.get_secret_value(), settings.telegram_api_base_url)
    watch = DaemonStatus(bot, house.clock, house.metrics, house.tracing)
    webhook = _webhook(settings)
    with _stop_signal() as stop:
        try:
            async with serve_web(house, watch.checks, [webhook.route] if webhook is not None else []):
                return await _serve(house, bot, stop, watch, webhook)
        finally:
            await bot.session.close()


async def _serve(
    house: Services, bot: KnownBot, stop: asyncio.Event, watch: DaemonStatus, webhook: Webhook | None
) -> int:
    connecting = asyncio.create_task(connect(bot, house.clock, polls=webhook is None), name="connect")
    await _first(connecting, stop)
    if not connecting.done():
        await _end(connecting)
        return 0
    me = connecting.result()
    async with open_inbox(house, bot.id) as mailroom:
        await _work(house, mailroom, bot, me, stop, watch, webhook)
    return 0


def _webhook(settings: Settings) -> Webhook | None:
    url, secret = settings.telegram_webhook_url, settings.telegram_webhook_secret
    if settings.telegram_mode != "webhook" or url is None or secret is None:
        return None
    return Webhook(url, secret.get_secret_value())


async def _work(
    house: Services,
    mailroom: InboxServices,
    bot: KnownBot,
    me: User,
    stop: asyncio.Event,
    watch: DaemonStatus,
    webhook: Webhook | None,
) -> None:
    """Take updates in and do what they ask for, until told to stop."""
    settings, inbox = house.settings, mailroom.inbox
    watch.figures.follow(inbox)
    delivery = Delivery(bot, house.clock, inbox.said, watch.figures)
    moderation = build_moderation(house, bot, delivery)
    doorway = UpdateIngest(
        bot=bot,
        inbox=inbox,
        parts=inbox.albums,
        clock=house.clock,
        moderation=moderation.door,
        guests=AccessList(settings.admin_ids, settings.allowed_user_ids, settings.allowed_chat_ids),
    )
    take = watch.figures.counted(doorway.take)
    notices = AdminNotices(house.redis, settings.redis_prefix, house.clock, _to_admins(house, delivery))
    house.fallback.listen(notices.hear)
    await house.warm()
    _allow_connections()
    _tune_garbage_collection()
    live = ActiveReplies()
    stops = ReplyCancellation(
        live, house.redis if settings.redis_url is not None else None, settings.redis_prefix, house.clock
    )
    await inbox.work(
        build_worker(house, mailroom, bot, delivery, live, stops, moderation),
        on_dead=lambda reason: notices.hear(WorkGivenUp(reason)),
    )
    if webhook is None:
        receiving = _poll(mailroom.replicas, Poller(bot, house.clock, take))
    else:
        receiving = _be_delivered_to(webhook, bot, house, take)
    intake = asyncio.create_task(receiving, name="intake")
    aside = [
        asyncio.create_task(mailroom.replicas.watch(inbox.queue.recover), name="replicas"),
        asyncio.create_task(inbox.keep_house(), name="housekeeping"),
        asyncio.create_task(inbox.look_for_strays(), name="strays"),
        asyncio.create_task(stops.run(), name="stops"),
        asyncio.create_task(notices.run(), name="notices"),
        asyncio.create_task(publish_commands(bot, house.texts), name="introduce"),
        asyncio.create_task(_look_around(house), name="look around"),
        asyncio.create_task(moderation.caretaker.run(), name="moderation"),
    ]
    for task in aside:
        task.add_done_callback(_report_death)
    watch.phase = DaemonPhase.SERVING
    log.info("bot.started", username=me.username, providers=[p.id for p in house.fallback.providers])
    try:
        await _first(intake, stop)
    finally:
        watch.phase = DaemonPhase.STOPPING
        await _end(intake)
        log.info("bot.stopping", timeout_s=settings.shutdown_timeout)
        await inbox.queue.drain(settings.shutdown_timeout)
        await _end(*aside)
        log.info("bot.stopped")
    if not intake.cancelled():
        intake.result()


async def _be_delivered_to(webhook: Webhook, bot: Bot, house: Services, take: Sink) -> None:
    """Have Telegram deliver to this replica, among others.

    Raises:
        StartupError: Telegram does not deliver to that address.
    """
    webhook.open(take)
    try:
        await webhook.announce(bot, house.clock)
        await asyncio.Event().wait()
    finally:
        webhook.close()


async def _poll(replicas: Replicas, poller: Poller) -> None:
    """Poll while this replica leads; others with the same token stand by.

    Raises:
        StartupError: the token is not accepted any more, or somebody outside polls with it.
    """
    while True:
        async with replicas.lead() as lost:
            polling = asyncio.create_task(poller.run(), name="poller")
            try:
                await _first(polling, lost)
            finally:
                # Before the lead is left: two that poll would throw each other out.
                await _end(polling)
            if not polling.cancelled():
                polling.result()
            log.warning("intake.lead_lost")


async def _look_around(house: Services) -> None:
    """Say which providers do not answer. That is no fault: each is used when it is back."""
    probes = await probe_providers(house.catalog, house.fallback.providers, PROBE_TIMEOUT_S, house.clock)
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


def _to_admins(house: Services, delivery: Delivery) -> Callable[[str], Awaitable[None]]:
    admins = sorted(house.settings.admin_ids)

    async def send(text: str) -> None:
        # Side by side: one whose chat is held must not keep the others waiting.
        await asyncio.gather(*(delivery.send(admin, Rendered(text)) for admin in admins))

    return send


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
