"""Calls of a turn into the threads and connections of the database, and into other threads."""

import asyncio
import re
import traceback
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from sqlalchemy import Connection

from core.db.database import Database
from core.db.lane import SqliteLane
from core.db.postgres_lane import PostgresLane
from tests.support.bot_harness import FIRST, BotHarness

MOST_CALLS = 6
BY_THE_CLOCK = re.compile(
    r"services/(admin/(configuration|bans|broadcasts)|budgets/budgets)\.py"
    r'|services/preferences\.py", line \d+, in load\n'
)
"""Settings, bans, broadcasts, budgets and languages, which are looked at every few seconds, turns or not."""


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Each transaction of the lane, which is one call at most, and each session, which makes several."""
    seen: list[str] = []
    session = Database._transaction

    def noting(lane: type[SqliteLane | PostgresLane]) -> Callable[..., Awaitable[object]]:
        run = lane.run

        async def note_run(self: Any, work: Callable[[Connection], object], **options: bool) -> object:
            seen.append("".join(traceback.format_stack(limit=8)))
            return await run(self, work, **options)

        return note_run

    def note_session(self: Database, *arguments: object) -> object:
        seen.extend(["".join(traceback.format_stack(limit=8))] * (MOST_CALLS + 1))
        return session(self, *arguments)

    monkeypatch.setattr(SqliteLane, "run", noting(SqliteLane))
    monkeypatch.setattr(PostgresLane, "run", noting(PostgresLane))
    monkeypatch.setattr(Database, "_transaction", note_session)
    return seen


@pytest.fixture
def hops(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Calls of functions in a thread of the pool."""
    seen: list[str] = []
    to_thread = asyncio.to_thread

    async def note(function: Callable[..., object], *arguments: object, **named: object) -> object:
        seen.append("".join(traceback.format_stack(limit=4)))
        return await to_thread(function, *arguments, **named)

    monkeypatch.setattr(asyncio, "to_thread", note)
    return seen


async def test_turn_makes_few_calls_into_the_database(
    database_url: str, empty_stage: BotHarness, calls: list[str], hops: list[str]
) -> None:
    """A first message, whose conversation is named and whose usage is written, and one with a history."""
    await empty_stage.start(DATABASE_URL=database_url)
    await empty_stage.asks("Warm up.", 8)
    await empty_stage.named(1)
    await empty_stage.quiet(1.5)  # usage is written within a second
    for text in ("The first message.", "Another one."):
        calls.clear()
        hops.clear()
        assert (await empty_stage.asks(text)).text == FIRST
        await empty_stage.quiet(2)
        made = [each for each in calls if not BY_THE_CLOCK.search(each)]
        await empty_stage.named(2)
        assert 2 <= len(made) <= MOST_CALLS, "\n\n".join(made)
        assert not [each for each in hops if "aiogram" in each], "a filter or a handler is called in a thread"
