"""Builds and runs the Telegram daemon."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, contextmanager
from functools import partial
from typing import TYPE_CHECKING

import structlog
from aiogram import Bot
from aiogram.methods import EditForumTopic

from bot.composition.handlers import administration, build_worker
from bot.composition.inbox import InboxServices, open_inbox
from bot.composition.infrastructure import Infrastructure
from bot.composition.moderation import Moderation, build_moderation
from bot.composition.services import Services
from bot.composition.web import serve_web
from bot.operators.daemon_services import DaemonServices, ModerationQueue
from bot.operators.dead_letters import DeadLetterCommands
from bot.operators.formatting import Wording
from bot.operators.notices import format_notice
from bot.process import (
    enlarge_thread_pool,
    raise_open_files_limit,
    stop_on_signals,
    tune_garbage_collection,
)
from bot.telegram.answers.cancellation import ReplyCancellation
from bot.telegram.api.client import KnownBot, connect, create_bot, publish_commands
from bot.telegram.api.errors import describe_api_error
from bot.telegram.api.session import LeaseGate, MaskOutgoingSecrets
from bot.telegram.daemon import (
    Daemon,
    Runtime,
)
from bot.telegram.delivery.calls import OutgoingFile
from bot.telegram.delivery.delivery import Delivery
from bot.telegram.handlers.administration import BroadcastDelivery
from bot.telegram.ingress.admission import AccessList, Admission, AdmissionLimits
from bot.telegram.ingress.ingest import UpdateIngest
from bot.telegram.ingress.polling import Poller, poll_while_leading
from bot.telegram.job_places import FairJobPlaces, JobLimits
from bot.telegram.jobs import schedule_job
from bot.telegram.markdown.pages import RenderThread
from bot.telegram.markdown.render import Rendered
from bot.telegram.observability import DaemonStatus
from core.clock import Clock
from core.config.settings import Settings
from core.errors import InboxError, StartupError
from core.messages import ConversationKey, Surface, user_ref
from core.observability.redaction import SecretMasker
from services.admin.broadcast_runner import BroadcastRunner
from services.admin.notices import AdminNotices, Event, InboxFailed, WorkGivenUp
from services.chat.reply import ActiveReplies
from services.inbox.queue_health import FailureStamp
from services.limits.rates import RateLimiter
from services.limits.turns import RunningLeases, TurnPlaces
from services.llm.providers.probe import check_providers
from services.llm.routing.events import Misconfigured
from services.moderation.records.figures import FigureReader
from services.privacy.erasure import Eraser
from services.privacy.retention import RetentionSweep
from services.schedule.dispatcher import ScheduleDispatcher
from services.schedule.schedules import Schedule

if TYPE_CHECKING:
    from bot.telegram.ingress.webhook import Webhook

log = structlog.get_logger()


async def run_daemon(services: Services) -> int:
    """Serves until SIGTERM or SIGINT. Returns the exit code.

    Raises:
        StartupError: Telegram refuses the token, another process uses it, or WEB_PORT is taken.
        InboxError: the queue cannot work any more.
        ReplicaReplaced: another replica has taken over; with services opened anew the daemon may serve again.
    """
    infra = services.infra
    settings = infra.settings
    if settings.telegram_bot_token is None:
        raise StartupError("TELEGRAM_BOT_TOKEN is not set; example: TELEGRAM_BOT_TOKEN=123456789:AAF...")
    enlarge_thread_pool()
    bot = create_bot(settings.telegram_bot_token.get_secret_value(), settings.telegram_api_base_url)
    configuration = services.llm.configuration
    masker = SecretMasker((*settings.secrets, *configuration.current.secrets))
    configuration.on_change(lambda changed: masker.add_secrets(changed.secrets))
    bot.session.middleware(MaskOutgoingSecrets(masker))
    bot.session.middleware(LeaseGate(infra.lease))
    status = DaemonStatus(bot, infra.clock, infra.metrics, infra.tracing, infra.lease)
    webhook = _webhook(settings)
    for_console = DaemonServices()
    daemon = Daemon(
        partial(connect, bot, infra.clock, polls=webhook is None),
        partial(_open_runtime, services, bot, status, webhook, for_console),
        status,
        infra.clock,
    )
    with stop_on_signals() as stop:
        try:
            routes = [webhook.route] if webhook is not None else []
            async with serve_web(services, status.checks, routes, daemon=for_console):
                return await daemon.run(stop)
        finally:
            await bot.session.close()


def _webhook(settings: Settings) -> "Webhook | None":
    url, secret = settings.telegram_webhook_url, settings.telegram_webhook_secret
    if settings.telegram_mode != "webhook" or url is None or secret is None:
        return None
    from bot.telegram.ingress.webhook import Webhook

    return Webhook(url, secret.get_secret_value())


@asynccontextmanager
async def _open_runtime(
    services: Services, bot: KnownBot, status: DaemonStatus, webhook: "Webhook | None", for_console: DaemonServices
) -> AsyncGenerator[Runtime]:
    infra, llm = services.infra, services.llm
    settings, clock = infra.settings, infra.clock
    async with (
        open_inbox(infra, bot.id) as queued,
        aclosing(build_eraser(services, queued)) as eraser,
        RenderThread() as renderer,
        AsyncExitStack() as stack,
    ):
        inbox = queued.inbox
        status.metrics.show_queue(inbox)
        status.watch_queue(lambda: inbox.queue.health.problem)
        delivery = Delivery(bot, clock, inbox.sent_messages, status.metrics)
        moderation = build_moderation(services, bot, delivery)
        services.chat.namer.listen(_name_topic(delivery))
        stack.push_async_callback(moderation.close)
        stack.enter_context(_offered(for_console, services, queued, moderation, delivery))
        notices = AdminNotices(infra.redis, settings.redis_prefix, clock, _send_to(delivery, infra))
        llm.fallback.listen(notices.put)
        for beside_chat in llm.capabilities.fallbacks.values():
            # Their outages do not silence the bot; a rejected key is for an operator all the same.
            beside_chat.listen(lambda event: notices.put(event) if isinstance(event, Misconfigured) else None)
        shared_redis = infra.redis if settings.redis_url is not None else None
        access = AccessList(settings.admin_ids, settings.allowed_user_ids, settings.allowed_chat_ids)
        cancellation = ReplyCancellation(ActiveReplies(), shared_redis, settings.redis_prefix, clock)
        ingest = UpdateIngest(
            bot=bot,
            inbox=inbox,
            parts=inbox.album_parts,
            clock=clock,
            moderation=moderation.gateway,
            access=access,
            admission=Admission(
                RateLimiter(shared_redis, settings.redis_prefix),
                clock,
                AdmissionLimits(settings.limit_messages_per_minute, settings.admin_ids),
            ),
            bans=services.operators.bans,
        )
        broadcast_runner = BroadcastRunner(
            services.operators.broadcasts,
            BroadcastDelivery(delivery).send,
            administration(services, delivery).show_progress,
            clock,
            # Only one process uses a SQLite file, so it resumes at once after a crash.
            "local" if infra.database.is_embedded else infra.fence.name,
        )
        leases = RunningLeases(shared_redis, settings.redis_prefix, clock) if shared_redis is not None else None
        take = status.metrics.count_updates(ingest.take)
        if webhook is None:
            receive = partial(poll_while_leading, queued.replicas, Poller(bot, clock, take))
        else:
            receive = partial(webhook.receive, bot, clock, take)
        yield Runtime(
            inbox=inbox,
            worker=build_worker(services, queued, bot, delivery, cancellation, moderation, renderer, eraser),
            places=FairJobPlaces(
                TurnPlaces(leases=leases, count_backlog=lambda: infra.database.backlog),
                JobLimits(settings.limit_running_per_user, settings.admin_ids),
            ),
            receive=receive,
            guards={
                "inbox health": inbox.watch_health,
                "replicas": partial(queued.replicas.watch, inbox.queue.recover),
            },
            report_failure=partial(_report_failure, notices, FailureStamp(settings.data_dir / "inbox.failure"), clock),
            background={
                "inbox purge": inbox.run_purge,
                "orphan scan": inbox.run_orphan_scan,
                "cancellation": cancellation.run,
                "notices": notices.run,
                "commands": partial(publish_commands, bot, infra.texts, settings.admin_ids),
                "broadcasts": broadcast_runner.run,
                "probe": partial(
                    check_providers, llm.catalog, llm.fallback.providers, clock, llm.fallback.recorder.pass_over
                ),
                **({"tool calls": services.chat.acting.calls.run_purge} if services.chat.acting is not None else {}),
                "schedule": _dispatcher(services, queued, bot, access).run,
                "moderation": moderation.maintenance.run,
                "languages": infra.languages.run,
                "retention": RetentionSweep(infra.database, clock, settings.retention_days).run,
                "moderation reports": moderation.reporter.run,
                **({"running leases": leases.run} if leases is not None else {}),
            },
            prepare=partial(_prepare, services),
            on_dead_letter=lambda reason: notices.put(WorkGivenUp(reason)),
            shutdown_timeout_s=settings.shutdown_timeout,
            providers=[provider.id for provider in llm.fallback.providers],
        )


def _dispatcher(services: Services, queued: InboxServices, bot: Bot, access: AccessList) -> ScheduleDispatcher:
    def may_run(schedule: Schedule) -> bool:
        owner = schedule.owner
        is_banned = services.operators.bans.is_banned(
            user_ref(Surface.TELEGRAM, owner.speaker.user_id), owner.key.chat_ref
        )
        return not is_banned and access.admits_ids({owner.speaker.user_id}, owner.key.chat_id)

    return ScheduleDispatcher(
        services.chat.schedules, queued.inbox, services.infra.clock, partial(schedule_job, bot.id), may_run
    )


@contextmanager
def _offered(
    for_console: DaemonServices,
    services: Services,
    queued: InboxServices,
    moderation: Moderation,
    delivery: Delivery,
) -> Generator[None]:
    """Registers the daemon's services for the web console during the context."""
    audit = services.operators.audit
    for_console.dead_letters = DeadLetterCommands(
        queued.inbox, audit, services.infra.settings.zone, services.infra.texts
    )
    for_console.moderation = ModerationQueue(
        moderation.incidents,
        moderation.actions,
        moderation.groups,
        moderation.admins,
        audit,
        FigureReader(services.infra.database, services.infra.clock),
    )
    for_console.work = queued.inbox
    for_console.send_file = partial(_send_file, delivery)
    try:
        yield
    finally:
        for_console.dead_letters = for_console.moderation = None
        for_console.work = for_console.send_file = None


