"""Moderation, put together for Telegram."""

from aiogram import Bot

from bot.composition.services import Services
from bot.telegram.api.group_admins import GroupAdmins
from bot.telegram.delivery.delivery import Delivery
from bot.telegram.moderation.cards import IncidentCards
from bot.telegram.moderation.gateway import ModerationGateway
from bot.telegram.moderation.sanctions import GroupSanctions
from bot.telegram.moderation.services import ModerationServices
from core.redis.notify_once import NotifyOnce
from services.moderation.actions import Feedback, ModerationActions
from services.moderation.alerts import AdminAlerts
from services.moderation.enforcement import Enforcement
from services.moderation.judging.consent import RemoteJudgingConsent
from services.moderation.judging.judge import Budget, Judge
from services.moderation.judging.verdict_cache import VerdictCache
from services.moderation.maintenance import Maintenance, MaintenanceTiming, Retention
from services.moderation.metrics import ModerationMetrics
from services.moderation.pipeline import Pipeline
from services.moderation.records.counts import DailyCounts
from services.moderation.records.groups import GroupStore
from services.moderation.records.incidents import IncidentStore
from services.moderation.records.message_log import MessageLog
from services.moderation.records.pending import PendingMessages
from services.moderation.records.reports import ReportStore
from services.moderation.records.warning_ledger import WarningLedger
from services.moderation.screening.exemptions import Exemptions
from services.moderation.screening.known_ham import KnownHam
from services.moderation.screening.rate_windows import RateWindows
from services.moderation.screening.rules import RuleEngine
from services.moderation.screening.screener import Screener
from services.moderation.spam_score.scorer import SpamScorer


def build_moderation(house: Services, bot: Bot, delivery: Delivery) -> ModerationServices:
    """Build it."""
    database, clock, redis, prefix = house.database, house.clock, house.redis, house.settings.redis_prefix
    groups, admins = GroupStore(database, clock), GroupAdmins(bot, clock)
    counts = DailyCounts(database, clock, ModerationMetrics(house.metrics).count)
    incidents, warnings = IncidentStore(database, clock), WarningLedger(database, clock)
    message_log, pending = MessageLog(database, clock, counts), PendingMessages(database, clock)
    reports, known_ham = ReportStore(database, clock), KnownHam(redis, prefix)
    exemptions, scores = Exemptions(admins, bot.id), SpamScorer(database, clock)
    screener = Screener(RuleEngine(RateWindows(redis, prefix)), scores, known_ham)
    consent = RemoteJudgingConsent(groups, house.stores.preferences, is_asked=house.settings.remote_consent == "ask")
    models = " ".join(f"{provider.id}/{provider.default_model}" for provider in house.fallback.providers)
    cache, budget = VerdictCache(redis, prefix, clock), Budget(redis, prefix, clock)
    judge = Judge(house.models, models, cache, budget, consent)
    cards = IncidentCards(delivery, house.texts)
    alerts = AdminAlerts(cards, NotifyOnce(redis, f"{prefix}:mod", clock))
    enforcement = Enforcement(incidents, warnings, counts, GroupSanctions(delivery), cards, alerts, clock)
    pipeline = Pipeline(exemptions, message_log, screener, judge, enforcement, pending, alerts, clock)
    feedback = Feedback(known_ham, scores)
    retention = Retention(groups, incidents, cards, (message_log, reports, warnings, counts))
    return ModerationServices(
        groups=groups,
        staff=admins,
        cards=cards,
        privacy=consent,
        statistics=counts,
        incidents=incidents,
        desk=ModerationActions(exemptions, pipeline, enforcement, incidents, warnings, reports, feedback, clock),
        door=ModerationGateway(groups, pipeline),
        caretaker=Maintenance(groups, pending, pipeline, enforcement, retention, scores, clock, MaintenanceTiming()),
    )
