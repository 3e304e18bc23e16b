"""Builds and runs the Telegram daemon."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, contextmanager
from functools import partial

import structlog
from aiogram import Bot, Dispatcher, Router
from aiogram.methods import EditForumTopic

from bot.composition.inbox import InboxServices, open_inbox
from bot.composition.moderation import Moderation, build_moderation
from bot.composition.services import Infrastructure, Services
from bot.composition.web import console_address, serve_web
from bot.operators.console_links import ConsoleCommand, ConsoleLinks
from bot.operators.daemon_services import DaemonServices, ModerationQueue
from bot.operators.dead_letters import DeadLetterCommands
from bot.operators.formatting import Wording
from bot.operators.notices import format_notice
from bot.operators.votes import VoteReports
from bot.process import (
    enlarge_thread_pool,
    raise_open_files_limit,
    stop_on_signals,
    tune_garbage_collection,
)
from bot.telegram.answers.cancellation import ReplyCancellation
from bot.telegram.answers.display import AnswerDisplay
from bot.telegram.answers.responder import Responder
from bot.telegram.answers.send_recovery import SendRecovery
from bot.telegram.api.client import KnownBot, connect, create_bot, publish_commands
from bot.telegram.api.errors import describe_api_error
from bot.telegram.api.files import FileReader
from bot.telegram.api.group_admins import GroupAdmins
from bot.telegram.api.session import LeaseGate, MaskOutgoingSecrets
from bot.telegram.daemon import (
    Daemon,
    Runtime,
)
from bot.telegram.delivery.delivery import Delivery
from bot.telegram.handlers.administration import AdministrationHandlers, BroadcastDelivery
from bot.telegram.handlers.approvals import ApprovalHandlers
from bot.telegram.handlers.button_guards import ButtonBorder
from bot.telegram.handlers.chat import ChatHandlers
from bot.telegram.handlers.choices import ChoiceDefaults, ChoiceHandlers
from bot.telegram.handlers.compare import CompareHandlers
from bot.telegram.handlers.guests import GuestHandlers
from bot.telegram.handlers.models import ModelHandlers
from bot.telegram.handlers.operators import OperatorHandlers
from bot.telegram.handlers.pictures import PictureHandlers
from bot.telegram.handlers.privacy import ForgetHandlers, PrivacyHandlers
from bot.telegram.handlers.retry import RetryHandlers
from bot.telegram.handlers.schedules import ScheduledMessages, ScheduleHandlers
from bot.telegram.handlers.threads import ThreadHandlers
from bot.telegram.handlers.usage import usage_router
from bot.telegram.ingress.admission import AccessList, Admission, AdmissionLimits
from bot.telegram.ingress.ingest import UpdateIngest
from bot.telegram.ingress.polling import Poller, poll_while_leading
from bot.telegram.ingress.webhook import Webhook
from bot.telegram.jobs import RegenerateQueue, schedule_job
from bot.telegram.markdown.pages import RenderThread
from bot.telegram.markdown.render import Rendered
from bot.telegram.moderation.handlers import ModerationHandlers
from bot.telegram.moderation.labels import ModerationAudit
from bot.telegram.moderation.newcomer_handlers import NewcomerHandlers
from bot.telegram.moderation.rules_handlers import RulesHandlers
from bot.telegram.moderation.settings_card import SettingsCard
from bot.telegram.moderation.settings_handlers import SettingsHandlers
from bot.telegram.observability import DaemonStatus, UpdateSpans
from bot.telegram.worker import FairJobPlaces, JobLimits, JobWorker
from core.clock import Clock
from core.config.settings import Settings
from core.errors import InboxError, StartupError
from core.messages import ConversationKey, Surface, user_ref
from core.observability.redaction import SecretMasker
from services.admin.broadcasts import BroadcastRunner
from services.admin.notices import AdminNotices, Event, InboxFailed, WorkGivenUp
from services.chat.guests import GuestAnswers
from services.chat.reply import ActiveReplies
from services.chat.speaking import VoiceReplies
from services.chat.store.pictures import PictureStore
from services.inbox.queue_health import FailureStamp
from services.limits.rates import RateLimiter
from services.limits.turns import RunningLeases, TurnPlaces
from services.llm.providers.probe import check_providers
from services.llm.routing.events import Misconfigured
from services.privacy.erasure import Eraser
from services.privacy.retention import RetentionSweep
from services.schedule.dispatcher import ScheduleDispatcher
from services.schedule.schedules import Schedule

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


def _webhook(settings: Settings) -> Webhook | None:
    url, secret = settings.telegram_webhook_url, settings.telegram_webhook_secret
    if settings.telegram_mode != "webhook" or url is None or secret is None:
        return None
    return Webhook(url, secret.get_secret_value())


@asynccontextmanager
async def _open_runtime(
    services: Services, bot: KnownBot, status: DaemonStatus, webhook: Webhook | None, for_console: DaemonServices
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
        stack.enter_context(_offered(for_console, services, queued, moderation))
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
            _administration(services, delivery).show_progress,
            clock,
            # One process uses a SQLite file: after a crash it goes on at once.
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
    for_console: DaemonServices, services: Services, queued: InboxServices, moderation: Moderation
) -> Generator[None]:
    """Offers the daemon's services to the console while the context lasts."""
    audit = services.operators.audit
    for_console.dead_letters = DeadLetterCommands(
        queued.inbox, audit, services.infra.settings.zone, services.infra.texts
    )
    for_console.moderation = ModerationQueue(
        moderation.incidents, moderation.actions, moderation.groups, moderation.admins, audit
    )
    try:
        yield
    finally:
        for_console.dead_letters = for_console.moderation = None


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


