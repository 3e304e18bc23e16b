"""Moderation, put together for Telegram."""

from dataclasses import dataclass

from aiogram import Bot

from bot.composition.services import Services
from bot.telegram.api.group_admins import GroupAdmins
from bot.telegram.delivery.delivery import Delivery
from bot.telegram.moderation.cards import IncidentCards
from bot.telegram.moderation.gateway import ModerationGateway
from bot.telegram.moderation.sanctions import GroupSanctions
from services.moderation.actions import ActionServices, ModerationActions
from services.moderation.enforcement import Enforcement, Records
from services.moderation.judging.budget import Budget, Reminders
from services.moderation.judging.consent import RemoteJudgingConsent
from services.moderation.judging.judge import Judge
from services.moderation.judging.verdict_cache import VerdictCache
from services.moderation.maintenance import Maintenance, MaintenanceStores
from services.moderation.metrics import ModerationMetrics
from services.moderation.pipeline import Pipeline, PipelineServices
from services.moderation.records.counts import Statistics
from services.moderation.records.groups import GroupStore
from services.moderation.records.incidents import IncidentStore
from services.moderation.records.members import MemberStore
from services.moderation.records.message_log import MessageLog
from services.moderation.records.pending import PendingMessages
from services.moderation.records.reports import ReportStore
from services.moderation.records.versions import ProcessedVersions
from services.moderation.records.warning_ledger import WarningLedger
from services.moderation.screening.known_ham import KnownHam
from services.moderation.screening.rules import RuleEngine
from services.moderation.spam_score.scorer import LocalScore


@dataclass(frozen=True, slots=True)
class ModerationServices:
    """What the handlers, the doorway and the daemon need of it."""

    groups: GroupStore
    staff: GroupAdmins
    cards: IncidentCards
    privacy: RemoteJudgingConsent
    statistics: Statistics
    incidents: IncidentStore
    desk: ModerationActions
    door: ModerationGateway
    caretaker: Maintenance


def build_moderation(house: Services, bot: Bot, delivery: Delivery) -> ModerationServices:
    """Build it."""
    database, clock, redis, prefix = house.database, house.clock, house.redis, house.settings.redis_prefix
    groups, staff = GroupStore(database, clock), GroupAdmins(bot, clock)
    figures = ModerationMetrics(house.metrics)
    incidents, statistics = IncidentStore(database, clock), Statistics(database, clock, figures.count)
    seen, waiting = ProcessedVersions(database, clock), PendingMessages(database, clock)
    warnings, reports = WarningLedger(database, clock), ReportStore(database, clock)
    records = Records(incidents, warnings, statistics)
    cards, sanctions = IncidentCards(delivery, house.texts), GroupSanctions(delivery)
    reminders, precedents = Reminders(redis, prefix, clock), KnownHam(redis, prefix)
    enforcement = Enforcement(records, sanctions, cards, reminders, clock)
    privacy = RemoteJudgingConsent(groups, house.stores.preferences, is_asked=house.settings.remote_consent == "ask")
    scores = LocalScore(database, clock)
    models = " ".join(f"{provider.id}/{provider.default_model}" for provider in house.fallback.providers)
    tools = PipelineServices(
        staff=staff,
        journal=MessageLog(database, seen, MemberStore(database, clock), statistics),
        rules=RuleEngine(redis, prefix),
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
    desk = ActionServices(
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
    return ModerationServices(
        groups=groups,
        staff=staff,
        cards=cards,
        privacy=privacy,
        statistics=statistics,
        incidents=incidents,
        desk=ModerationActions(desk, bot.id),
        door=ModerationGateway(groups, pipeline),
        caretaker=Maintenance(
            MaintenanceStores(groups, waiting, incidents, (seen, reports, warnings, statistics), scores),
            pipeline,
            enforcement,
            cards,
            clock,
        ),
    )
