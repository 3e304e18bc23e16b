"""What a job has said is not said again."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from itertools import count

from structlog.testing import capture_logs

from core.db.database import Database
from services.inbox.sent_messages import SentMessages
from tests.support.clock import ManualClock


class Chats:
    """Where messages are sent."""

    def __init__(self) -> None:
        self.heard: list[tuple[int, str]] = []
        self._numbers = count(100)

    def sending(self, chat_id: int, text: str, *, refused: bool = False) -> Callable[[], Awaitable[int | None]]:
        async def send() -> int | None:
            if refused:
                return None
            self.heard.append((chat_id, text))
            return next(self._numbers)

        return send


async def test_a_job_that_is_done_again_says_what_is_lacking(
    database: Database, replica: Database, clock: ManualClock
) -> None:
    """Another replica goes on where the first one died; what was said has the number that it had."""
    chats = Chats()
    first, second = SentMessages(database, clock), SentMessages(replica, clock)
    with first.by("job"):
        assert await first.once(7, chats.sending(7, "one")) == 100
        assert await first.once(-100, chats.sending(-100, "to the group")) == 101
    with second.by("job"):
        assert await second.once(7, chats.sending(7, "one")) == 100
        assert await second.once(7, chats.sending(7, "two")) == 102
        assert await second.once(-100, chats.sending(-100, "to the group")) == 101
    assert chats.heard == [(7, "one"), (-100, "to the group"), (7, "two")]


async def test_another_job_and_no_job_at_all_say_what_they_say(database: Database, clock: ManualClock) -> None:
    chats, said = Chats(), SentMessages(database, clock)
    for job in ("one", "two"):
        with said.by(job):
            await said.once(7, chats.sending(7, job))
    for _ in range(2):
        await said.once(7, chats.sending(7, "nobody"))
    assert [text for _, text in chats.heard] == ["one", "two", "nobody", "nobody"]


async def test_what_could_not_be_said_is_said_next_time(database: Database, clock: ManualClock) -> None:
    chats, said = Chats(), SentMessages(database, clock)
    with said.by("job"):
        assert await said.once(7, chats.sending(7, "one", refused=True)) is None
    with said.by("job"):
        assert await said.once(7, chats.sending(7, "one")) == 100


async def test_jobs_at_once_do_not_mix(database: Database, clock: ManualClock) -> None:
    chats, said = Chats(), SentMessages(database, clock)

    async def job(name: str) -> None:
        with said.by(name):
            for part in range(3):
                await said.once(7, chats.sending(7, f"{name}{part}"))

    for _ in range(2):
        await asyncio.gather(job("a"), job("b"))
    assert sorted(text for _, text in chats.heard) == ["a0", "a1", "a2", "b0", "b1", "b2"]


async def test_a_database_that_fails_keeps_nobody_from_being_told(database: Database, clock: ManualClock) -> None:
    """Said twice is better than not at all."""
    chats, said = Chats(), SentMessages(database, clock)
    async with database.session() as session:
        await session.connection()
        await (await session.connection()).exec_driver_sql("DROP TABLE said")
    with capture_logs() as logs, said.by("job"):
        assert await said.once(7, chats.sending(7, "one")) == 100
    assert [entry["event"] for entry in logs] == ["inbox.said_not_read", "inbox.said_not_noted"]


async def test_what_is_old_is_forgotten(database: Database, clock: ManualClock) -> None:
    chats, said = Chats(), SentMessages(database, clock)
    for job in ("old", "new"):
        with said.by(job):
            await said.once(7, chats.sending(7, job))
        clock.shift(3600)
    await said.forget(clock.now() - timedelta(minutes=90))
    for job in ("old", "new"):
        with said.by(job):
            await said.once(7, chats.sending(7, job))
    assert [text for _, text in chats.heard] == ["old", "new", "old"]