def build_worker(
    services: Services,
    queued: InboxServices,
    bot: Bot,
    delivery: Delivery,
    cancellation: ReplyCancellation,
    moderation: Moderation,
    renderer: RenderThread,
    eraser: Eraser,
) -> JobWorker:
    """Builds the handlers and the worker that feeds updates to them."""
    infra, chat = services.infra, services.chat
    responder = Responder(
        chat=chat.service,
        delivery=delivery,
        active=cancellation.active,
        recovery=SendRecovery(queued.journal, chat.turns, delivery, moderation.groups.has_cards),
        texts=infra.texts,
        clock=infra.clock,
        display=AnswerDisplay(infra.settings.stream_mode, renderer, acknowledges=infra.settings.acknowledge_in_groups),
        providers=lambda: services.llm.fallback.roster.usable,
        voice=_voice_replies(services),
    )
    approvals = _approvals(services, queued, bot, delivery, responder)
    dispatcher = Dispatcher(disable_fsm=True)
    if infra.tracing.on:
        dispatcher.update.outer_middleware(UpdateSpans(infra.tracing.tracer))
    dispatcher.callback_query.outer_middleware(ButtonBorder(delivery, infra.texts))
    dispatcher.include_routers(
        _operator_router(services, queued, delivery),
        _administration(services, delivery).router(infra.settings.admin_ids),
        *_chat_routers(services, queued, bot, delivery, moderation.admins),
        ForgetHandlers(
            eraser=eraser, cancellation=cancellation, chat=chat.service, delivery=delivery, texts=infra.texts
        ).router(),
        _compare_router(services, cancellation, delivery, renderer),
        PictureHandlers(
            responder=responder,
            delivery=delivery,
            turns=chat.turns,
            pictures=PictureStore(infra.database),
            texts=infra.texts,
            is_set_up=services.llm.capabilities.painter is not None,
        ).router(),
        *_moderation_routers(services, delivery, moderation),
        *([approvals.router()] if approvals is not None else []),
        GuestHandlers(
            guests=GuestAnswers(
                services.llm.models,
                services.llm.fallback,
                services.llm.budgets,
                chat.preferences,
                asks_consent=infra.settings.remote_consent == "ask",
            ),
            delivery=delivery,
            files=FileReader(infra.sandbox, hears=False),
            renderer=renderer,
            texts=infra.texts,
        ).router(),
        # Last, since it takes every message that no command has taken.
        ChatHandlers(
            responder=responder,
            delivery=delivery,
            cancellation=cancellation,
            turns=chat.turns,
            chat=chat.service,
            texts=infra.texts,
            files=FileReader(infra.sandbox, hears=services.llm.capabilities.transcriber is not None),
            admin_ids=infra.settings.admin_ids,
        ).router(),
    )
    return JobWorker(
        bot=bot,
        dispatcher=dispatcher,
        responder=responder,
        delivery=delivery,
        parts=queued.inbox.album_parts,
        moderation=moderation.gateway,
        scheduled=ScheduledMessages(
            schedules=chat.schedules,
            chat=chat.service,
            responder=responder,
            turns=chat.turns,
            delivery=delivery,
            texts=infra.texts,
            clock=infra.clock,
        ),
        turns=chat.turns,
        texts=infra.texts,
        languages=infra.languages,
        approvals=approvals,
    )


def _approvals(
    services: Services, queued: InboxServices, bot: Bot, delivery: Delivery, responder: Responder
) -> ApprovalHandlers | None:
    acting = services.chat.acting
    if acting is None:
        return None
    return ApprovalHandlers(
        bot=bot,
        calls=acting.calls,
        tools=acting.tools,
        inbox=queued.inbox,
        responder=responder,
        delivery=delivery,
        texts=services.infra.texts,
        clock=services.infra.clock,
    )


def build_eraser(services: Services, queued: InboxServices) -> Eraser:
    """Builds what `/forget` erases with."""
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


def _voice_replies(services: Services) -> VoiceReplies | None:
    voice, settings = services.llm.capabilities.voice, services.infra.settings
    if voice is None:
        return None
    return VoiceReplies(voice, services.chat.preferences, asks_consent=settings.remote_consent == "ask")


