"""Builds the daemon's background work: upkeep, schedules, notices to operators, names of topics."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

import structlog
from aiogram import Bot
from aiogram.methods import EditForumTopic

from bot.composition.handlers import administration
from bot.composition.inbox import InboxServices
from bot.composition.infrastructure import Infrastructure
from bot.composition.services import Services
from bot.operators.formatting import Wording
from bot.operators.notices import format_notice
from bot.telegram.api.client import KnownBot, publish_commands
from bot.telegram.api.errors import describe_api_error
from bot.telegram.daemon import Work
from bot.telegram.delivery.delivery import Delivery
from bot.telegram.handlers.administration import send_broadcast
from bot.telegram.ingress.classification import AccessList
from bot.telegram.jobs import schedule_job
from bot.telegram.markdown.render import Rendered
from core.messages import ConversationKey, Surface, user_ref
from services.admin.broadcast_runner import BroadcastRunner
from services.admin.notices import AdminNotices, Event
from services.llm.providers.probe import check_providers
from services.llm.routing.events import Misconfigured
from services.privacy.rows import RetentionSweep
from services.schedule.dispatcher import ScheduleDispatcher
from services.schedule.schedules import Schedule

log = structlog.get_logger()


def build_notices(services: Services, delivery: Delivery) -> AdminNotices:
    """Builds the notices to operators, about the providers of all capabilities."""
    infra, llm = services.infra, services.llm
    notices = AdminNotices(infra.redis, infra.settings.redis_prefix, infra.clock, _send_to(delivery, infra))
    llm.fallback.recorder.listen(notices.put)
    for beside_chat in llm.capabilities.fallbacks.values():
        # Their outages do not silence the bot; a rejected key is for an operator all the same.
        beside_chat.recorder.listen(lambda event: notices.put(event) if isinstance(event, Misconfigured) else None)
    return notices


def list_upkeep(services: Services, queued: InboxServices, bot: KnownBot, delivery: Delivery) -> dict[str, Work]:
    """Returns the work in the background that no part of the runtime waits for, by its name."""
    infra, llm = services.infra, services.llm
    settings, clock = infra.settings, infra.clock
    broadcast_runner = BroadcastRunner(
        services.operators.broadcasts,
        partial(send_broadcast, delivery),
        administration(services, delivery).show_progress,
        clock,
        # Only one process uses a SQLite file, so it resumes at once after a crash.
        "local" if infra.database.is_embedded else infra.fence.name,
    )
    return {
        "inbox purge": queued.inbox.run_purge,
        "orphan scan": queued.inbox.run_orphan_scan,
        "commands": partial(publish_commands, bot, infra.texts, settings.admin_ids),
        "broadcasts": broadcast_runner.run,
        "probe": partial(check_providers, llm.catalog, llm.fallback.providers, clock, llm.fallback.recorder.pass_over),
        **({"tool calls": services.chat.acting.calls.run_purge} if services.chat.acting is not None else {}),
        "languages": infra.languages.run,
        "retention": RetentionSweep(infra.database, clock, settings.retention_days).run,
    }


def build_dispatcher(services: Services, queued: InboxServices, bot: Bot, access: AccessList) -> ScheduleDispatcher:
    """Builds the dispatcher of schedules; those of people who may not use the bot any more do not run."""

    def may_run(schedule: Schedule) -> bool:
        owner = schedule.owner
        is_banned = services.operators.bans.is_banned(
            user_ref(Surface.TELEGRAM, owner.speaker.user_id), owner.key.chat_ref
        )
        return not is_banned and access.admits_ids({owner.speaker.user_id}, owner.key.chat_id)

    return ScheduleDispatcher(
        services.chat.schedules, queued.inbox, services.infra.clock, partial(schedule_job, bot.id), may_run
    )


def create_topic_namer(delivery: Delivery) -> Callable[[ConversationKey, str], Awaitable[None]]:
    """Returns the callback that gives topics of private chats the names of their conversations."""

    async def name_topic(key: ConversationKey, name: str) -> None:
        method = EditForumTopic(chat_id=key.chat_id, message_thread_id=key.topic_id, name=name)
        if (error := await delivery.attempt(method, key.chat_id)) is not None:
            log.info("topic.not_named", chat_id=key.chat_id, reason=describe_api_error(error))

    return name_topic


def _send_to(delivery: Delivery, infra: Infrastructure) -> Callable[[Event], Awaitable[None]]:
    async def send_to(admin: int, event: Event) -> None:
        # An operator who chose no language gets English: a notice answers no message.
        language = infra.languages.chosen.get(user_ref(Surface.TELEGRAM, admin))
        await delivery.send(admin, Rendered(format_notice(event, Wording(infra.texts, language))))

    async def send(event: Event) -> None:
        # Concurrently: a rate limited chat of one admin must not delay the others.
        await asyncio.gather(*(send_to(admin, event) for admin in sorted(infra.settings.admin_ids)))

    return send
