"""ChatHarness: the chat service over loopback LLM servers, the fallback service and a database."""

import asyncio
import sqlite3
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select

from core.config.settings import ProviderSettings
from core.db.database import Database
from core.db.tables import TurnRow
from core.i18n import Texts
from core.messages import Attachment, ChatKind, ConversationKey, Incoming, Speaker, Surface
from core.redis.client import open_redis
from services.chat.agent import create_agent
from services.chat.reply import Reply, ReplyPhase
from services.chat.service import ChatService
from services.chat.store.files import DocumentStore, PictureStore
from services.chat.store.history import ThreadMemories
from services.chat.store.notes import Notes
from services.chat.store.thread_list import ThreadList
from services.chat.store.turns import TurnStore
from services.chat.thread_names import NamingTiming, ThreadNamer
from services.chat.turn import AbilityTools, TurnRequest
from services.chat.turn_records import ChatStores
from services.llm.models.factory import LLMModelFactory
from services.llm.request import ModelChoice
from services.llm.routing.fallback import LLMProviderFallback
from services.llm.routing.status import ProviderState
from services.moderation.domain.verdict import Verdict
from services.preferences import PreferenceStore
from tests.support.clock import ManualClock
from tests.support.fake_llm.server import LLMServer, RecordedRequest
from tests.support.llm_harness import RealPauses, bench

ANN = Speaker(7, "Ann", "en")
BOB = Speaker(8, "Bob", "ru-RU")
PRIVATE = ConversationKey(Surface.TELEGRAM, 7)
GROUP = ConversationKey(Surface.TELEGRAM, -100, 5)


def message(
    text: str = "Hello?",
    *,
    key: ConversationKey = PRIVATE,
    speaker: Speaker = ANN,
    attachments: tuple[Attachment, ...] = (),
    chat_title: str | None = None,
    quoted: str | None = None,
) -> Incoming:
    """A message to the bot; a negative chat id is a group, as in Telegram."""
    kind = ChatKind.GROUP if key.chat_id < 0 else ChatKind.PRIVATE
    sent_at = ManualClock().now()
    return Incoming(key, kind, speaker, text, sent_at, attachments, chat_title, quoted)


@dataclass(frozen=True, slots=True)
class ChatHarness:
    """The chat service of one replica, with its collaborators."""

    chat: ChatService
    stores: ChatStores
    models: LLMModelFactory[Verdict]
    fallback: LLMProviderFallback
    clock: ManualClock
    database: Database

    async def say(self, incoming: Incoming | str = "Hello?", **options: Any) -> Reply:
        """Run one turn to its end."""
        reply = Reply()
        await self.chat.respond(TurnRequest(_incoming(incoming), **options), reply)
        return reply

    def begin(self, incoming: Incoming | str = "Hello?", **options: Any) -> tuple[Reply, asyncio.Task[None]]:
        """Start one turn in the background."""
        reply = Reply()
        return reply, asyncio.create_task(self.chat.respond(TurnRequest(_incoming(incoming), **options), reply))

    async def retry(self, reply: Reply, *, choice: ModelChoice | None = None) -> Reply:
        """Press the Retry button under an answer."""
        assert reply.turn_id is not None
        turn = await self.stores.turns.turn(reply.turn_id)
        return await self.say(message(""), retry_of=turn, choice=choice)

    async def row(self, reply: Reply) -> TurnRow:
        """Return the stored row of a turn."""
        async with self.database.reading() as session:
            return (await session.scalars(select(TurnRow).where(TurnRow.id == reply.turn_id))).one()

    async def rows(self) -> Sequence[TurnRow]:
        """Return all stored turns in order."""
        async with self.database.reading() as session:
            return (await session.scalars(select(TurnRow).order_by(TurnRow.id))).all()


