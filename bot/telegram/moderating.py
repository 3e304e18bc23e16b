"""Moderation, put together for Telegram."""

from dataclasses import dataclass

from aiogram import Bot

from bot.app import House
from bot.telegram.delivery import Delivery
from bot.telegram.group_moderation import GroupModeration
from bot.telegram.group_sanctions import GroupSanctions
from bot.telegram.group_staff import GroupStaff
from bot.telegram.incident_cards import IncidentCards
from services.moderation.budget import Budget, Reminders
from services.moderation.caretaker import Cared, Caretaker
from services.moderation.desk import DeskTools, ModerationDesk
from services.moderation.enforcement import Enforcement, Records
from services.moderation.figures import Statistics
from services.moderation.group import Groups
from services.moderation.incidents import Incidents
from services.moderation.journal import Journal
from services.moderation.judge import Judge
from services.moderation.metrics import ModerationMetrics
from services.moderation.pipeline import Pipeline, Tools
from services.moderation.precedents import Precedents
from services.moderation.privacy import RemoteJudging
from services.moderation.reports import Reports
from services.moderation.rules import Rules
from services.moderation.score import LocalScore
from services.moderation.seen import Seen
from services.moderation.standing import Members
from services.moderation.verdict_cache import VerdictCache
from services.moderation.waiting import WaitingRoom
from services.moderation.warning_ledger import WarningLedger


@dataclass(frozen=True, slots=True)
class Moderation:
    """What the handlers, the doorway and the daemon need of it."""

    groups: Groups
    staff: GroupStaff
    cards: IncidentCards
    privacy: RemoteJudging
    statistics: Statistics
    incidents: Incidents
    desk: ModerationDesk
    door: GroupModeration
    caretaker: Caretaker


def moderation_for(house: House, bot: Bot, delivery: Delivery) -> Moderation:
    """Build it."""
    database, clock, redis, prefix = house.database, house.clock, house.redis, house.settings.redis_prefix
    groups, staff = Groups(database, clock), GroupStaff(bot, clock)
    figures = ModerationMetrics(house.metrics)
    incidents, statistics = Incidents(database, clock), Statistics(database, clock, figures.count)
    seen, waiting = Seen(database, clock), WaitingRoom(database, clock)
    warnings, reports = WarningLedger(database, clock), Reports(database, clock)
    records = Records(incidents, warnings, statistics)
    cards, sanctions = IncidentCards(delivery, house.texts), GroupSanctions(delivery)
    reminders, precedents = Reminders(redis, prefix, clock), Precedents(redis, prefix)
    enforcement = Enforcement(records, sanctions, cards, reminders, clock)
    privacy = RemoteJudging(groups, house.stores.preferences, is_asked=house.settings.remote_consent == "ask")
    scores = LocalScore(database, clock)
    models = " ".join(f"{provider.id}/{provider.default_model}" for provider in house.fallback.providers)
    tools = Tools(
        staff=staff,
        journal=Journal(database, seen, Members(database, clock), statistics),
        rules=Rules(redis, prefix),
        scores=scores,
        precedents=precedents,
        privacy=privacy,
        judge=Judge(house.models, models, VerdictCache(redis, prefix, clock), Budget(redis, prefix, clock)),
        enforcement=enforcement,
        waiting=waiting,
        sanctions=sanctions,
        cards=cards,
        reminders=reminders,
        clock=clock,
    )
    pipeline = Pipeline(tools, bot.id)
    desk = DeskTools(
        records=records,
        enforcement=enforcement,
        pipeline=pipeline,
        reports=reports,
        precedents=precedents,
        teacher=scores,
        staff=staff,
        sanctions=sanctions,
        cards=cards,
        clock=clock,
    )
    return Moderation(
        groups=groups,
        staff=staff,
        cards=cards,
        privacy=privacy,
        statistics=statistics,
        incidents=incidents,
        desk=ModerationDesk(desk, bot.id),
        door=GroupModeration(groups, pipeline),
        caretaker=Caretaker(
            Cared(groups, waiting, incidents, (seen, reports, warnings, statistics), scores),
            pipeline,
            enforcement,
            cards,
            clock,
        ),
    )