def _operator_router(services: Services, queued: InboxServices, delivery: Delivery) -> Router:
    infra, operators = services.infra, services.operators
    return OperatorHandlers(
        providers=operators.providers,
        provider_ids=lambda: services.llm.fallback.roster.usable,
        dead_letters=DeadLetterCommands(queued.inbox, operators.audit, infra.settings.zone, infra.texts),
        console=ConsoleCommand(
            ConsoleLinks(infra.redis, infra.settings.redis_prefix), operators.audit, console_address(infra.settings)
        ),
        delivery=delivery,
        texts=infra.texts,
    ).router(infra.settings.admin_ids)


def _compare_router(
    services: Services, cancellation: ReplyCancellation, delivery: Delivery, renderer: RenderThread
) -> Router:
    infra, chat = services.infra, services.chat
    return CompareHandlers(
        contests=chat.contests,
        votes=chat.votes,
        reports=VoteReports(chat.votes, infra.texts),
        active=cancellation.active,
        delivery=delivery,
        display=AnswerDisplay(infra.settings.stream_mode, renderer),
        texts=infra.texts,
        clock=infra.clock,
        files=FileReader(infra.sandbox),
        admin_ids=infra.settings.admin_ids,
    ).router()


def _administration(services: Services, delivery: Delivery) -> AdministrationHandlers:
    operators = services.operators
    return AdministrationHandlers(
        audit=operators.audit_reports,
        statistics=operators.statistics,
        bans=operators.ban_commands,
        broadcasts=operators.broadcasts,
        reports=operators.broadcast_reports,
        delivery=delivery,
        texts=services.infra.texts,
    )


def _chat_routers(
    services: Services, queued: InboxServices, bot: Bot, delivery: Delivery, admins: GroupAdmins
) -> Sequence[Router]:
    infra, llm, chat = services.infra, services.llm, services.chat
    texts, fallback, turns = infra.texts, llm.fallback, chat.turns
    regenerate = RegenerateQueue(bot, queued.inbox)
    models = ModelHandlers(
        delivery=delivery,
        preferences=chat.preferences,
        catalog=llm.catalog,
        fallback=fallback,
        texts=texts,
        admin_ids=infra.settings.admin_ids,
    )
    privacy = PrivacyHandlers(regenerate=regenerate, delivery=delivery, turns=turns, consent=chat.consent, texts=texts)
    return (
        RetryHandlers(
            regenerate=regenerate,
            delivery=delivery,
            turns=turns,
            fallback=fallback,
            admins=admins,
            texts=texts,
            files=FileReader(infra.sandbox, hears=services.llm.capabilities.transcriber is not None),
        ).router(),
        models.router(admins),
        privacy.router(admins),
        ScheduleHandlers(schedules=chat.schedules, delivery=delivery, texts=texts).router(),
        ChoiceHandlers(
            delivery=delivery,
            preferences=chat.preferences,
            languages=infra.languages,
            threads=chat.threads,
            turns=turns,
            admins=admins,
            texts=texts,
            defaults=ChoiceDefaults(infra.settings.stream_mode, speaks=llm.capabilities.voice is not None),
        ).router(),
        ThreadHandlers(delivery=delivery, thread_list=chat.threads, turns=turns, admins=admins, texts=texts).router(),
        usage_router(
            admin_ids=infra.settings.admin_ids,
            delivery=delivery,
            usage=services.operators.usage,
            budgets=services.operators.budgets,
        ),
    )


def _moderation_routers(services: Services, delivery: Delivery, moderation: Moderation) -> Sequence[Router]:
    infra = services.infra
    texts, groups, admins = infra.texts, moderation.groups, moderation.admins
    audit = ModerationAudit(services.operators.audit)
    card = SettingsCard(groups, moderation.consent, moderation.statistics, services.operators.totals, texts)
    return (
        ModerationHandlers(
            actions=moderation.actions,
            incidents=moderation.incidents,
            groups=groups,
            admins=admins,
            audit=audit,
            delivery=delivery,
            texts=texts,
        ).router(),
        SettingsHandlers(
            groups=groups,
            consent=moderation.consent,
            admins=admins,
            card=card,
            audit=audit,
            delivery=delivery,
            texts=texts,
            starts_dry=infra.settings.moderation_dry_run,
        ).router(),
        RulesHandlers(groups=groups, admins=admins, card=card, audit=audit, delivery=delivery, texts=texts).router(),
        NewcomerHandlers(
            newcomers=moderation.newcomers, groups=groups, admins=admins, audit=audit, delivery=delivery, texts=texts
        ).router(),
    )


def _name_topic(delivery: Delivery) -> Callable[[ConversationKey, str], Awaitable[None]]:
    """Returns what gives topics of private chats the names of their conversations."""

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
