"""Builds the services that all surfaces share, in the order of their dependencies; they close in reverse."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import structlog

from bot.composition.infrastructure import Infrastructure, open_infrastructure
from bot.composition.llm import LLMServices, open_llm_services
from bot.operators.audit import AuditReports
from bot.operators.broadcasts import BroadcastReports
from bot.operators.people import BanCommands, StatisticsReports
from bot.operators.provider import ProviderCommands
from bot.operators.spending import BudgetCommands, UsageReports
from core.background import BackgroundTasks, restart_on_error
from core.clock import Clock, SystemClock
from core.config.providers import ProviderKind
from core.config.settings import Settings
from core.messages import Surface, user_ref
from core.observability.metrics import Metrics
from services.admin.audit import Audit
from services.admin.bans import Bans
from services.admin.broadcasts import Broadcasts
from services.admin.providers import ProviderAdmin
from services.admin.statistics import Statistics
from services.admin.undo import UndoStore
from services.chat.agent import create_agent
from services.chat.media.file_tools import DocumentTools, picture_tools
from services.chat.service import ChatService
from services.chat.stand_ins import StandInNotices
from services.chat.store.files import DocumentStore, PictureStore
from services.chat.store.history import ThreadMemories
from services.chat.store.notes import Notes
from services.chat.store.thread_list import ThreadList
from services.chat.store.turns import TurnStore
from services.chat.thread_names import ThreadNamer
from services.chat.turn import TurnMetrics
from services.chat.turn_records import ChatStores
from services.compare.contest import Contests
from services.compare.votes import Votes
from services.history.figures import FigureHistory
from services.mcp.calls import ToolCalls
from services.mcp.servers import McpServers
from services.mcp.tools import McpTools
from services.preferences import Consent, PreferenceStore
from services.schedule.schedules import Schedules
from services.schedule.tools import ScheduleTools
from services.usage.ledger import UsageLedger
from services.usage.totals import UsageTotals
from services.web import PageReader, SearxSearch, WebTools

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class ActingTools:
    """The tools of MCP servers, and the calls of those that act."""

    servers: McpServers
    tools: McpTools
    calls: ToolCalls

    @property
    def connected(self) -> float:
        """Number of servers that are connected."""
        return float(self.servers.connected)


@dataclass(frozen=True, slots=True)
class ChatServices:
    """Conversations and the choices of a chat."""

    service: ChatService
    turns: TurnStore
    threads: ThreadList
    preferences: PreferenceStore
    consent: Consent
    schedules: Schedules
    votes: Votes
    contests: Contests
    acting: ActingTools | None
    namer: ThreadNamer


async def open_chat(stack: AsyncExitStack, infra: Infrastructure, llm: LLMServices) -> ChatServices:
    """Opens the conversations."""
    settings, database, clock, tracing = infra.settings, infra.database, infra.clock, infra.tracing
    asks_consent = settings.remote_consent == "ask"
    stores = ChatStores(
        TurnStore(database, clock),
        Notes(database, clock),
        PreferenceStore(database, clock),
        ThreadMemories(database, clock),
        DocumentStore(database),
        PictureStore(database),
    )
    threads = ThreadList(database)
    namer = ThreadNamer(threads, llm.models)
    await namer.start()
    stack.push_async_callback(namer.close)
    schedules = Schedules(database, clock, settings.zone)
    acting = _open_mcp(stack, infra) if settings.tool_servers else None
    service = ChatService(
        agent=create_agent(tracing.provider if tracing.on else None, [acting.tools] if acting is not None else []),
        tools=[
            ScheduleTools(schedules).toolset(),
            _open_web(stack, infra).toolset(),
            DocumentTools(stores.documents).toolset(),
            picture_tools(),
        ],
        models=llm.models,
        stores=stores,
        texts=infra.texts,
        clock=clock,
        history_tokens=settings.history_tokens,
        asks_consent=asks_consent,
        tracer=tracing.tracer if tracing.on else None,
        metrics=TurnMetrics(infra.metrics),
        namer=namer,
        stand_ins=StandInNotices(infra.redis, settings.redis_prefix, clock, llm.fallback),
        zone=settings.zone,
        demo_ids=frozenset(p.id for p in settings.providers if p.kind is ProviderKind.DEMO),
        transcriber=llm.capabilities.transcriber,
        image_generator=llm.capabilities.image_generator,
        find_asked=acting.tools.asked if acting is not None else None,
    )
    stack.push_async_callback(service.deferred.flush)
    _show_readings(infra.metrics, service, acting)
    fallbacks = (llm.fallback, *llm.capabilities.fallbacks.values())
    consent = Consent(stores.preferences, fallbacks, infra.texts, is_asked=asks_consent)
    votes = Votes(database, clock, infra.pseudonyms)
    contests = Contests(
        llm.models, llm.fallback, stores.preferences, infra.texts, settings.zone, asks_consent=asks_consent
    )
    return ChatServices(
        service,
        stores.turns,
        threads,
        stores.preferences,
        consent,
        schedules,
        votes,
        contests,
        acting,
        namer,
    )


def _open_web(stack: AsyncExitStack, infra: Infrastructure) -> WebTools:
    settings = infra.settings
    search = SearxSearch(settings.web_search_url) if settings.web_search_url is not None else None
    if search is not None:
        stack.push_async_callback(search.aclose)
    return WebTools(PageReader(infra.sandbox), search, is_native=settings.web_search_native)


def _open_mcp(stack: AsyncExitStack, infra: Infrastructure) -> ActingTools:
    servers = McpServers(infra.settings.tool_servers, infra.clock)
    servers.start()
    stack.push_async_callback(servers.close)
    calls = ToolCalls(infra.database, infra.clock)
    return ActingTools(servers, McpTools(servers, calls), calls)


def _show_readings(metrics: Metrics, service: ChatService, acting: ActingTools | None) -> None:
    metrics.reading("turns_running", "Turns that are being answered", lambda: float(service.running.total()))
    metrics.reading("mcp_connected", "MCP servers that are connected", lambda: acting.connected if acting else 0.0)
    metrics.reading("turns_unsaved", "Turns that wait for the database", lambda: float(len(service.deferred.pending)))


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
                    # Built by the look-up.
                    _ = self.llm.builder.models[provider, provider.default_model]
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
        ledger = UsageLedger(
            infra.database, infra.clock, history=history, count_cost=infra.metrics.cost, zone=settings.zone
        )
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
