"""ThreadList: pages, switch, rename, delete; on both databases."""

import asyncio

import pytest
from pydantic_ai.messages import ModelRequest
from sqlalchemy import select

from core.db.database import Database
from core.db.tables import TurnRow
from core.messages import ConversationKey, Surface
from services.chat.store.thread_list import MAX_NAME, ThreadList
from services.chat.store.turns import TurnStore
from tests.support.clock import ManualClock
from tests.support.turn_store import recalled

pytestmark = pytest.mark.integration

KEY = ConversationKey(Surface.TELEGRAM, 7)
OTHER = ConversationKey(Surface.TELEGRAM, 7, 3)


async def create_threads(turns: TurnStore, count: int, key: ConversationKey = KEY) -> list[int]:
    """Create threads with one turn each; returns their ids, oldest first."""
    ids: list[int] = []
    for number in range(count):
        thread = await turns.start_new(key)
        await turns.open_turn(thread, 7, ModelRequest.user_text_prompt(f"Number {number}"))
        ids.append(thread.id)
    return ids


async def test_page_returns_used_threads_newest_first(database: Database, clock: ManualClock) -> None:
    """Without empty ones, except the current, and without those of other topics."""
    turns, listing = TurnStore(database, clock), ThreadList(database)
    assert await listing.page(KEY, 10) == []
    ids = await create_threads(turns, 3)
    await create_threads(turns, 1, OTHER)
    await turns.start_new(KEY)
    empty = (await turns.start_new(KEY)).id
    first, second = await listing.page(KEY, 2), await listing.page(KEY, 2, 2)
    assert [each.thread.id for each in first + second] == [empty, ids[2], ids[1], ids[0]]
    assert [each.is_current for each in first + second] == [True, False, False, False]


async def test_switch_makes_a_thread_of_the_same_topic_current(database: Database, clock: ManualClock) -> None:
    turns, listing = TurnStore(database, clock), ThreadList(database)
    ids = await create_threads(turns, 2)
    (foreign,) = await create_threads(turns, 1, OTHER)
    thread = await listing.switch(KEY, ids[0])
    assert thread is not None
    assert (await turns.current(KEY)).id == ids[0]
    assert await listing.switch(KEY, foreign) is None
    assert await listing.switch(KEY, 4711) is None
    assert (await turns.current(KEY)).id == ids[0]
    assert (await turns.current(OTHER)).id == foreign


async def test_concurrent_switches_leave_one_current_thread(
    database: Database, replica: Database, clock: ManualClock
) -> None:
    turns = TurnStore(database, clock)
    ids = await create_threads(turns, 3)
    listings = [ThreadList(database), ThreadList(replica)]
    await asyncio.gather(*(listing.switch(KEY, thread) for listing in listings for thread in ids))
    current = [each.thread.id for each in await listings[0].page(KEY, 10) if each.is_current]
    assert current == [(await turns.current(KEY)).id]


async def test_rename_stores_one_bounded_line(database: Database, clock: ManualClock) -> None:
    turns, listing = TurnStore(database, clock), ThreadList(database)
    (thread,) = await create_threads(turns, 1)
    assert await listing.rename(KEY, thread, " Holiday\n plans ") == "Holiday plans"
    assert (await turns.current(KEY)).name == "Holiday plans"
    assert await listing.rename(KEY, thread, "x" * 500) == "x" * MAX_NAME
    assert await listing.rename(KEY, thread, " \n ") is None
    assert await listing.rename(OTHER, thread, "Mine") is None
    assert (await turns.current(KEY)).name == "x" * MAX_NAME


async def test_delete_removes_a_thread_with_its_turns(database: Database, clock: ManualClock) -> None:
    """After the current thread is deleted, the next message starts a new one."""
    turns, listing = TurnStore(database, clock), ThreadList(database)
    ids = await create_threads(turns, 2)
    assert not await listing.delete(OTHER, ids[0])
    assert await listing.delete(KEY, ids[0])
    assert not await listing.delete(KEY, ids[0])
    assert await listing.find(KEY, ids[0]) is None
    assert await listing.delete(KEY, ids[1])
    assert await listing.page(KEY, 10) == []
    assert await recalled(database, await turns.current(KEY), 1000) == []
    assert await turns.last_turn(KEY) is None
    async with database.reading() as session:
        assert (await session.scalars(select(TurnRow))).all() == []
