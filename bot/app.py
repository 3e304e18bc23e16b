"""The composition root: builds everything that both surfaces share, and hands each what it needs."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import structlog
from redis.asyncio import Redis
from sqlalchemy import URL, make_url

from core.clock import Clock, SystemClock
from core.database import Database, url_for
from core.i18n import Texts
from core.provider_settings import ProviderKind, ProviderSettings
from core.redis import open_redis
from core.settings import Settings
from core.telemetry import Metrics
from core.tracing import Tracing, open_tracing, trace_transactions
from services.admin import ProviderDesk
from services.audit import Audit
from services.chat.agent_factory import AgentFactory
from services.chat.consent import Consent
from services.chat.metrics import TurnMetrics
from services.chat.notes import Notes
from services.chat.preferences import Preferences
from services.chat.shelf import ThreadShelf
from services.chat.threads import Threads
from services.chat.titles import Titles
from services.chat.turn import Chat, Stores
from services.chat.watching import TurnWatch
from services.inbox.albums import AlbumParts
from services.inbox.attempts import Attempts
from services.inbox.dead_letters import DeadLetters
from services.inbox.inbox import Inbox
from services.inbox.queue import JobQueue
from services.inbox.replicas import PostgresReplicas, Replicas, SingleProcess, process_name
from services.inbox.said import Said
from services.llm.attempts import Rules
from services.llm.builders import ModelBuilder
from services.llm.catalog import Catalog
from services.llm.fallback import LLMProviderFallback
from services.llm.metrics import ProviderMetrics
from services.llm.model_factory import LLMModelFactory
from services.llm.shedding import Shedding
from services.llm.spans import AttemptSpans
from services.llm.state import SharedRouting
from services.usage.accounts import UsageAccounts
from services.usage.desk import UsageDesk
from services.usage.ledger import UsageLedger

log = structlog.get_logger()

INBOX_FILE = "inbox.db"
DEMO = ProviderSettings(id="demo", kind=ProviderKind.DEMO, models=("demo",), remote=False)


@dataclass(frozen=True, slots=True)
class House:
    """What the surfaces stand on."""

    settings: Settings
    clock: Clock
    texts: Texts
    database: Database
    redis: Redis
    fallback: LLMProviderFallback
    catalog: Catalog
    chat: Chat
    stores: Stores
    shelf: ThreadShelf
    desk: ProviderDesk
    audit: Audit
    consent: Consent
    usage: UsageDesk
    builder: ModelBuilder
    metrics: Metrics
    tracing: Tracing
    models: LLMModelFactory
    accounts: UsageAccounts

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


def with_demo(settings: Settings) -> Settings:
    """The settings with the built-in demo as the last provider, for the console where nobody else answers."""
    if any(provider.kind is ProviderKind.DEMO for provider in settings.providers):
        return settings
    return settings.model_copy(update={"providers": (*settings.providers, DEMO)})


@dataclass(frozen=True, slots=True)
class Mailroom:
    """What the daemon has beside the house: the durable inbox, and the other processes that share it."""

    inbox: Inbox
    replicas: Replicas


@asynccontextmanager
async def open_mailroom(house: House, bot_id: int) -> AsyncGenerator[Mailroom]:
    """Open the inbox of a bot: beside the SQLite file, or in the PostgreSQL database that replicas share.

    Raises:
        StartupError: another process uses DATA_DIR, or the database cannot be used.
    """
    settings, clock, database = house.settings, house.clock, house.database
    url = make_url(url_for(settings))
    async with AsyncExitStack() as stack:
        replicas: Replicas
        if url.get_backend_name() == "sqlite":
            alone = SingleProcess(settings.data_dir / "inbox.lock", clock)
            await alone.claim()
            stack.callback(alone.release)
            replica, replicas = "local", alone
            url = URL.create("sqlite", database=str((settings.data_dir / INBOX_FILE).absolute()))
        else:
            replica = process_name()
            conninfo = url.set(drivername="postgresql").render_as_string(hide_password=False)
            replicas = PostgresReplicas(conninfo, replica, str(bot_id), clock)
        inbox = Inbox(
            lambda run: JobQueue(url, f"inbox-{bot_id}", replica, run),
            Attempts(database, clock),
            DeadLetters(database, clock),
            Said(database, clock),
            AlbumParts(database, clock),
            clock,
        )
        await inbox.start()
        stack.push_async_callback(inbox.queue.close)
        yield Mailroom(inbox, replicas)


@asynccontextmanager
async def open_house(settings: Settings, clock: Clock | None = None) -> AsyncGenerator[House]:
    """Build the services and start them in order; they stop in reverse.

    Raises:
        StartupError: DATA_DIR or the database cannot be used.
    """
    clock = clock or SystemClock()
    async with AsyncExitStack() as stack:
        settings.prepare_data_dir()
        tracing = open_tracing(settings)
        stack.push_async_callback(tracing.close)
        database = Database(url_for(settings))
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

        rules = Rules(settings.provider_preferred_ttl, settings.provider_cooldown, settings.provider_max_hops)
        shedding = Shedding(redis, settings.redis_prefix, clock)
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
        stores = Stores(Threads(database, clock), Notes(database, clock), Preferences(database, clock))
        watch = TurnWatch(tracing.tracer if tracing.on else None, TurnMetrics(metrics).note)
        titles = Titles(stores.threads, models)
        await titles.start()
        stack.push_async_callback(titles.close)
        chat = Chat(
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
        accounts = UsageAccounts(database, ledger, clock)
        audit = Audit(database, clock)
        desk = ProviderDesk(fallback, builder, audit, accounts, clock)
        consent = Consent(stores.preferences, fallback, texts, is_asked=asks_consent)
        yield House(
            settings=settings,
            clock=clock,
            texts=texts,
            database=database,
            redis=redis,
            fallback=fallback,
            catalog=catalog,
            chat=chat,
            stores=stores,
            shelf=ThreadShelf(database),
            desk=desk,
            audit=audit,
            consent=consent,
            usage=UsageDesk(accounts, texts),
            builder=builder,
            metrics=metrics,
            tracing=tracing,
            models=models,
            accounts=accounts,
        )
