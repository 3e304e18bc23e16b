"""Builds the Telegram handlers and the job worker."""

from aiogram import Bot, Dispatcher

from bot.composition.services import InboxServices, Services
from bot.operators.dead_letters import DeadLetterCommands
from bot.telegram.answers.active_replies import ActiveReplies
from bot.telegram.answers.cancellation import ReplyCancellation
from bot.telegram.answers.responder import Responder
from bot.telegram.delivery.delivery import Delivery
from bot.telegram.handlers.chat import chat_router
from bot.telegram.handlers.dead_letters import dead_letters_router
from bot.telegram.handlers.models import model_router
from bot.telegram.handlers.privacy import privacy_router
from bot.telegram.handlers.provider import provider_router
from bot.telegram.handlers.retry import retry_router
from bot.telegram.handlers.threads import threads_router
from bot.telegram.handlers.usage import usage_router
from bot.telegram.jobs.regenerate import RegenerateQueue
from bot.telegram.moderation.handlers import moderation_router
from bot.telegram.moderation.rules_handlers import rules_router
from bot.telegram.moderation.services import ModerationServices
from bot.telegram.moderation.settings_card import SettingsCard
from bot.telegram.moderation.settings_handlers import moderation_settings_router
from bot.telegram.observability.tracing import UpdateSpans
from bot.telegram.worker import JobWorker


def build_worker(
    house: Services,
    mailroom: InboxServices,
    bot: Bot,
    delivery: Delivery,
    live: ActiveReplies,
    stops: ReplyCancellation,
    moderation: ModerationServices,
) -> JobWorker:
    """What does the work, put together.

    Args:
        house: the services.
        mailroom: where the jobs are.
        bot: whose jobs.
        delivery: the way out.
        live: the answers in the making.
        stops: how they are stopped.
        moderation: sees the messages of moderated groups.
    """
    settings, inbox = house.settings, mailroom.inbox
    threads = house.stores.threads
    encore = RegenerateQueue(bot, inbox)
    answering = Responder(
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
        provider_router(
            admin_ids=settings.admin_ids,
            desk=house.desk,
            fallback=house.fallback,
            delivery=delivery,
            texts=house.texts,
        ),
        dead_letters_router(
            admin_ids=settings.admin_ids,
            desk=DeadLetterCommands(inbox, house.audit),
            delivery=delivery,
            texts=house.texts,
        ),
        retry_router(
            encore=encore,
            delivery=delivery,
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
            encore=encore,
            delivery=delivery,
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
        chat_router(answering=answering, delivery=delivery, stops=stops, threads=threads, texts=house.texts),
    )
    return JobWorker(
        bot=bot,
        dispatcher=dispatcher,
        answering=answering,
        delivery=delivery,
        parts=inbox.albums,
        moderation=moderation.door,
        threads=threads,
        texts=house.texts,
    )