async def _send_file(delivery: Delivery, person: int, name: str, data: bytes) -> bool:
    """Sends a file of the web console to an operator, who waits for it: it is tried once."""
    return (await delivery.post(person, Rendered(name), file=OutgoingFile(name, data), final=False)).sent is not None


async def _report_failure(notices: AdminNotices, stamp: FailureStamp, clock: Clock, error: InboxError) -> None:
    """Tells the operators why the daemon ends, at most once in a while over its restarts."""
    now = clock.time()
    if stamp.is_due(now):
        stamp.write(now)
        await notices.send_now(InboxFailed(str(error)))


async def _prepare(services: Services) -> None:
    await services.warm()
    raise_open_files_limit()
    tune_garbage_collection()


def build_eraser(services: Services, queued: InboxServices) -> Eraser:
    """Builds the eraser behind `/forget`."""
    infra = services.infra
    prefix = infra.settings.redis_prefix
    return Eraser(
        infra.database,
        infra.redis,
        prefix,
        services.ledger,
        infra.pseudonyms,
        infra.clock,
        queued.inbox.queue,
        on_erased=infra.languages.forget,
    )


def _name_topic(delivery: Delivery) -> Callable[[ConversationKey, str], Awaitable[None]]:
    """Returns the callback that gives topics of private chats the names of their conversations."""

    async def name_topic(key: ConversationKey, name: str) -> None:
        method = EditForumTopic(chat_id=key.chat_id, message_thread_id=key.topic_id, name=name)
        if (error := await delivery.attempt(method, key.chat_id)) is not None:
            log.info("topic.not_named", chat_id=key.chat_id, reason=describe_api_error(error))

    return name_topic


def _send_to(delivery: Delivery, infra: Infrastructure) -> Callable[[Event], Awaitable[None]]:
    async def send_to(admin: int, event: Event) -> None:
        # An operator who chose no language gets English: a notice answers no message.
        language = infra.languages.of(user_ref(Surface.TELEGRAM, admin))
        await delivery.send(admin, Rendered(format_notice(event, Wording(infra.texts, language))))

    async def send(event: Event) -> None:
        # Concurrently: a rate limited chat of one admin must not delay the others.
        await asyncio.gather(*(send_to(admin, event) for admin in sorted(infra.settings.admin_ids)))

    return send