@asynccontextmanager
async def chat_harness(
    database: Database,
    *providers: ProviderSettings,
    clock: ManualClock | None = None,
    history_tokens: int = 8000,
    demo_ids: frozenset[str] = frozenset(),
    notes: Any = None,
    names_threads: bool = False,
    naming_quiet_s: float = 0.02,
    asks_consent: bool = False,
    toolsets: Sequence[Any] = (),
    **services: Any,
) -> AsyncGenerator[ChatHarness]:
    """Open the chat service on a database, with its own provider state."""
    clock = clock or RealPauses()
    redis = open_redis(None)
    namer: ThreadNamer | None = None
    try:
        async with bench(redis, providers, clock) as replica:
            stores = ChatStores(
                TurnStore(database, clock),
                notes or Notes(database, clock),
                PreferenceStore(database, clock),
                ThreadMemories(database, clock),
                DocumentStore(database),
                PictureStore(database),
            )
            if names_threads:
                namer = ThreadNamer(
                    ThreadList(database), replica.factory, NamingTiming(quiet_s=naming_quiet_s, retry_s=0.1)
                )
                await namer.start()
            chat = ChatService(
                agent=create_agent(None, [each for each in toolsets if not isinstance(each, AbilityTools)]),
                tools=[each for each in toolsets if isinstance(each, AbilityTools)],
                models=replica.factory,
                stores=stores,
                texts=Texts(strict=True),
                clock=clock,
                history_tokens=history_tokens,
                demo_ids=demo_ids,
                asks_consent=asks_consent,
                namer=namer,
                **services,
            )
            try:
                yield ChatHarness(chat, stores, replica.factory, replica.fallback, clock, database)
            finally:
                if namer is not None:
                    await namer.close()
    finally:
        await redis.aclose()


def sent_messages(request: RecordedRequest) -> list[tuple[str, str]]:
    """Return the role and the text of each message of a request, without instructions."""
    return [(each["role"], _text(each)) for each in request.json["messages"] if each["role"] != "system"]


def instructions(request: RecordedRequest) -> str:
    """Return the instructions of a request."""
    return "\n".join(_text(each) for each in request.json["messages"] if each["role"] == "system")


def _text(sent: dict[str, Any]) -> str:
    content = sent.get("content") or ""
    if isinstance(content, list):
        content = "\n".join(item.get("text", f"[{item['type']}]") for item in content)
    calls = [f"{call['function']['name']}({call['function']['arguments']})" for call in sent.get("tool_calls") or ()]
    return "\n".join(filter(None, [content, *calls]))


def _incoming(incoming: Incoming | str) -> Incoming:
    return message(incoming) if isinstance(incoming, str) else incoming


@contextmanager
def locked(database: Database) -> Generator[sqlite3.Connection]:
    """Hold the lock of the file, as another process would."""
    with closing(sqlite3.connect(database.name, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        yield other


@asynccontextmanager
async def opened(file: Database, path: str = "{}", busy_timeout_s: float = 0.2) -> AsyncGenerator[Database]:
    """Open the same file with other parameters."""
    database = Database(f"sqlite:///{path.format(file.name)}", busy_timeout_s=busy_timeout_s)
    try:
        yield database
    finally:
        await database.close()


class SlowNotes:
    """Notes whose reading never ends."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()

    async def recall(self, *_: object) -> list[str]:
        self.asked.set()
        await asyncio.Event().wait()
        return []


class BrokenNotes:
    """Notes with a bug."""

    async def recall(self, *_: object) -> list[str]:
        raise ZeroDivisionError


def can_retry(reply: Reply) -> bool:
    """Return whether the answer has ended and its turn is saved, as Retry needs."""
    return reply.turn_id is not None and reply.phase is not ReplyPhase.RUNNING


def unanswered_calls(server: LLMServer) -> set[str]:
    """Return the tool calls of the last request that have no result in it."""
    sent = server.requests[-1].json["messages"]
    calls = {call["id"] for each in sent for call in each.get("tool_calls") or ()}
    return calls ^ {each["tool_call_id"] for each in sent if each["role"] == "tool"}


def blamed_providers(harness: ChatHarness) -> list[str]:
    """Return the providers with a cooldown or a failure."""
    states = harness.fallback.get_provider_status().providers
    return [each.provider for each in states if each.state is ProviderState.COOLING or each.failures]
