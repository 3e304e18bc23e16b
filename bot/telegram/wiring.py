"""The handlers and what they need, put together: what `bot/app.py` is to the services, this is to Telegram."""

from aiogram import Bot, Dispatcher

from bot.app import House, Mailroom
from bot.telegram.answering import Answering
from bot.telegram.backstage import Backstage
from bot.telegram.delivery import Delivery
from bot.telegram.encore import Encore
from bot.telegram.handlers.admin import admin_router
from bot.telegram.handlers.chat import chat_router
from bot.telegram.handlers.dead import dead_router
from bot.telegram.handlers.models import model_router
from bot.telegram.handlers.moderation import moderation_router
from bot.telegram.handlers.moderation_settings import moderation_settings_router
from bot.telegram.handlers.privacy import privacy_router
from bot.telegram.handlers.retry import retry_router
from bot.telegram.handlers.rules import rules_router
from bot.telegram.handlers.threads import threads_router
from bot.telegram.handlers.usage import usage_router
from bot.telegram.live import LiveReplies
from bot.telegram.moderating import Moderation
from bot.telegram.moderation_settings import SettingsCard
from bot.telegram.spans import UpdateSpans
from bot.telegram.stops import Stops
from services.inbox.desk import DeadLetterDesk


def backstage_for(
    house: House,
    mailroom: Mailroom,
    bot: Bot,
    delivery: Delivery,
    live: LiveReplies,
    stops: Stops,
    moderation: Moderation,
) -> Backstage:
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
    encore = Encore(bot, inbox)
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
        dead_router(
            admin_ids=settings.admin_ids,
            desk=DeadLetterDesk(inbox, house.audit),
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
    return Backstage(
        bot=bot,
        dispatcher=dispatcher,
        answering=answering,
        delivery=delivery,
        parts=inbox.albums,
        moderation=moderation.door,
        threads=threads,
        texts=house.texts,
    )
