"""Builds and runs the Telegram daemon."""

from collections.abc import AsyncGenerator, Generator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, contextmanager
from functools import partial
from typing import TYPE_CHECKING

import structlog

from bot.composition.background import build_dispatcher, build_notices, create_topic_namer, list_upkeep
from bot.composition.handlers import build_worker
from bot.composition.inbox import InboxServices, open_inbox
from bot.composition.moderation import Moderation, build_moderation
from bot.composition.services import Services
from bot.composition.web import serve_web
from bot.operators.daemon_services import DaemonServices, ModerationQueue
from bot.operators.dead_letters import DeadLetterCommands
from bot.process import (
    enlarge_thread_pool,
    raise_open_files_limit,
    stop_on_signals,
    tune_garbage_collection,
)
from bot.telegram.answers.cancellation import ReplyCancellation
from bot.telegram.api.client import KnownBot, connect, create_bot
from bot.telegram.api.session import LeaseGate, MaskOutgoingSecrets
from bot.telegram.daemon import (
    Daemon,
    Runtime,
)
from bot.telegram.delivery.delivery import Delivery
from bot.telegram.delivery.outgoing import OutgoingFile
from bot.telegram.ingress.classification import AccessList, UpdateClassifier
from bot.telegram.ingress.ingest import Admission, AdmissionLimits, UpdateIngest
from bot.telegram.ingress.polling import Poller, poll_while_leading
from bot.telegram.markdown.pages import RenderThread
from bot.telegram.markdown.render import Rendered
from bot.telegram.observability import DaemonStatus
from bot.telegram.worker import FairJobPlaces, JobLimits
from core.clock import Clock
from core.config.settings import Settings
from core.errors import InboxError, StartupError
from core.observability.redaction import SecretMasker
from services.admin.notices import AdminNotices, InboxFailed, WorkGivenUp
from services.chat.reply import ActiveReplies
from services.inbox.queue_health import FailureStamp
from services.limits.party_limits import RateLimiter, TurnPlaces
from services.limits.running_leases import RunningLeases
from services.moderation.records.counts import FigureReader
from services.privacy.erasure import Eraser

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
        raise StartupError("TELEGRAM_BOT_TOKEN: is not set, for example TELEGRAM_BOT_TOKEN=123456789:AAF...")
    enlarge_thread_pool()
    bot = create_bot(settings.telegram_bot_token.get_secret_value(), settings.telegram_api_base_url)
    configuration = services.llm.configuration
    masker = SecretMasker((*settings.secrets, *configuration.current.secrets))
    configuration.on_change(lambda changed: masker.add_secrets(changed.secrets))
    bot.session.middleware(MaskOutgoingSecrets(masker))
    if not infra.database.is_embedded:
        # Without other replicas nothing ends the lease.
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
        status.watch_queue(inbox, lambda: inbox.queue.health.problem)
        delivery = Delivery(bot, clock, inbox.sent_messages, status.metrics)
        moderation = build_moderation(services, bot, delivery)
        services.chat.namer.listen(create_topic_namer(delivery))
        stack.push_async_callback(moderation.close)
        stack.enter_context(_offered(for_console, services, queued, moderation, delivery))
        notices = build_notices(services, delivery)
        access = AccessList(settings.admin_ids, settings.allowed_user_ids, settings.allowed_chat_ids)
        shared_redis = infra.shared_redis
        cancellation = ReplyCancellation(ActiveReplies(), shared_redis, settings.redis_prefix, clock)
        leases = RunningLeases(shared_redis, settings.redis_prefix, clock) if shared_redis is not None else None
        take = _ingest(services, queued, bot, moderation, access, status).take
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
                "cancellation": cancellation.run,
                "notices": notices.run,
                "schedule": build_dispatcher(services, queued, bot, access).run,
                "moderation": moderation.maintenance.run,
                "moderation reports": moderation.reporter.run,
                **({"running leases": leases.run} if leases is not None else {}),
                **list_upkeep(services, queued, bot, delivery),
            },
            prepare=partial(_prepare, services),
            on_dead_letter=lambda reason: notices.put(WorkGivenUp(reason)),
            shutdown_timeout_s=settings.shutdown_timeout,
            providers=[provider.id for provider in llm.fallback.providers],
        )


def _ingest(
    services: Services,
    queued: InboxServices,
    bot: KnownBot,
    moderation: Moderation,
    access: AccessList,
    status: DaemonStatus,
) -> UpdateIngest:
    infra, inbox = services.infra, queued.inbox
    settings, clock = infra.settings, infra.clock
    return UpdateIngest(
        bot=bot,
        inbox=inbox,
        parts=inbox.album_parts,
        classifier=UpdateClassifier(bot, moderation.gateway, access, clock, services.operators.bans),
        admission=Admission(
            RateLimiter(infra.shared_redis, settings.redis_prefix),
            clock,
            AdmissionLimits(settings.limit_messages_per_minute, settings.admin_ids),
        ),
        metrics=status.metrics,
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
        queued.inbox.queue.table,
        on_erased=infra.languages.forget,
    )
