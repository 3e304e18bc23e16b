"""The composition root: builds everything that both surfaces share, and hands each what it needs."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import structlog
from redis.asyncio import Redis
from sqlalchemy import URL, make_url

from bot.operators.provider import ProviderAdmin
from bot.operators.usage import UsageReports
from core.clock import Clock, SystemClock
from core.config.providers import ProviderKind, ProviderSettings
from core.config.settings import Settings
from core.db.database import Database, resolve_url
from core.i18n import Texts
from core.observability.metrics import Metrics
from core.observability.tracing import Tracing, open_tracing, trace_transactions
from core.redis.client import open_redis
from services.admin.audit import Audit
from services.chat.agent import AgentFactory
from services.chat.observer import TurnMetrics, TurnObserver
from services.chat.service import ChatService, ChatStores
from services.chat.store.notes import Notes
from services.chat.store.thread_list import ThreadList
from services.chat.store.turns import TurnStore
from services.chat.thread_names import ThreadNamer
from services.consent import Consent
from services.inbox.album_parts import AlbumParts
from services.inbox.crash_counts import CrashCounter
from services.inbox.dbos_queue import JobQueue
from services.inbox.dead_letters import DeadLetters
from services.inbox.inbox import Inbox
from services.inbox.replicas import FileLock, PostgresReplicas, Replicas, replica_name
from services.inbox.sent_messages import SentMessages
from services.llm.models.factory import LLMModelFactory
from services.llm.providers.builder import ModelBuilder
from services.llm.providers.catalog import Catalog
from services.llm.routing.attempts import RoutingLimits
from services.llm.routing.fallback import LLMProviderFallback
from services.llm.routing.load_shedding import LoadShedding
from services.llm.routing.metrics import ProviderMetrics
from services.llm.routing.shared_state import SharedRouting
from services.llm.routing.tracing import AttemptSpans
from services.preferences import PreferenceStore
from services.usage.ledger import UsageLedger
from services.usage.totals import UsageTotals

log = structlog.get_logger()

INBOX_FILE = "inbox.db"
DEMO = ProviderSettings(id="demo", kind=ProviderKind.DEMO, models=("demo",), remote=False)


@dataclass(frozen=True, slots=True)
class Services:
    """What the surfaces stand on."""

    settings: Settings
    clock: Clock
    texts: Texts
    database: Database
    redis: Redis
    fallback: LLMProviderFallback
    catalog: Catalog
    chat: ChatService
    stores: ChatStores
    shelf: ThreadList
    desk: ProviderAdmin
    audit: Audit
    consent: Consent
    usage: UsageReports
    builder: ModelBuilder
    metrics: Metrics
    tracing: Tracing
    models: LLMModelFactory
    accounts: UsageTotals

    async def warm(self) -> None:
        """Import and build what the first answers would otherwise wait a second for: the providers' SDKs, the history.

        A provider whose SDK cannot be imported is found out when it is asked.
        """

        def build() -> None:
            for provider in self.fallback.providers:
                try:
                    self.builder.model(provider, provider.default_model)
                except Exception as error:  # noqa: BLE001 - whoever asks this provider gets the error, in a thread or not
                    log.warning("provider.not_built", provider=provider.id, error=type(error).__name__)

        await asyncio.gather(asyncio.to_thread(build), self.stores.threads.warm())


def with_demo_provider(settings: Settings) -> Settings:
    """The settings with the built-in demo as the last provider, for the console where nobody else answers."""
    if any(provider.kind is ProviderKind.DEMO for provider in settings.providers):
        return settings
    return settings.model_copy(update={"providers": (*settings.providers, DEMO)})


@dataclass(frozen=True, slots=True)
class InboxServices:
    """What the daemon has beside the house: the durable inbox, and the other processes that share it."""

    inbox: Inbox
    replicas: Replicas


@asynccontextmanager
async def open_inbox(house: Services, bot_id: int) -> AsyncGenerator[InboxServices]:
    """Open the inbox of a bot: beside the SQLite file, or in the PostgreSQL database that replicas share.

    Raises:
        StartupError: another process uses DATA_DIR, or the database cannot be used.
    """
    settings, clock, database = house.settings, house.clock, house.database
    url = make_url(resolve_url(settings))
    async with AsyncExitStack() as stack:
        replicas: Replicas
        if url.get_backend_name() == "sqlite":
            alone = FileLock(settings.data_dir / "inbox.lock", clock)
            await alone.claim()
            stack.callback(alone.release)
            replica, replicas = "local", alone
            url = URL.create("sqlite", database=str((settings.data_dir / INBOX_FILE).absolute()))
        else:
            replica = replica_name()
            conninfo = url.set(drivername="postgresql").render_as_string(hide_password=False)
            replicas = PostgresReplicas(conninfo, replica, str(bot_id), clock)
        inbox = Inbox(
            lambda run: JobQueue(url, f"inbox-{bot_id}", replica, run),
            CrashCounter(database, clock),
            DeadLetters(database, clock),
            SentMessages(database, clock),
            AlbumParts(database, clock),
            clock,
        )
        await inbox.start()
        stack.push_async_callback(inbox.queue.close)
        yield InboxServices(inbox, replicas)


@asynccontextmanager
async def open_services(settings: Settings, clock: Clock | None = None) -> AsyncGenerator[Services]:
    """Build the services and start them in order; they stop in reverse.

    Raises:
        StartupError: DATA_DIR or the database cannot be used.
    """
    clock = clock or SystemClock()
    async with AsyncExitStack() as stack:
        settings.prepare_data_dir()
        tracing = open_tracing(settings)
        stack.push_async_callback(tracing.close)
        database = Database(resolve_url(settings))
        await database.start()
        stack.push_async_callback(database.close)
        if tracing.on:
            trace_transactions(tracing.tracer, database.engine)
        ledger = UsageLedger(database, clock)
        await ledger.start()
        stack.push_async_callback(ledger.close)

        if settings.redis_url is None:
            log.info("redis.embedded", detail="REDIS_URL is not set: what is known of the providers stays here")
        redis = open_redis(settings.redis_url.get_secret_value() if settings.redis_url is not None else None)
        stack.push_async_callback(redis.aclose)
        shared = SharedRouting(redis, settings.redis_prefix, clock)
        await shared.start()
        stack.push_async_callback(shared.close)

        rules = RoutingLimits(settings.provider_preferred_ttl, settings.provider_cooldown, settings.provider_max_hops)
        shedding = LoadShedding(redis, settings.redis_prefix, clock)
        stack.push_async_callback(shedding.close)
        fallback = LLMProviderFallback(settings.providers, shared, clock, rules, shedding, ledger)
        metrics = Metrics((provider.id, model) for provider in settings.providers for model in provider.models)
        ProviderMetrics(metrics, fallback, shared)
        if tracing.on:
            fallback.watch(AttemptSpans(tracing.tracer).note)
        builder = ModelBuilder(clock)
        stack.push_async_callback(builder.aclose)
        catalog = Catalog(builder.http_client)
        models = LLMModelFactory(fallback, builder)

        texts = Texts()
        asks_consent = settings.remote_consent == "ask"
        stores = ChatStores(TurnStore(database, clock), Notes(database, clock), PreferenceStore(database, clock))
        watch = TurnObserver(tracing.tracer if tracing.on else None, TurnMetrics(metrics).note)
        titles = ThreadNamer(stores.threads, models)
        await titles.start()
        stack.push_async_callback(titles.close)
        chat = ChatService(
            agents=AgentFactory(models, tracing.provider if tracing.on else None),
            stores=stores,
            texts=texts,
            clock=clock,
            history_tokens=settings.history_tokens,
            asks_consent=asks_consent,
            watch=watch,
            titles=titles,
            demos=frozenset(p.id for p in settings.providers if p.kind is ProviderKind.DEMO),
        )
        stack.push_async_callback(chat.save_unsaved)
        metrics.reading("turns_running", "Turns that are being answered", lambda: float(watch.running))
        metrics.reading("turns_unsaved", "Turns that wait for the database", lambda: float(chat.unsaved))
        accounts = UsageTotals(database, ledger, clock)
        audit = Audit(database, clock)
        desk = ProviderAdmin(fallback, builder, audit, accounts, clock)
        consent = Consent(stores.preferences, fallback, texts, is_asked=asks_consent)
        yield Services(
            settings=settings,
            clock=clock,
            texts=texts,
            database=database,
            redis=redis,
            fallback=fallback,
            catalog=catalog,
            chat=chat,
            stores=stores,
            shelf=ThreadList(database),
            desk=desk,
            audit=audit,
            consent=consent,
            usage=UsageReports(accounts, texts),
            builder=builder,
            metrics=metrics,
            tracing=tracing,
            models=models,
            accounts=accounts,
        )
