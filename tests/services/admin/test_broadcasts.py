"""Broadcasts: counted, confirmed, paced, resumed by another process, stopped."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import pytest
from sqlalchemy import text

from core.background import cancel_and_wait
from core.db.database import Database
from core.messages import ConversationKey, Surface
from services.admin.audit import Audit, AuditDetail
from services.admin.broadcast_runner import BroadcastRunner, BroadcastTiming
from services.admin.broadcasts import MAX_KEPT, Broadcast, BroadcastResult, Broadcasts, BroadcastState
from services.chat.store.turns import TurnStore
from tests.support.clock import ManualClock, until

pytestmark = pytest.mark.integration

ADMIN = 1
BANNED = 5
TIMING = BroadcastTiming(pace_s=1.0)


class Recipients:
    """Records the chats that get a message."""

    def __init__(self, *, blocked: Iterable[int] = ()) -> None:
        self.sent: list[int] = []
        self.shown: list[Broadcast] = []
        self.gate: asyncio.Event | None = None
        self._blocked = frozenset(blocked)

    async def send(self, _broadcast: Broadcast, chat_id: int) -> BroadcastResult:
        self.sent.append(chat_id)
        if self.gate is not None:
            await self.gate.wait()
        return BroadcastResult.BLOCKED if chat_id in self._blocked else BroadcastResult.SENT

    async def show(self, broadcast: Broadcast) -> None:
        self.shown.append(broadcast)


@pytest.fixture
async def broadcasts(database: Database, clock: ManualClock) -> Broadcasts:
    """Four private chats, one of which is banned, a group and the console."""
    turns = TurnStore(database, clock)
    for chat_id in (8, 3, BANNED, 13, -100):
        await turns.current(ConversationKey(Surface.TELEGRAM, chat_id))
    await turns.start_new(ConversationKey(Surface.TELEGRAM, 3, 7))
    await turns.current(ConversationKey(Surface.CONSOLE, 0))
    return Broadcasts(database, clock, Audit(database, clock), lambda chat_id: chat_id != BANNED)


@asynccontextmanager
async def running(
    broadcasts: Broadcasts, recipients: Recipients, clock: ManualClock, owner: str = "local"
) -> AsyncIterator[None]:
    runner = BroadcastRunner(broadcasts, recipients.send, recipients.show, clock, owner, TIMING)
    task = asyncio.create_task(runner.run())
    try:
        yield
    finally:
        await cancel_and_wait(task)


async def reach(clock: ManualClock, broadcasts: Broadcasts, number: int, state: BroadcastState) -> Broadcast:
    """Lets the runner work until a broadcast has this state, a second at a time."""
    async with asyncio.timeout(10):
        while True:
            found = await broadcasts.get(number)
            assert found is not None
            if found.state is state:
                return found
            await clock.advance(1.0)
            await asyncio.sleep(0.005)


async def test_a_draft_is_counted_and_sent_once_confirmed(
    database: Database, broadcasts: Broadcasts, clock: ManualClock
) -> None:
    recipients = Recipients(blocked=[8])
    draft = await broadcasts.draft(ADMIN, "Hello", formatting="[]", language="ru")
    assert (draft.total, draft.state) == (3, BroadcastState.DRAFT)
    async with running(broadcasts, recipients, clock):
        await clock.advance(20)
        assert not recipients.sent, "nothing is sent before the confirmation"
        started = await broadcasts.start(draft.id, ADMIN, (1, 2))
        assert started is not None
        assert started.card == (1, 2)
        assert await broadcasts.start(draft.id, ADMIN) is None, "a second press changes nothing"
        done = await reach(clock, broadcasts, draft.id, BroadcastState.DONE)
        await until(lambda: recipients.shown and recipients.shown[-1].state is BroadcastState.DONE)
    assert recipients.sent == [3, 8, 13]
    assert (done.sent, done.blocked, done.failed, done.text, done.formatting) == (2, 1, 0, "Hello", "[]")
    acts = [(entry.action, entry.detail) for entry in await Audit(database, clock).recent()]
    assert acts == [("broadcast.start", AuditDetail("served", {"served": 0, "total": 3}))]


async def test_another_process_goes_on_where_one_died(
    database: Database, broadcasts: Broadcasts, replica: Database, clock: ManualClock
) -> None:
    """The first one is not shut down: it hangs after its message was sent and recorded."""
    draft = await broadcasts.draft(ADMIN, "Hello", formatting=None, language=None)
    await broadcasts.start(draft.id, ADMIN)
    assert await broadcasts.claim("dead", TIMING.lease_s) is not None
    assert await broadcasts.record(draft.id, "dead", 3, BroadcastResult.SENT)
    other = Broadcasts(replica, clock, Audit(replica, clock), lambda chat_id: chat_id != BANNED)
    recipients = Recipients()
    async with running(other, recipients, clock, "alive"):
        await clock.advance(TIMING.lease_s - 1)
        assert not recipients.sent, "the lease of the first one holds"
        done = await reach(clock, other, draft.id, BroadcastState.DONE)
    assert recipients.sent == [8, 13]
    assert done.served == 3
    assert not await broadcasts.record(draft.id, "dead", 8, BroadcastResult.SENT), "it owns the broadcast no more"


async def test_a_shutdown_records_the_message_on_its_way(file: Database, clock: ManualClock) -> None:
    turns = TurnStore(file, clock)
    for chat_id in (3, 8):
        await turns.current(ConversationKey(Surface.TELEGRAM, chat_id))
    broadcasts = Broadcasts(file, clock, Audit(file, clock), lambda _: True)
    recipients = Recipients()
    draft = await broadcasts.draft(ADMIN, "Hello", formatting=None, language=None)
    await broadcasts.start(draft.id, ADMIN)
    recipients.gate = gate = asyncio.Event()
    runner = BroadcastRunner(broadcasts, recipients.send, recipients.show, clock, "local", TIMING)
    task = asyncio.create_task(runner.run())
    await until(lambda: recipients.sent == [3])
    task.cancel()
    await asyncio.sleep(0)
    gate.set()
    await asyncio.wait([task])
    async with running(broadcasts, recipients, clock):
        await reach(clock, broadcasts, draft.id, BroadcastState.DONE)
    assert recipients.sent == [3, 8]


async def test_a_stopped_broadcast_can_go_on(file: Database, clock: ManualClock) -> None:
    turns = TurnStore(file, clock)
    for chat_id in (3, 8):
        await turns.current(ConversationKey(Surface.TELEGRAM, chat_id))
    broadcasts = Broadcasts(file, clock, Audit(file, clock), lambda _: True)
    recipients = Recipients()
    recipients.gate = asyncio.Event()
    draft = await broadcasts.draft(ADMIN, "Hello", formatting=None, language=None)
    async with running(broadcasts, recipients, clock):
        await broadcasts.start(draft.id, ADMIN)
        await until(lambda: recipients.sent == [3])
        assert await broadcasts.stop(draft.id, ADMIN) is not None
        assert await broadcasts.stop(draft.id, ADMIN) is None
        recipients.gate.set()
        await until(lambda: recipients.shown)
        assert recipients.shown[-1].state is BroadcastState.STOPPED
        assert recipients.shown[-1].served == 1, "the message that was on its way counts"
        assert recipients.sent == [3]
        await broadcasts.start(draft.id, ADMIN)
        await reach(clock, broadcasts, draft.id, BroadcastState.DONE)
    assert recipients.sent == [3, 8]


async def test_a_draft_without_a_recipient_cannot_be_started(file: Database, clock: ManualClock) -> None:
    broadcasts = Broadcasts(file, clock, Audit(file, clock), lambda _: False)
    draft = await broadcasts.draft(ADMIN, "Hello", formatting=None, language=None)
    assert draft.total == 0
    assert await broadcasts.start(draft.id, ADMIN) is None
    (kept,) = await broadcasts.newest(1)
    assert kept.state is BroadcastState.DRAFT


async def test_drafts_can_be_discarded_and_few_broadcasts_are_kept(file: Database, clock: ManualClock) -> None:
    broadcasts = Broadcasts(file, clock, Audit(file, clock), lambda _: True)
    first = await broadcasts.draft(ADMIN, "0", formatting=None, language=None)
    assert await broadcasts.discard(first.id)
    assert not await broadcasts.discard(first.id)
    assert await broadcasts.start(first.id, ADMIN) is None
    for number in range(MAX_KEPT + 3):
        await broadcasts.draft(ADMIN, str(number), formatting=None, language=None)
    async with file.reading() as session:
        assert (await session.execute(text("SELECT count(*) FROM broadcasts"))).scalar() == MAX_KEPT
    assert [each.text for each in await broadcasts.newest(1)] == [str(MAX_KEPT + 2)]
