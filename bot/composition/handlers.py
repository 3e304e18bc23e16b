"""Builds the handlers of the Telegram bot and the worker that feeds them updates."""

from collections.abc import Sequence

import structlog
from aiogram import Bot, Dispatcher, Router

from bot.composition.inbox import InboxServices
from bot.composition.moderation import Moderation
from bot.composition.services import Services
from bot.composition.web import console_address
from bot.operators.console_links import ConsoleCommand, ConsoleLinks
from bot.operators.dead_letters import DeadLetterCommands
from bot.operators.votes import VoteReports
from bot.telegram.answers.answer_messages import SendRecovery
from bot.telegram.answers.cancellation import ReplyCancellation
from bot.telegram.answers.responder import Responder
from bot.telegram.answers.streamed_message import AnswerDisplay
from bot.telegram.api.files import FileReader
from bot.telegram.api.group_admins import GroupAdmins
from bot.telegram.delivery.delivery import Delivery
from bot.telegram.delivery.replies import Replies
from bot.telegram.handlers.administration import AdministrationHandlers
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
from bot.telegram.handlers.retry import RegeneratedTurns, RegenerateQueue, RetryHandlers
from bot.telegram.handlers.schedules import ScheduledMessages, ScheduleHandlers
from bot.telegram.handlers.threads import ThreadHandlers
from bot.telegram.handlers.usage import usage_router
from bot.telegram.markdown.pages import RenderThread
from bot.telegram.moderation.admin_acts import AdminActs
from bot.telegram.moderation.handlers import ModerationHandlers
from bot.telegram.moderation.newcomer_handlers import NewcomerHandlers
from bot.telegram.moderation.settings_card import SettingsCard
from bot.telegram.moderation.settings_handlers import SettingsHandlers
from bot.telegram.worker import JobWorker
from services.chat.guests import GuestAnswers
from services.chat.media.voice import VoiceReplies
from services.chat.store.files import PictureStore
from services.privacy.erasure import Eraser

log = structlog.get_logger()


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
    recovery = SendRecovery(queued.journal, chat.turns, delivery, moderation.groups.has_cards)
    responder = _responder(services, bot, delivery, cancellation, recovery, renderer)
    approvals = _approvals(services, queued, bot, delivery, responder)
    dispatcher = Dispatcher(disable_fsm=True)
    dispatcher.callback_query.outer_middleware(ButtonBorder(delivery, infra.texts))
    dispatcher.include_routers(
        _operator_router(services, queued, delivery),
        administration(services, delivery).router(infra.settings.admin_ids),
        *_chat_routers(services, queued, bot, delivery, moderation.admins),
        ForgetHandlers(
            eraser=eraser, cancellation=cancellation, chat=chat.service, delivery=delivery, texts=infra.texts
        ).router(),
        _compare_router(services, cancellation, delivery, renderer),
        _picture_router(services, delivery, responder),
        *_moderation_routers(services, delivery, moderation),
        *([approvals.router()] if approvals is not None else []),
        ScheduleHandlers(schedules=chat.schedules, responder=responder, delivery=delivery, texts=infra.texts).router(),
        _guest_router(services, delivery, renderer),
        # Last, since it handles every message that no command has handled.
        _talk_router(services, delivery, cancellation, responder),
    )
    return JobWorker(
        bot=bot,
        dispatcher=dispatcher,
        responder=responder,
        regenerated=RegeneratedTurns(chat.turns, responder, infra.texts),
        known=recovery.known,
        delivery=delivery,
        parts=queued.inbox.album_parts,
        moderation=moderation.gateway,
        scheduled=_scheduled(services, delivery, responder),
        turns=chat.turns,
        texts=infra.texts,
        languages=infra.languages,
        approvals=approvals,
        tracer=infra.tracing.tracer if infra.tracing.on else None,
    )


