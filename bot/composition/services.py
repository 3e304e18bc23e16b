"""Builds the services that all surfaces share, in the order of their dependencies; they close in reverse."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import structlog

from bot.composition.chat import ChatServices, open_chat
from bot.composition.infrastructure import Infrastructure, open_infrastructure
from bot.composition.llm import LLMServices, open_llm_services
from bot.operators.audit import AuditReports
from bot.operators.broadcasts import BroadcastReports
from bot.operators.budget import BudgetCommands
from bot.operators.people import BanCommands, StatisticsReports
from bot.operators.provider import ProviderCommands
from bot.operators.usage import UsageReports
from core.background import BackgroundTasks, restart_on_error
from core.clock import Clock, SystemClock
from core.config.settings import Settings
from core.messages import Surface, user_ref
from services.admin.audit import Audit
from services.admin.bans import Bans
from services.admin.broadcasts import Broadcasts
from services.admin.providers import ProviderAdmin
from services.admin.statistics import Statistics
from services.admin.undo import UndoStore
from services.history.figures import FigureHistory
from services.usage.ledger import UsageLedger
from services.usage.totals import UsageTotals

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class OperatorServices:
    """Operator commands and their records."""

    audit: Audit
    admin: ProviderAdmin
    undoable: UndoStore
    providers: ProviderCommands
    usage: UsageReports
    totals: UsageTotals
    budgets: BudgetCommands
    history: FigureHistory
    audit_reports: AuditReports
    statistics: StatisticsReports
    bans: Bans
    ban_commands: BanCommands
    broadcasts: Broadcasts
    broadcast_reports: BroadcastReports


@dataclass(frozen=True, slots=True)
class Services:
    """Everything that a surface is built from. Only the composition root sees it whole."""

    infra: Infrastructure
    llm: LLMServices
    chat: ChatServices
    operators: OperatorServices
    ledger: UsageLedger

    async def warm(self) -> None:
        """Imports the providers' SDKs and the history serialiser, which would delay the first answers by a second.

        An SDK that cannot be imported is logged here, and its provider fails when a request reaches it.
        """

        def build() -> None:
            for provider in self.llm.fallback.providers:
                try:
                    self.llm.builder.model(provider, provider.default_model)
                except Exception as error:  # noqa: BLE001 - the request that asks this provider gets the error
                    log.warning("provider.build_failed", provider=provider.id, error=type(error).__name__)

        await asyncio.gather(asyncio.to_thread(build), self.chat.turns.warm())


@asynccontextmanager
async def open_services(settings: Settings, clock: Clock | None = None) -> AsyncGenerator[Services]:
    """Builds and starts the services.

    Raises:
        StartupError: DATA_DIR or the database cannot be used.
    """
    async with AsyncExitStack() as stack:
        infra = await open_infrastructure(stack, settings, clock or SystemClock())
        history = FigureHistory(infra.database, infra.clock, settings.zone)
        ledger = UsageLedger(infra.database, infra.clock, history=history, zone=settings.zone)
        await ledger.start()
        stack.push_async_callback(ledger.close)
        llm = await open_llm_services(stack, infra, ledger)
        chat = await open_chat(stack, infra, llm)
        totals = UsageTotals(infra.database, ledger, infra.clock, settings.zone)
        operators = await _open_operators(stack, infra, llm, totals, history)
        yield Services(infra, llm, chat, operators, ledger)


async def _open_operators(
    stack: AsyncExitStack, infra: Infrastructure, llm: LLMServices, totals: UsageTotals, history: FigureHistory
) -> OperatorServices:
    settings, database, clock, texts = infra.settings, infra.database, infra.clock, infra.texts
    audit = Audit(database, clock)
    undoable = UndoStore(infra.redis, settings.redis_prefix)
    admin = ProviderAdmin(llm.fallback, llm.builder, audit, totals, clock, undoable, llm.capabilities.fallbacks)
    bans = Bans(database, clock, audit, infra.pseudonyms)
    await bans.refresh()
    tasks = BackgroundTasks()
    stack.push_async_callback(tasks.close)
    tasks.start(restart_on_error(bans.run, "bans", clock), "bans")
    allowed = settings.allowed_user_ids | settings.admin_ids
    is_restricted = bool(settings.allowed_user_ids or settings.allowed_chat_ids)

    def accepts(chat_id: int) -> bool:
        is_allowed = not is_restricted or chat_id in allowed
        return is_allowed and not bans.is_banned(user_ref(Surface.TELEGRAM, chat_id))

    broadcasts = Broadcasts(database, clock, audit, accepts)
    return OperatorServices(
        audit,
        admin,
        undoable,
        ProviderCommands(admin, clock, settings.zone, texts),
        UsageReports(totals, texts),
        totals,
        BudgetCommands(llm.budgets, llm.fallback, audit, texts),
        history,
        AuditReports(audit, texts, settings.zone),
        StatisticsReports(Statistics(database, totals, clock), texts),
        bans,
        BanCommands(bans, settings.admin_ids.__contains__, texts, settings.zone),
        broadcasts,
        BroadcastReports(broadcasts, texts, settings.zone),
    )
