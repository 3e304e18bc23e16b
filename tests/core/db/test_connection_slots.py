"""ConnectionSlots: order, standstill, cancellation; and the database behind it under a burst."""

import asyncio

import pytest
from sqlalchemy import text

from core.db.connection_slots import ConnectionSlots
from core.db.database import Database
from tests.support.clock import settle


async def test_slots_are_given_in_order() -> None:
    slots, order = ConnectionSlots(2, 5), list[int]()

    async def use(number: int) -> None:
        async with slots.slot():
            order.append(number)
            await asyncio.sleep(0)

    await asyncio.gather(*map(use, range(20)))
    assert order == list(range(20))


async def test_queue_that_moves_never_times_out() -> None:
    """It lasts ten times as long as a standstill may."""
    slots = ConnectionSlots(1, 0.2)

    async def use() -> None:
        async with slots.slot():
            await asyncio.sleep(0.05)

    await asyncio.gather(*(use() for _ in range(40)))


async def test_standstill_times_out() -> None:
    slots = ConnectionSlots(1, 0.05)
    async with slots.slot():
        with pytest.raises(TimeoutError):
            await slots.slot().__aenter__()
    async with slots.slot():
        pass


async def test_cancelled_waiter_loses_no_slot() -> None:
    """Also when it is cancelled at the moment at which it gets the slot."""
    slots = ConnectionSlots(1, 5)
    first = slots.slot()
    await first.__aenter__()
    waiters = [asyncio.create_task(slots.slot().__aenter__()) for _ in range(2)]
    await settle()
    waiters[1].cancel()
    await settle()
    await first.__aexit__(None, None, None)
    waiters[0].cancel()
    await asyncio.wait(waiters)
    async with asyncio.timeout(1), slots.slot():
        pass


async def test_database_answers_every_request_of_a_burst(database: Database) -> None:
    """SQLite and PostgreSQL, with far more requests than connections."""

    async def read() -> int:
        async with database.reading() as session:
            return (await session.execute(text("SELECT 1"))).scalar_one()

    assert await asyncio.gather(*(read() for _ in range(500))) == [1] * 500
