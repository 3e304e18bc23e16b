"""The inbox: what fails is tried again, what never works is given up, and what kills the process takes nobody along."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from structlog.testing import capture_logs

from core.db.database import Database
from core.errors import StorageError
from services.inbox import inbox as module
from services.inbox.album_parts import AlbumPart, AlbumParts
from services.inbox.crash_counts import CrashCounter
from services.inbox.dbos_queue import JobQueue
from services.inbox.dead_letters import DeadLetters
from services.inbox.inbox import ALONE, FRESH_KEPT, PAUSES_S, STRAYS_S, TOGETHER, Inbox
from services.inbox.job import Job
from services.inbox.sent_messages import SentMessages
from tests.services.inbox.conftest import lose_ends, lose_the_answer_to_a_claim
from tests.support.clock import ManualClock
from tests.support.processes.queue_process import QUEUE

DIED = "the process died each time that this was begun"


def job(number: int, lane: str = "lane") -> Job:
    return Job(f"job-{number:06d}", lane, number, f'{{"number": {number}}}')


class Worker:
    """Does jobs as a test wants it."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.tried: list[str] = []
        self.apologies: list[tuple[str, str]] = []
        self.faults: dict[str, list[Exception]] = {}
        """What is raised, a fault for each try."""
        self.held: dict[str, asyncio.Event] = {}
        self.apology: Callable[[], Awaitable[None]] | None = None
        self.now: set[str] = set()
        self.side_by_side: set[frozenset[str]] = set()

    async def do(self, job: Job) -> None:
        self.tried.append(job.id)
        self.now.add(job.id)
        self.side_by_side.add(frozenset(self.now))
        try:
            if job.id in self.held:
                await self.held[job.id].wait()
            if faults := self.faults.get(job.id):
                raise faults.pop(0)
        finally:
            self.now.discard(job.id)
        self.done.append(job.id)

    async def apologise(self, job: Job, error: Exception | None) -> None:
        self.apologies.append((job.id, type(error).__name__))
        if self.apology is not None:
            await self.apology()


class Post:
    """An inbox at work, and what a test looks at."""

    def __init__(self, inbox: Inbox, worker: Worker, clock: ManualClock) -> None:
        self.inbox, self.worker, self.clock = inbox, worker, clock
        self.reasons: list[str] = []

    async def until(self, predicate: Callable[[], object], *, passing_s: float = 0.0) -> None:
        """Wait until something is true; so much time passes between two looks."""
        async with asyncio.timeout(15):
            while not predicate():
                await asyncio.sleep(0.002)
                if passing_s:
                    await self.clock.advance(passing_s)

    async def work(self) -> None:
        await self.inbox.work(self.worker, self.reasons.append)

    async def letters(self) -> list[tuple[str, str]]:
        return [(each.job.id, each.reason) for each in await self.inbox.dead_letters.newest()]


@pytest.fixture
async def post(file: Database, tmp_path: Path, clock: ManualClock) -> AsyncIterator[Post]:
    """An inbox in its file, that has not begun to work."""
    url = sa.URL.create("sqlite", database=str(tmp_path / "inbox.db"))
    async with opened(file, url, clock) as post:
        yield post


@asynccontextmanager
async def opened(database: Database, url: sa.URL, clock: ManualClock) -> AsyncIterator[Post]:
    inbox = Inbox(
        lambda run: JobQueue(url, QUEUE, "local", run),
        CrashCounter(database, clock),
        DeadLetters(database, clock),
        SentMessages(database, clock),
        AlbumParts(database, clock),
        clock,
    )
    await inbox.start()
    try:
        yield Post(inbox, Worker(), clock)
    finally:
        await inbox.queue.drain(0)
        await inbox.queue.close()


async def stored(database: Database, table: str) -> int:
    async with database.engine.connect() as connection:
        return (await connection.exec_driver_sql(f"SELECT count(*) FROM {table}")).scalar() or 0  # noqa: S608


