"""Builds the durable inbox: beside the SQLite file, or in the PostgreSQL database that replicas share."""

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from sqlalchemy import URL, make_url

from bot.composition.infrastructure import Infrastructure
from core.background import BackgroundTasks
from core.db.database import resolve_url
from services.inbox.album_parts import AlbumParts
from services.inbox.dbos_queue import JobQueue
from services.inbox.dead_letters import CrashCounter, DeadLetters
from services.inbox.inbox import Inbox
from services.inbox.lease import FileLock
from services.inbox.postgres_journal import PostgresSendJournal
from services.inbox.replicas import PostgresReplicas, Replicas, SingleReplica
from services.inbox.sent_messages import FileSendJournal, SendJournal, SentMessages

INBOX_FILE = "inbox.db"
JOURNAL_FILE = "sends.journal"


@dataclass(frozen=True, slots=True)
class InboxServices:
    """The durable inbox, and the processes that share it."""

    inbox: Inbox
    replicas: Replicas
    journal: SendJournal


@asynccontextmanager
async def open_inbox(infra: Infrastructure, bot_id: int) -> AsyncGenerator[InboxServices]:
    """Opens the inbox of a bot.

    Raises:
        StartupError: another process uses DATA_DIR, or the database cannot be used.
    """
    settings, clock, database = infra.settings, infra.clock, infra.database
    url = make_url(resolve_url(settings))
    async with AsyncExitStack() as stack:
        replicas: Replicas
        journal: SendJournal
        if url.get_backend_name() == "sqlite":
            lock = FileLock(settings.data_dir / "inbox.lock", clock)
            await lock.acquire()
            stack.callback(lock.release)
            replica, replicas = "local", SingleReplica()
            journal = FileSendJournal(settings.data_dir / JOURNAL_FILE)
            stack.callback(journal.shut)
            url = URL.create("sqlite", database=str((settings.data_dir / INBOX_FILE).absolute()))
        else:
            replica = infra.fence.name
            conninfo = url.set(drivername="postgresql").render_as_string(hide_password=False)
            replicas = PostgresReplicas(conninfo, replica, str(bot_id), clock, lease=infra.lease, fence=infra.fence)
            journal = PostgresSendJournal(conninfo, replica, database, clock, infra.lease)
            tasks = BackgroundTasks()
            tasks.start(journal.run(), "send journal")
            stack.push_async_callback(tasks.close)
        stack.push_async_callback(replicas.leave)
        inbox = Inbox(
            lambda run: JobQueue(url, f"inbox-{bot_id}", replica, run, fence=infra.fence),
            CrashCounter(database, clock),
            DeadLetters(database, clock),
            SentMessages(database, clock),
            AlbumParts(database, clock),
            clock,
        )
        await inbox.queue.start()
        stack.push_async_callback(inbox.queue.close)
        yield InboxServices(inbox, replicas, journal)