def _responder(
    services: Services,
    bot: Bot,
    delivery: Delivery,
    cancellation: ReplyCancellation,
    recovery: SendRecovery,
    renderer: RenderThread,
) -> Responder:
    infra, chat = services.infra, services.chat
    return Responder(
        bot=bot,
        files=FileReader(infra.sandbox, hears=services.llm.capabilities.transcriber is not None),
        chat=chat.service,
        delivery=delivery,
        active=cancellation.active,
        recovery=recovery,
        texts=infra.texts,
        clock=infra.clock,
        display=AnswerDisplay(infra.settings.stream_mode, renderer, acknowledges=infra.settings.acknowledge_in_groups),
        providers=services.llm.fallback.usable_ids,
        voice=_voice_replies(services),
    )


def _talk_router(
    services: Services, delivery: Delivery, cancellation: ReplyCancellation, responder: Responder
) -> Router:
    infra, chat = services.infra, services.chat
    return ChatHandlers(
        responder=responder,
        delivery=delivery,
        cancellation=cancellation,
        turns=chat.turns,
        chat=chat.service,
        texts=infra.texts,
        admin_ids=infra.settings.admin_ids,
    ).router()


def _guest_router(services: Services, delivery: Delivery, renderer: RenderThread) -> Router:
    infra, chat = services.infra, services.chat
    return GuestHandlers(
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
    ).router()


def _picture_router(services: Services, delivery: Delivery, responder: Responder) -> Router:
    infra, chat = services.infra, services.chat
    return PictureHandlers(
        responder=responder,
        delivery=delivery,
        turns=chat.turns,
        pictures=PictureStore(infra.database),
        texts=infra.texts,
        is_set_up=services.llm.capabilities.image_generator is not None,
    ).router()


def _scheduled(services: Services, delivery: Delivery, responder: Responder) -> ScheduledMessages:
    infra, chat = services.infra, services.chat
    return ScheduledMessages(
        schedules=chat.schedules,
        chat=chat.service,
        responder=responder,
        turns=chat.turns,
        delivery=delivery,
        texts=infra.texts,
        clock=infra.clock,
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


def _voice_replies(services: Services) -> VoiceReplies | None:
    voice, settings = services.llm.capabilities.synthesizer, services.infra.settings
    if voice is None:
        return None
    return VoiceReplies(voice, services.chat.preferences, asks_consent=settings.remote_consent == "ask")


def _operator_router(services: Services, queued: InboxServices, delivery: Delivery) -> Router:
    infra, operators = services.infra, services.operators
    return OperatorHandlers(
        providers=operators.providers,
        provider_ids=services.llm.fallback.usable_ids,
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


def administration(services: Services, delivery: Delivery) -> AdministrationHandlers:
    """Builds the handlers of the commands about people and broadcasts."""
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
        ChoiceHandlers(
            delivery=delivery,
            preferences=chat.preferences,
            languages=infra.languages,
            threads=chat.threads,
            turns=turns,
            admins=admins,
            texts=texts,
            defaults=ChoiceDefaults(infra.settings.stream_mode, speaks=llm.capabilities.synthesizer is not None),
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
    acts = AdminActs(admins=admins, groups=groups, audit=services.operators.audit, replies=Replies(delivery, texts))
    card = SettingsCard(groups, moderation.consent, moderation.statistics, services.operators.totals, texts)
    return (
        ModerationHandlers(
            actions=moderation.actions,
            incidents=moderation.incidents,
            groups=groups,
            acts=acts,
            delivery=delivery,
            texts=texts,
        ).router(),
        SettingsHandlers(
            groups=groups,
            consent=moderation.consent,
            admins=admins,
            card=card,
            acts=acts,
            delivery=delivery,
            texts=texts,
            starts_dry=infra.settings.moderation_dry_run,
        ).router(),
        NewcomerHandlers(
            newcomers=moderation.newcomers, groups=groups, acts=acts, delivery=delivery, texts=texts
        ).router(),
    )