class TestStrays:
    """What was claimed and is not being done."""

    async def test_a_job_whose_claim_got_lost_is_done(self, post: Post) -> None:
        """Without a restart, and those behind it."""
        lost = lose_the_answer_to_a_claim(post.inbox.queue)
        await post.inbox.put([job(1), job(2)])
        await post.work()
        await lost.wait()
        await self._both_done(post)
        assert post.worker.done == [job(1).id, job(2).id]

    async def test_what_was_done_and_only_not_noted_is_not_done_again(self, post: Post) -> None:
        lose_ends(post.inbox.queue)
        await post.inbox.put([job(1), job(2)])
        await post.work()
        await self._both_done(post)
        assert post.worker.tried == [job(1).id, job(2).id]

    async def _both_done(self, post: Post) -> None:
        """Wait for two jobs while strays are looked for."""
        looking = asyncio.create_task(post.inbox.look_for_strays())
        try:
            await post.until(lambda: len(post.worker.done) == 2, passing_s=STRAYS_S)
        finally:
            looking.cancel()

    async def test_a_database_that_is_gone_does_not_end_the_looking(
        self, post: Post, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        answers = iter([StorageError("the database failed: gone"), 0])

        async def look() -> int:
            answer = next(answers)
            if isinstance(answer, StorageError):
                raise answer
            looking.cancel()
            return answer

        monkeypatch.setattr(post.inbox.queue, "put_back_strays", look)
        looking = asyncio.create_task(post.inbox.look_for_strays())
        with capture_logs() as logs:
            await post.until(looking.done, passing_s=STRAYS_S)
        assert [entry["event"] for entry in logs] == ["inbox.strays_not_looked_for"]


class TestFailures:
    """What a job raises."""

    async def test_what_fails_is_tried_again_with_growing_pauses(self, post: Post) -> None:
        """Whoever waits behind it waits, others do not; when it works nobody hears of it."""
        post.worker.faults[job(1).id] = [ValueError("x")] * len(PAUSES_S)
        await post.work()
        await post.inbox.put([job(1), job(2), job(3, "other")])
        await post.until(lambda: post.worker.done)
        for tries, pause_s in enumerate(PAUSES_S, 1):
            await post.until(lambda: post.clock._sleepers)
            assert post.worker.tried.count(job(1).id) == tries
            await post.clock.advance(pause_s - 0.01)
            assert post.worker.tried.count(job(1).id) == tries
            await post.clock.advance(0.01)
        await post.until(lambda: len(post.worker.done) == 3)
        assert post.worker.done == [job(n).id for n in (3, 1, 2)]
        assert (post.worker.apologies, post.reasons, await post.letters()) == ([], [], [])

    async def test_what_never_works_is_given_up(self, post: Post, file: Database) -> None:
        """It is kept with the reason, whom it concerns is told once, an admin too, and its lane goes on."""
        post.worker.faults[job(1).id] = [ValueError("what somebody wrote") for _ in range(20)]
        await post.work()
        await post.inbox.put([job(1), job(2)])
        await post.until(lambda: post.worker.done, passing_s=5)
        assert post.worker.done == [job(2).id]
        assert post.worker.tried.count(job(1).id) == len(PAUSES_S) + 1
        assert post.worker.apologies == [(job(1).id, "ValueError")]
        assert post.reasons == ["ValueError"]
        assert await post.letters() == [(job(1).id, "ValueError")]
        [letter] = await post.inbox.dead_letters.newest()
        assert letter.job == job(1)
        await post.inbox.put([job(1)])
        assert await stored(file, "dead_letters") == 1

    async def test_our_own_words_are_a_reason(self, post: Post) -> None:
        """Those of others may quote a message."""
        post.worker.faults[job(1).id] = [StorageError("the database failed: full") for _ in range(5)]
        await post.work()
        await post.inbox.put([job(1)])
        await post.until(lambda: post.reasons, passing_s=5)
        assert post.reasons == ["the database failed: full"]

    async def test_an_apology_that_fails_keeps_nothing_back(self, post: Post) -> None:
        async def fail() -> None:
            raise TypeError("out of tune")

        post.worker.apology = fail
        post.worker.faults[job(1).id] = [ValueError("x")] * 5
        await post.work()
        await post.inbox.put([job(1), job(2)])
        await post.until(lambda: post.worker.done, passing_s=5)
        assert await post.letters() == [(job(1).id, "ValueError")]

    async def test_an_apology_is_said_once(self, post: Post) -> None:
        """The process may die between that and the dead letter."""
        heard: list[str] = []

        async def send() -> int:
            heard.append("sorry")
            return 1

        async def apologise() -> None:
            await post.inbox.said.once(7, send)

        post.worker.apology = apologise
        await post.work()
        for _ in range(2):
            await post.inbox._give_up(job(1), None)
        assert heard == ["sorry"]
        assert await post.letters() == [(job(1).id, DIED)]

    async def test_what_cannot_be_kept_is_not_thrown_away(self, post: Post, file: Database) -> None:
        """It waits for the database; nothing else would keep it."""
        async with file.session() as session:
            await (await session.connection()).exec_driver_sql("ALTER TABLE dead_letters RENAME TO away")
        post.worker.faults[job(1).id] = [ValueError("x")] * 5
        await post.work()
        await post.inbox.put([job(1)])
        with capture_logs() as logs:
            await post.until(lambda: "inbox.dead_letter_not_kept" in str(logs), passing_s=5)
        async with file.session() as session:
            await (await session.connection()).exec_driver_sql("ALTER TABLE away RENAME TO dead_letters")
        await post.until(lambda: post.reasons, passing_s=5)
        assert await post.letters() == [(job(1).id, "ValueError")]
        assert len(post.worker.apologies) == 1


class TestReplay:
    """A dead letter is done once more."""

    async def test_it_is_done_as_a_job_of_its_own(self, post: Post) -> None:
        post.worker.faults[job(1).id] = [ValueError("x")] * 5
        await post.work()
        await post.inbox.put([job(1)])
        await post.until(lambda: post.reasons, passing_s=5)
        [letter] = await post.inbox.dead_letters.newest()
        await post.inbox.replay(letter)
        await post.until(lambda: post.worker.done)
        [done] = post.worker.done
        assert done != job(1).id
        assert letter.job.once_more(int(letter.failed_at.timestamp() * 1000)).origin == job(1).id == job(1).origin
        assert await post.letters() == []

    async def test_it_may_become_one_again_and_again(self, post: Post) -> None:
        """Pressed twice it is one; each time it has another number, and its id does not grow."""
        numbers: set[int] = set()
        await post.work()
        await post.inbox._give_up(job(1), ValueError("x"))
        for _ in range(3):
            [letter] = await post.inbox.dead_letters.newest()
            numbers.add(letter.id)
            again = letter.job.once_more(int(letter.failed_at.timestamp() * 1000))
            post.worker.faults[again.id] = [ValueError("x")] * 5
            told = len(post.reasons)
            await post.inbox.replay(letter)
            await post.inbox.replay(letter)
            await post.until(lambda told=told: len(post.reasons) > told, passing_s=5)
        assert len({id_ for id_, _ in post.worker.apologies}) == 4
        # A button under an old list must not be another letter's.
        assert len(numbers) == 3
        assert max(len(id_) for id_, _ in post.worker.apologies) <= len(job(1).id) + 14


class TestSuspects:
    """Jobs that were begun before, by a process that is no more."""

    async def lives(self, post: Post, *jobs: Job) -> None:
        """The process dies over these: they were begun, and did not come to their end."""
        for each in jobs:
            await post.inbox._attempts.begin_again(each.id)

    async def test_what_is_new_costs_no_count(self, post: Post, file: Database) -> None:
        post.worker.held[job(1).id] = asyncio.Event()
        await post.work()
        await post.inbox.put([job(1)])
        await post.until(lambda: post.worker.tried)
        assert await stored(file, "job_attempts") == 0
        assert not post.inbox._fresh
        post.worker.held[job(1).id].set()
        await post.until(lambda: post.worker.done)

    async def test_one_that_was_there_is_not_new_when_it_comes_again(self, post: Post, file: Database) -> None:
        """Telegram repeats what was not confirmed before the process died over it."""
        await post.inbox.put([job(1)])
        post.inbox._fresh.clear()
        post.worker.held[job(1).id] = asyncio.Event()
        await post.inbox.put([job(1)])
        await post.work()
        await post.until(lambda: post.worker.tried)
        assert await stored(file, "job_attempts") == 1
        post.worker.held[job(1).id].set()
        await post.until(lambda: post.worker.done)

    async def test_begun_again_they_are_done_side_by_side_at_first(self, post: Post, file: Database) -> None:
        """Nobody knows that any of them is to blame; when they are done nothing is remembered."""
        jobs = [job(number, f"lane {number}") for number in (1, 2, 3)]
        await post.inbox.put(jobs)
        post.inbox._fresh.clear()
        for _ in range(TOGETHER - 1):
            await self.lives(post, *jobs)
        gate = asyncio.Event()
        post.worker.held = {each.id: gate for each in jobs}
        await post.work()
        await post.until(lambda: len(post.worker.now) == 3)
        gate.set()
        await post.until(lambda: len(post.worker.done) == 3)
        await post.inbox.queue.drain(5)
        assert await stored(file, "job_attempts") == 0

    async def test_then_one_at_a_time_but_for_what_is_new(self, post: Post) -> None:
        jobs = [job(number, f"lane {number}") for number in (1, 2, 3)]
        await post.inbox.put(jobs)
        post.inbox._fresh.clear()
        for _ in range(TOGETHER):
            await self.lives(post, *jobs)
        fresh = job(9, "lane 9")
        post.worker.held = {fresh.id: asyncio.Event()}
        await post.work()
        await post.inbox.put([fresh])
        await post.until(lambda: len(post.worker.done) == 3)
        suspects = {each.id for each in jobs}
        assert all(len(each & suspects) <= 1 for each in post.worker.side_by_side)
        post.worker.held[fresh.id].set()
        await post.until(lambda: fresh.id in post.worker.done)

    async def test_the_one_that_kills_is_given_up_and_bystanders_are_not(
        self, file: Database, tmp_path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """One life after the other: whenever the killer is begun the process dies with all that it was doing."""

        async def too_late(*_: object) -> None:
            """A process that dies takes nothing back, as one does that is told to stop."""

        monkeypatch.setattr(CrashCounter, "take_back", too_late)
        monkeypatch.setattr(CrashCounter, "take_back_alone", too_late)
        url = sa.URL.create("sqlite", database=str(tmp_path / "inbox.db"))
        jobs = [job(number, f"lane {number}") for number in range(1, 6)]
        killer = jobs[2]
        done: list[str] = []
        apologies: list[tuple[str, str]] = []
        lives = 0
        while not {killer.id} <= {id_ for id_, _ in apologies}:
            lives += 1
            assert lives <= 1 + TOGETHER + ALONE + 1
            async with opened(file, url, clock) as post:
                if lives == 1:
                    await post.inbox.put(jobs)
                # While they are done side by side, it kills them before they come to their end.
                together = {each.id for each in jobs} if lives <= 1 + TOGETHER else {killer.id}
                post.worker.held = {id_: asyncio.Event() for id_ in together}
                await post.work()
                await post.until(
                    lambda post=post, together=together: together <= post.worker.now or post.worker.apologies
                )
                done += post.worker.done
                apologies += post.worker.apologies
        async with opened(file, url, clock) as post:
            await post.work()
            await post.until(lambda: len({*done, *post.worker.done}) == len(jobs) - 1)
            done += post.worker.done
            assert await post.letters() == [(killer.id, DIED)]
        assert apologies == [(killer.id, "NoneType")]
        assert set(done) == {each.id for each in jobs if each is not killer}
        assert lives == 1 + TOGETHER + ALONE + 1

    async def test_a_count_that_cannot_be_kept_stops_nothing(self, post: Post, file: Database) -> None:
        await post.inbox.put([job(1)])
        post.inbox._fresh.clear()
        async with file.session() as session:
            await (await session.connection()).exec_driver_sql("DROP TABLE job_attempts")
        with capture_logs() as logs:
            await post.work()
            await post.until(lambda: "inbox.attempts_not_forgotten" in str(logs))
        assert post.worker.done == [job(1).id]
        assert "inbox.attempt_not_counted" in {entry["event"] for entry in logs}

    async def test_only_so_many_are_remembered_as_new(self, post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
        assert FRESH_KEPT >= 1000
        monkeypatch.setattr(module, "FRESH_KEPT", 3)
        await post.inbox.put([job(number) for number in range(1, 6)])
        assert len(post.inbox._fresh) == 3


class TestHousekeeping:
    """What is done and old is deleted."""

    async def test_every_hour_what_is_older_than_two_days(self, post: Post, file: Database) -> None:
        """Dead letters are kept for a month; what waits is kept, however old."""
        past = post.clock.now() - timedelta(days=1)
        await post.work()
        await post.inbox.put([job(1), job(2)])
        await post.until(lambda: len(post.worker.done) == 2)
        await post.inbox.queue.drain(5)
        await post.inbox.put([job(3)])
        await post.inbox.albums.put([AlbumPart(7, "x", 1, "{}")])
        await post.inbox._attempts.begin_again("gone")
        await post.inbox.dead_letters.add(job(9), "ValueError")
        assert past < post.clock.now()
        house = asyncio.create_task(post.inbox.keep_house())
        try:
            for _ in range(3):
                await post.until(lambda: post.clock._sleepers)
                await post.clock.advance(3600)
                await asyncio.sleep(0.05)
            assert await stored(file, "album_parts") == 1
            # The queue stamps with the machine's own time, behind which this clock is not.
            with capture_logs() as logs:
                post.clock.shift(timedelta(days=3).total_seconds())
                await post.until(lambda: any(entry["event"] == "inbox.tidied" for entry in logs), passing_s=600)
            tables = ("album_parts", "job_attempts", "said", "dead_letters")
            assert [await stored(file, table) for table in tables] == [0, 0, 0, 1]
            assert await post.inbox.queue.depth() == 1
            with capture_logs() as logs:
                post.clock.shift(timedelta(days=30).total_seconds())
                await post.until(lambda: any(entry["event"] == "inbox.tidied" for entry in logs), passing_s=600)
            assert await stored(file, "dead_letters") == 0
        finally:
            house.cancel()
            await asyncio.wait([house])

    async def test_a_database_that_fails_is_tried_an_hour_later(self, post: Post, file: Database) -> None:
        async with file.session() as session:
            await (await session.connection()).exec_driver_sql("DROP TABLE said")
        house = asyncio.create_task(post.inbox.keep_house())
        try:
            with capture_logs() as logs:
                await post.until(lambda: len(logs) >= 2, passing_s=600)
            assert {entry["event"] for entry in logs} == {"inbox.not_tidied"}
        finally:
            house.cancel()
            await asyncio.wait([house])
