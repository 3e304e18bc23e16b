"""A running console: real services, a database file, the embedded Redis, and providers on loopback."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from pydantic_ai.direct import model_request
from pydantic_ai.messages import ModelRequest

from bot.composition.services import Services, open_services
from bot.composition.web import serve_web
from bot.operators.daemon_services import DaemonServices, ModerationQueue
from bot.operators.dead_letters import DeadLetterCommands
from services.inbox.album_parts import AlbumParts
from services.inbox.dead_letters import CrashCounter, DeadLetters
from services.inbox.inbox import Inbox
from services.inbox.job import Job, Receipt
from services.inbox.sent_messages import SentMessages
from services.moderation.domain.ports import Administrators
from services.moderation.records.counts import FigureReader
from tests.support.fake_llm import server as llm
from tests.support.fake_llm.server import LLMServer
from tests.support.moderation_harness import SCAM, ModerationHarness, RecordingGroup, ScriptedJudge
from tests.support.processes.redis_server import free_port
from tests.support.settings import settings_for

if TYPE_CHECKING:
    from services.inbox.dbos_queue import JobQueue
from tests.support.sqlite_file import place_database

TOKEN = "a-long-random-word-for-tests"
BOT_TOKEN = "42:token-of-loopback"
ADMIN = 1000
SECRETS_KEY = "a-random-text-of-more-than-32-characters"


@dataclass
class RunningConsole:
    """The console, its services, and its providers by id."""

    services: Services
    servers: Mapping[str, LLMServer]
    base: str
    daemon: DaemonServices
    """Services of the Telegram daemon; empty until a test sets them."""

    async def answered_by(self) -> str:
        """Return the provider that answers the next request."""
        before = {name: len(server.requests) for name, server in self.servers.items()}
        model = self.services.llm.models.create_llm_model_with_fallback("chat")
        await model_request(model, [ModelRequest.user_text_prompt("Hello?")])
        return next(name for name, server in self.servers.items() if len(server.requests) > before[name])


@asynccontextmanager
async def running_console(directory: Path, **others: str) -> AsyncIterator[RunningConsole]:
    """Serve a console with the providers `alpha` and `beta`."""
    async with LLMServer() as alpha, LLMServer() as beta:
        servers = {"alpha": alpha, "beta": beta}
        for name, server in servers.items():
            server.default = llm.answer(f"from {name}")
        port = free_port()
        base = f"http://127.0.0.1:{port}"
        settings = settings_for(
            directory,
            {name: server.url for name, server in servers.items()},
            **{
                "WEB_PORT": str(port),
                "WEB_TOKEN": TOKEN,
                "WEB_PUBLIC_URL": base,
                "TELEGRAM_BOT_TOKEN": BOT_TOKEN,
                "ADMIN_IDS": str(ADMIN),
                "SECRETS_KEY": SECRETS_KEY,
                "TIMEZONE": "UTC",
                **others,
            },
        )
        place_database(directory)
        daemon = DaemonServices()
        async with open_services(settings) as services, serve_web(services, {}, daemon=daemon):
            yield RunningConsole(services, servers, base, daemon)


class LetterQueue:
    """A queue that keeps the jobs of letters that are retried."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []

    async def put(self, jobs: Sequence[Job]) -> Receipt:
        self.jobs.extend(jobs)
        return Receipt()


async def offer_dead_letters(console: RunningConsole, *reasons: str) -> LetterQueue:
    """Adds a dead letter for each reason."""
    infra, queue = console.services.infra, LetterQueue()
    letters = DeadLetters(infra.database, infra.clock)
    for number, reason in enumerate(reasons):
        await letters.add(Job(f"tg-{number}", "telegram:7:0", 0, '{"text": "a private word"}'), reason)
    inbox = Inbox(
        lambda _run: cast("JobQueue", queue),
        CrashCounter(infra.database, infra.clock),
        letters,
        SentMessages(infra.database, infra.clock),
        AlbumParts(infra.database, infra.clock),
        infra.clock,
    )
    console.daemon.dead_letters = DeadLetterCommands(inbox, console.services.operators.audit, infra.settings.zone)
    return queue


async def offer_moderation(console: RunningConsole, *, admin: int = ADMIN) -> tuple[ModerationHarness, RecordingGroup]:
    """Moderate a group whose admin is `admin`, with a judge to which every message is a scam."""
    infra, group = console.services.infra, RecordingGroup()
    group.admins = Administrators(frozenset({admin}))
    judge = ScriptedJudge()
    judge.default, judge.fixed_score = SCAM, 99
    harness = ModerationHarness(infra.database, infra.redis, infra.clock, group, judge)
    await harness.groups.change(harness.settings)
    console.daemon.moderation = ModerationQueue(
        harness.incidents,
        harness.actions,
        harness.groups,
        group,
        console.services.operators.audit,
        FigureReader(infra.database, infra.clock),
    )
    return harness, group
