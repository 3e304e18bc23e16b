"""Builds moderation for Telegram."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bot.composition.infrastructure import Infrastructure
from bot.composition.services import Services
from bot.telegram.api.client import KnownBot
from bot.telegram.api.group_admins import GroupAdmins
from bot.telegram.delivery.delivery import Delivery
from bot.telegram.moderation.cards import IncidentCards
from bot.telegram.moderation.gate_messages import GateMessages
from bot.telegram.moderation.gateway import ModerationGateway
from bot.telegram.moderation.messages import PictureFiles
from bot.telegram.moderation.sanctions import GroupSanctions
from core.redis.notify_once import NotifyOnce
from services.moderation.actions import Feedback, ModerationActions
from services.moderation.enforcement import Enforcement
from services.moderation.judging.judge import Budget, Judge
from services.moderation.judging.picture_judge import PictureJudge
from services.moderation.judging.verdict_cache import VerdictCache
from services.moderation.maintenance import Maintenance, MaintenanceTiming, Retention
from services.moderation.newcomers.newcomers import Newcomers
from services.moderation.newcomers.store import NewcomerStore
from services.moderation.pipeline import Pipeline
from services.moderation.records.counts import DailyCounts, ModerationMetrics
from services.moderation.records.groups import GroupStore, RemoteJudgingConsent
from services.moderation.records.incidents import IncidentStore
from services.moderation.records.members import ReportStore, WarningLedger
from services.moderation.records.message_log import MessageLog
from services.moderation.records.pending import PendingMessages
from services.moderation.records.shared_cards import SharedCards
from services.moderation.reporting import AdminAlerts, IncidentReporter, ReportTiming
from services.moderation.restrictions import Restrictions
from services.moderation.screening.exemptions import Exemptions, KnownHam
from services.moderation.screening.rate_windows import RateWindows
from services.moderation.screening.rules import RuleEngine
from services.moderation.screening.screener import Screener
from services.moderation.signals.campaigns import CampaignMemory
from services.moderation.spam_score.scorer import SpamScorer

if TYPE_CHECKING:
    from services.moderation.signals.account_lists import AccountLists


@dataclass(frozen=True, slots=True)
class Moderation:
    """Moderation as the handlers, the ingest and the daemon use it."""

    groups: GroupStore
    admins: GroupAdmins
    consent: RemoteJudgingConsent
    statistics: DailyCounts
    incidents: IncidentStore
    actions: ModerationActions
    reporter: IncidentReporter
    newcomers: Newcomers
    gateway: ModerationGateway
    maintenance: Maintenance
    accounts: "AccountLists | None"

    async def close(self) -> None:
        """Ends the look-ups of admins and those in public lists of spammers."""
        try:
            await self.admins.close()
        finally:
            if self.accounts is not None:
                await self.accounts.close()


def build_moderation(services: Services, bot: KnownBot, delivery: Delivery) -> Moderation:
    """Builds the stores, the pipeline and the actions on top of them."""
    infra, llm = services.infra, services.llm
    database, clock, redis, prefix = infra.database, infra.clock, infra.redis, infra.settings.redis_prefix
    groups, admins = GroupStore(database, clock), GroupAdmins(bot, clock)
    counts = DailyCounts(database, clock, ModerationMetrics(infra.metrics).count)
    incidents, warnings = IncidentStore(database, clock), WarningLedger(database, clock, infra.pseudonyms)
    message_log, pending = MessageLog(database, clock, counts), PendingMessages(database, clock)
    reports, known_ham = ReportStore(database, clock), KnownHam(redis, prefix)
    exemptions, scores = Exemptions(admins, bot.id), SpamScorer(database, clock)
    campaigns, accounts = CampaignMemory(redis, prefix), _open_account_lists(infra)
    screener = Screener(RuleEngine(RateWindows(redis, prefix)), scores, known_ham, campaigns, accounts)
    asks_consent = infra.settings.remote_consent == "ask"
    consent = RemoteJudgingConsent(groups, services.chat.preferences, is_asked=asks_consent)

    def models() -> str:
        return " ".join(f"{provider.id}/{provider.default_model}" for provider in llm.fallback.providers)

    cache, budget = VerdictCache(redis, prefix, clock), Budget(redis, prefix, clock)
    judge = Judge(llm.models, models, cache, budget, consent)
    cards = IncidentCards(delivery, admins, infra.texts)
    shared = SharedCards(database, clock)
    reporter = IncidentReporter(incidents, shared, groups, cards, counts, clock, ReportTiming())
    alerts = AdminAlerts(reporter, NotifyOnce(redis, f"{prefix}:mod", clock))
    sanctions = GroupSanctions(delivery, admins)
    restrictions = Restrictions(sanctions, clock)
    enforcement = Enforcement(incidents, shared, warnings, counts, restrictions, reporter, alerts, exemptions)
    newcomers = Newcomers(
        NewcomerStore(database, clock, infra.pseudonyms),
        admins,
        sanctions,
        GateMessages(bot, delivery, cards, infra.texts),
        reporter,
        bot.id,
        clock,
    )
    shown = Budget(redis, prefix, clock, kind="pictures")
    pictures = PictureJudge(llm.models, models, PictureFiles(bot), cache, shown, consent)
    pipeline = Pipeline(
        exemptions, message_log, screener, judge, enforcement, pending, alerts, newcomers,
        pictures=pictures, clock=clock,
    )  # fmt: skip
    feedback = Feedback(known_ham, scores, campaigns)
    retention = Retention(incidents, reporter, (message_log, reports, warnings, counts, newcomers.store))
    return Moderation(
        groups=groups,
        admins=admins,
        consent=consent,
        statistics=counts,
        incidents=incidents,
        actions=ModerationActions(exemptions, pipeline, enforcement, incidents, warnings, reports, feedback, clock),
        reporter=reporter,
        newcomers=newcomers,
        gateway=ModerationGateway(groups, pipeline, newcomers, bot.id),
        maintenance=Maintenance(
            groups,
            pending,
            pipeline,
            enforcement,
            retention,
            scores,
            newcomers,
            clock=clock,
            timing=MaintenanceTiming(),
        ),
        accounts=accounts,
    )


def _open_account_lists(infra: Infrastructure) -> "AccountLists | None":
    """Returns the public lists of spammers that the operator has named; imported only where one is."""
    names = infra.settings.moderation_spam_lists
    if not names:
        return None
    from services.moderation.signals.account_lists import AccountList, AccountLists

    return AccountLists([AccountList(name) for name in names], infra.clock)
