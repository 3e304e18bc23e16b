"""The threads of a chat, on both engines."""

import asyncio

from pydantic_ai.messages import ModelRequest
from sqlalchemy import select

from core.db.database import Database
from core.db.tables import TurnRow
from core.messages import ConversationKey, Surface
from services.chat.store.thread_list import MAX_NAME, ThreadList
from services.chat.store.turns import TurnStore
from tests.support.clock import ManualClock

KEY = ConversationKey(Surface.TELEGRAM, 7)
OTHER = ConversationKey(Surface.TELEGRAM, 7, 3)


async def talked(threads: TurnStore, count: int, key: ConversationKey = KEY) -> list[int]:
    """So many threads in which something was said; their ids, oldest first."""
    ids: list[int] = []
    for number in range(count):
        thread = await threads.start_new(key)
        await threads.open_turn(thread, 7, ModelRequest.user_text_prompt(f"Number {number}"))
        ids.append(thread.id)
    return ids


async def test_pages_hold_what_was_talked_about(database: Database, clock: ManualClock) -> None:
    """Newest first, without empty ones that were put aside, and without those of other topics."""
    threads, shelf = TurnStore(database, clock), ThreadList(database)
    assert await shelf.page(KEY, 10) == []
    ids = await talked(threads, 3)
    await talked(threads, 1, OTHER)
    await threads.start_new(KEY)
    empty = (await threads.start_new(KEY)).id
    first, second = await shelf.page(KEY, 2), await shelf.page(KEY, 2, 2)
    assert [each.thread.id for each in first + second] == [empty, ids[2], ids[1], ids[0]]
    assert [each.is_current for each in first + second] == [True, False, False, False]


async def test_a_thread_is_taken_up_again(database: Database, clock: ManualClock) -> None:
    """The next message goes to it; one of another topic is nobody's business."""
    threads, shelf = TurnStore(database, clock), ThreadList(database)
    ids = await talked(threads, 2)
    (foreign,) = await talked(threads, 1, OTHER)
    thread = await shelf.switch(KEY, ids[0])
    assert thread is not None
    assert (await threads.current(KEY)).id == ids[0]
    assert await shelf.switch(KEY, foreign) is None
    assert await shelf.switch(KEY, 4711) is None
    assert (await threads.current(KEY)).id == ids[0]
    assert (await threads.current(OTHER)).id == foreign


async def test_of_many_switches_at_once_one_holds(database: Database, replica: Database, clock: ManualClock) -> None:
    """There is one current thread at any time."""
    threads = TurnStore(database, clock)
    ids = await talked(threads, 3)
    shelves = [ThreadList(database), ThreadList(replica)]
    await asyncio.gather(*(shelf.switch(KEY, thread) for shelf in shelves for thread in ids))
    current = [each.thread.id for each in await shelves[0].page(KEY, 10) if each.is_current]
    assert current == [(await threads.current(KEY)).id]


async def test_a_name_is_one_line(database: Database, clock: ManualClock) -> None:
    """Not too long, not empty."""
    threads, shelf = TurnStore(database, clock), ThreadList(database)
    (thread,) = await talked(threads, 1)
    assert await shelf.rename(KEY, thread, " Holiday\n plans ") == "Holiday plans"
    assert (await threads.current(KEY)).name == "Holiday plans"
    assert await shelf.rename(KEY, thread, "x" * 500) == "x" * MAX_NAME
    assert await shelf.rename(KEY, thread, " \n ") is None
    assert await shelf.rename(OTHER, thread, "Mine") is None
    assert (await threads.current(KEY)).name == "x" * MAX_NAME


async def test_what_is_thrown_away_is_gone(database: Database, clock: ManualClock) -> None:
    """With what was said in it; after the current one a new one begins."""
    threads, shelf = TurnStore(database, clock), ThreadList(database)
    ids = await talked(threads, 2)
    assert not await shelf.delete(OTHER, ids[0])
    assert await shelf.delete(KEY, ids[0])
    assert not await shelf.delete(KEY, ids[0])
    assert await shelf.find(KEY, ids[0]) is None
    assert await shelf.delete(KEY, ids[1])
    assert await shelf.page(KEY, 10) == []
    assert await threads.history(await threads.current(KEY), 1000) == []
    assert await threads.last_turn(KEY) is None
    async with database.reading() as session:
        assert (await session.scalars(select(TurnRow))).all() == []
