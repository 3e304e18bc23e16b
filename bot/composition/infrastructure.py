"""Opens the shared infrastructure: settings, storage, observability."""

from contextlib import AsyncExitStack
from dataclasses import dataclass

import structlog
from redis.asyncio import Redis

from core.clock import Clock
from core.config.settings import Settings
from core.db.database import Database, resolve_url
from core.db.replica_fence import ReplicaFence
from core.i18n import Texts
from core.observability.metrics import Metrics
from core.observability.tracing import Tracing, open_tracing, trace_transactions
from core.redis.client import open_redis
from services.files.sandbox import Sandbox
from services.inbox.lease import ReplicaLease
from services.inbox.replicas import replica_name
from services.preferences import Languages
from services.pseudonyms import Pseudonyms, load_pseudonyms

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Infrastructure:
    """Settings, storage and observability."""

    settings: Settings
    clock: Clock
    texts: Texts
    database: Database
    redis: Redis
    metrics: Metrics
    tracing: Tracing
    lease: ReplicaLease
    """Right of this process to act; it lapses only where replicas share a database."""
    fence: ReplicaFence
    pseudonyms: Pseudonyms
    languages: Languages
    sandbox: Sandbox
    """Reads the files of people, a few at a time."""

    @property
    def shared_redis(self) -> Redis | None:
        """The server that replicas share; None for the embedded one."""
        return self.redis if self.settings.redis_url is not None else None


async def open_infrastructure(stack: AsyncExitStack, settings: Settings, clock: Clock) -> Infrastructure:
    """Opens DATA_DIR, the database and Redis; the stack closes them.

    Raises:
        StartupError: DATA_DIR or the database cannot be used.
    """
    settings.prepare_data_dir()
    tracing = open_tracing(settings)
    stack.push_async_callback(tracing.close)
    fence = ReplicaFence(replica_name())
    database = Database(resolve_url(settings), fence=fence)
    stack.push_async_callback(database.close)
    await database.start()
    if tracing.on:
        trace_transactions(tracing.tracer, database.engines)
    if settings.redis_url is None:
        log.info("redis.embedded", detail="REDIS_URL is not set: provider state is kept in this process")
    redis = open_redis(settings.redis_url.get_secret_value() if settings.redis_url is not None else None)
    stack.push_async_callback(redis.aclose)
    metrics = Metrics()
    pseudonyms = await load_pseudonyms(database)
    languages = Languages(database, clock)
    await languages.load()
    return Infrastructure(
        settings,
        clock,
        Texts(),
        database,
        redis,
        metrics,
        tracing,
        ReplicaLease(),
        fence,
        pseudonyms,
        languages,
        Sandbox(),
    )
