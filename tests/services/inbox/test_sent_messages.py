"""SentMessages: a retried job sends no message twice."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from itertools import count

import pytest
from structlog.testing import capture_logs

from core.db.database import Database
from services.inbox.sent_messages import SentMessages
from tests.support.clock import ManualClock

pytestmark = pytest.mark.integration


class Chats:
    """Records sent messages."""

    def __init__(self) -> None:
        self.sent: list[tuple[int, str]] = []
        self._numbers = count(100)

    def sending(self, chat_id: int, text: str, *, refused: bool = False) -> Callable[[], Awaitable[int | None]]:
        async def send() -> int | None:
            if refused:
                return None
            self.sent.append((chat_id, text))
            return next(self._numbers)

        return send


async def test_retried_job_sends_only_the_missing_messages(
    database: Database, replica: Database, clock: ManualClock
) -> None:
    """Another replica continues after a crash; recorded messages keep their ids."""
    chats = Chats()
    first, second = SentMessages(database, clock), SentMessages(replica, clock)
    with first.sent_by("job"):
        assert await first.send_once(7, chats.sending(7, "one")) == 100
        assert await first.send_once(-100, chats.sending(-100, "to the group")) == 101
    with second.sent_by("job"):
        assert await second.send_once(7, chats.sending(7, "one")) == 100
        assert await second.send_once(7, chats.sending(7, "two")) == 102
        assert await second.send_once(-100, chats.sending(-100, "to the group")) == 101
    assert chats.sent == [(7, "one"), (-100, "to the group"), (7, "two")]


async def test_other_jobs_and_sends_without_a_job_are_unaffected(database: Database, clock: ManualClock) -> None:
    chats, sent = Chats(), SentMessages(database, clock)
    for job in ("one", "two"):
        with sent.sent_by(job):
            await sent.send_once(7, chats.sending(7, job))
    for _ in range(2):
        await sent.send_once(7, chats.sending(7, "no job"))
    assert [text for _, text in chats.sent] == ["one", "two", "no job", "no job"]


async def test_failed_send_is_repeated_by_the_retry(database: Database, clock: ManualClock) -> None:
    chats, sent = Chats(), SentMessages(database, clock)
    with sent.sent_by("job"):
        assert await sent.send_once(7, chats.sending(7, "one", refused=True)) is None
    with sent.sent_by("job"):
        assert await sent.send_once(7, chats.sending(7, "one")) == 100


async def test_concurrent_jobs_do_not_mix(database: Database, clock: ManualClock) -> None:
    chats, sent = Chats(), SentMessages(database, clock)

    async def job(name: str) -> None:
        with sent.sent_by(name):
            for part in range(3):
                await sent.send_once(7, chats.sending(7, f"{name}{part}"))

    for _ in range(2):
        await asyncio.gather(job("a"), job("b"))
    assert sorted(text for _, text in chats.sent) == ["a0", "a1", "a2", "b0", "b1", "b2"]


async def test_messages_are_sent_when_the_database_fails(database: Database, clock: ManualClock) -> None:
    """A duplicate is better than no message."""
    chats, sent = Chats(), SentMessages(database, clock)
    async with database.session() as session:
        await session.connection()
        await (await session.connection()).exec_driver_sql("DROP TABLE said")
    with capture_logs() as logs, sent.sent_by("job"):
        assert await sent.send_once(7, chats.sending(7, "one")) == 100
    assert [entry["event"] for entry in logs] == ["inbox.sent_messages_unavailable", "inbox.sent_message_not_recorded"]


async def test_purge_deletes_old_records(database: Database, clock: ManualClock) -> None:
    chats, sent = Chats(), SentMessages(database, clock)
    for job in ("old", "new"):
        with sent.sent_by(job):
            await sent.send_once(7, chats.sending(7, job))
        clock.shift(3600)
    await sent.purge(clock.now() - timedelta(minutes=90))
    for job in ("old", "new"):
        with sent.sent_by(job):
            await sent.send_once(7, chats.sending(7, job))
    assert [text for _, text in chats.sent] == ["old", "new", "old"]
