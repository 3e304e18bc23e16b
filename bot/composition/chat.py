"""Opens the conversations, with the tools of the agent."""

from contextlib import AsyncExitStack
from dataclasses import dataclass

from bot.composition.infrastructure import Infrastructure
from bot.composition.llm import LLMServices
from core.config.providers import ProviderKind
from core.observability.metrics import Metrics
from services.chat.agent import create_agent
from services.chat.footers import StandInNotices
from services.chat.media.file_tools import DocumentTools, picture_tools
from services.chat.service import ChatService
from services.chat.store.conversation import ThreadList
from services.chat.store.files import DocumentStore, PictureStore
from services.chat.store.history import ThreadMemories
from services.chat.store.notes import Notes
from services.chat.store.turns import TurnStore
from services.chat.thread_names import ThreadNamer
from services.chat.turn import TurnMetrics, TurnObserver
from services.chat.turn_records import ChatStores
from services.compare.contest import Contests
from services.compare.votes import Votes
from services.mcp.calls import ToolCalls
from services.mcp.servers import McpServers
from services.mcp.tools import McpTools
from services.preferences import Consent, PreferenceStore
from services.schedule.schedules import Schedules
from services.schedule.tools import ScheduleTools
from services.web import PageReader, SearxSearch, WebTools


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
    observer = TurnObserver(tracing.tracer if tracing.on else None, TurnMetrics(infra.metrics).record)
    threads = ThreadList(database)
    namer = ThreadNamer(threads, llm.models)
    await namer.start()
    stack.push_async_callback(namer.close)
    schedules = Schedules(database, clock, settings.zone)
    acting = _open_mcp(stack, infra) if settings.tool_servers else None
    toolsets = [
        ScheduleTools(schedules).toolset(),
        _open_web(stack, infra).toolset(),
        DocumentTools(stores.documents).toolset(),
        picture_tools(),
        *([acting.tools] if acting is not None else []),
    ]
    service = ChatService(
        agent=create_agent(tracing.provider if tracing.on else None, toolsets),
        models=llm.models,
        stores=stores,
        texts=infra.texts,
        clock=clock,
        history_tokens=settings.history_tokens,
        asks_consent=asks_consent,
        observer=observer,
        namer=namer,
        stand_ins=StandInNotices(infra.redis, settings.redis_prefix, clock, llm.fallback),
        zone=settings.zone,
        demo_ids=frozenset(p.id for p in settings.providers if p.kind is ProviderKind.DEMO),
        transcriber=llm.capabilities.transcriber,
        image_generator=llm.capabilities.image_generator,
        find_asked=acting.tools.asked if acting is not None else None,
    )
    stack.push_async_callback(service.save_unsaved)
    _show_readings(infra.metrics, observer, service, acting)
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


def _show_readings(metrics: Metrics, observer: TurnObserver, service: ChatService, acting: ActingTools | None) -> None:
    metrics.reading("turns_running", "Turns that are being answered", lambda: float(observer.running))
    metrics.reading("mcp_connected", "MCP servers that are connected", lambda: acting.connected if acting else 0.0)
    metrics.reading("turns_unsaved", "Turns that wait for the database", lambda: float(service.unsaved))
