"""The queue: what is put is done once, in the order of its lane, whatever ends in between."""

import asyncio
import contextlib
from datetime import timedelta
from itertools import pairwise

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine
from structlog.testing import capture_logs

from core.clock import SystemClock
from core.errors import StartupError, StorageError
from services.inbox import dbos_queue as module
from services.inbox.dbos_queue import ROUNDS, WAITING_LIMIT, JobQueue
from services.inbox.job import LARGEST_PRIORITY, Job
from tests.services.inbox.conftest import OpenQueue, Workshop, lose_ends, lose_the_answer_to_a_claim
from tests.support.clock import until
from tests.support.processes.postgres_server import PostgresServer
from tests.support.processes.queue_process import ended, queue_processes, sync_url


def job(number: int, lane: str = "lane", *, payload: str = "{}", is_limited: bool = False) -> Job:
    return Job(f"job-{number:06d}", lane, max(number, 1), payload, is_limited)


def ids(*numbers: int) -> list[str]:
    return [job(number).id for number in numbers]


def statuses(url: sa.URL) -> dict[str, str]:
    """Where each job stands, by the library's own words."""
    schema = "" if url.get_backend_name() == "sqlite" else "dbos."
    engine = sa.create_engine(url)
    try:
        with engine.connect() as connection:
            rows = connection.execute(sa.text(f"SELECT workflow_uuid, status FROM {schema}workflow_status"))  # noqa: S608
            return {str(id_): str(status) for id_, status in rows}
    finally:
        engine.dispose()


def left_by(url: sa.URL, replica: str, job_id: str) -> None:
    """Make a job one that a replica was doing when it died."""
    schema = "" if url.get_backend_name() == "sqlite" else "dbos."
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.execute(
            sa.text(
                f"UPDATE {schema}workflow_status SET status = 'PENDING', executor_id = :replica "  # noqa: S608
                "WHERE workflow_uuid = :id"
            ),
            {"replica": replica, "id": job_id},
        )
    engine.dispose()


async def the_loop_comes_round(queue: JobQueue) -> None:
    """So often that whatever it has claimed is started."""
    before = queue._bell.rounds
    while queue._bell.rounds < before + ROUNDS:
        queue._bell.ring()
        await asyncio.sleep(0.01)


class TestOrder:
    """Within a lane one after the other, lanes side by side."""

    async def test_of_a_lane_whatever_the_order_in_which_they_were_put(self, queue: JobQueue, shop: Workshop) -> None:
        """In one batch and in several; what was put before anybody works is done too."""
        await queue.put([job(number) for number in (3, LARGEST_PRIORITY, 1)])
        await queue.put([job(2)])
        await queue.work()
        await shop.until(lambda: len(shop.done) == 4)
        assert shop.done == ids(1, 2, 3, LARGEST_PRIORITY)

    async def test_of_what_comes_while_one_is_done(self, queue: JobQueue, shop: Workshop) -> None:
        shop.gate.clear()
        await queue.work()
        await queue.put([job(5)])
        await shop.until(lambda: shop.begun)
        for number in (9, 7, 8):
            await queue.put([job(number)])
        shop.gate.set()
        await shop.until(lambda: len(shop.done) == 4)
        assert shop.done == ids(5, 7, 8, 9)

    async def test_lanes_by_the_hundred_at_once_and_one_of_each(self, queue: JobQueue, shop: Workshop) -> None:
        shop.gate.clear()
        await queue.put([job(100 * round_ + lane, f"lane {lane}") for round_ in range(2) for lane in range(100)])
        await queue.work()
        await shop.until(lambda: len(shop.begun) == 100)
        assert queue.running == 100
        shop.gate.set()
        await shop.until(lambda: len(shop.done) == 200)
        assert shop.most >= 100
        assert not shop.crowded

    async def test_a_job_that_fails_does_not_stop_its_lane(self, queue: JobQueue, shop: Workshop) -> None:
        shop.failing = set(ids(1))
        await queue.put([job(1), job(2)])
        await queue.work()
        await shop.until(lambda: shop.done)
        assert shop.begun == ids(1, 2)


class TestPut:
    """What is taken, and what is not."""

    async def test_the_payload_arrives_as_it_was(self, queue: JobQueue, shop: Workshop) -> None:
        payload = '{"text": "\\ud83d \\u0000 ' + "🎭" * 5000 + '"}'
        await queue.put([job(1, payload=payload)])
        await queue.work()
        await shop.until(lambda: shop.done)
        assert shop.payloads == [payload]

    async def test_the_same_again_is_done_once(self, queue: JobQueue, shop: Workshop) -> None:
        """Ten times at once, twice in a batch, while it is done, and when it is done."""
        shop.gate.clear()
        receipts = await asyncio.gather(*(queue.put([job(1)]) for _ in range(10)))
        # On PostgreSQL two that are put at the same instant may both take themselves for the first.
        assert any(receipt.new for receipt in receipts)
        await queue.work()
        await shop.until(lambda: shop.begun)
        assert (await queue.put([job(1), job(2), job(2)])).new == frozenset(ids(2))
        shop.gate.set()
        await shop.until(lambda: len(shop.done) == 2)
        assert await queue.put([job(1)]) == await queue.put([])
        await queue.put([job(3)])
        await shop.until(lambda: len(shop.done) == 3)
        assert shop.begun == ids(1, 2, 3)

    async def test_twenty_wait_and_the_next_is_turned_away(self, queue: JobQueue, shop: Workshop) -> None:
        """Behind the one that is done; of that lane only, and only what may be turned away."""
        shop.gate.clear()
        await queue.work()
        await queue.put([job(1, is_limited=True)])
        await shop.until(lambda: shop.begun)
        refused: list[Job] = []
        for number in range(2, 25):
            refused += (await queue.put([job(number, is_limited=True)])).refused
        assert [each.id for each in refused] == ids(22, 23, 24)
        assert not (await queue.put([job(30, "another", is_limited=True), job(31)])).refused
        # One that is there already is not turned away when it comes again.
        assert not (await queue.put([job(2, is_limited=True)])).refused
        shop.gate.set()
        await shop.until(lambda: len(shop.done) == WAITING_LIMIT + 3)
        assert not (await queue.put([job(22, is_limited=True)])).refused

    async def test_no_more_are_taken_in_one_batch(self, queue: JobQueue) -> None:
        receipt = await queue.put([job(number, is_limited=True) for number in range(1, 31)])
        assert [each.id for each in receipt.refused] == ids(*range(WAITING_LIMIT + 2, 31))
        assert await queue.depth() == len(receipt.new) == WAITING_LIMIT + 1

    async def test_nor_of_many_at_once(self, queue: JobQueue) -> None:
        receipts = await asyncio.gather(*(queue.put([job(number, is_limited=True)]) for number in range(1, 41)))
        assert sum(len(receipt.new) for receipt in receipts) == await queue.depth() == WAITING_LIMIT + 1

    async def test_all_of_a_batch_or_nothing(self, queue: JobQueue) -> None:
        """No database takes a lane of that name."""
        with contextlib.suppress(StorageError, UnicodeError):
            await queue.put([job(1), job(2, "\ud83d"), job(3)])
        assert await queue.depth() == 0
        assert not queue._put_here
        assert (await queue.put([job(1)])).new == frozenset(ids(1))

    async def test_work_begins_without_a_look_at_the_clock(
        self, open_queue: OpenQueue, shop: Workshop, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """With a minute between two looks: what is put, what waited behind it, and what was there before."""
        monkeypatch.setattr(module, "POLL_S", 60.0)
        async with open_queue() as queue:
            await queue.put([job(1)])
            await queue.work()
            await shop.until(lambda: len(shop.done) == 1, within_s=5)
            await queue.put([job(2), job(3), job(4)])
            await shop.until(lambda: len(shop.done) == 4, within_s=5)
            for number in range(5, 9):
                await queue.put([job(number)])
                await shop.until(lambda number=number: len(shop.done) == number, within_s=5)

    async def test_nothing_is_kept_in_memory_of_what_is_done(self, queue: JobQueue, shop: Workshop) -> None:
        await queue.put([job(number, f"lane {number % 7}") for number in range(50)])
        await queue.work()
        await shop.until(lambda: len(shop.done) == 50)
        await queue.put([job(number, f"lane {number % 7}") for number in range(50)])
        await queue.drain(5)
        assert not queue._put_here
        assert not queue._running

    async def test_bots_that_share_a_database_keep_apart(
        self, open_queue: OpenQueue, shop: Workshop, queue_url: sa.URL
    ) -> None:
        async with open_queue(name="inbox-1") as first:
            await first.put([job(number, is_limited=True) for number in range(1, 22)])
        async with open_queue(name="inbox-2") as second:
            await second.work()
            assert await second.depth() == 0
            assert not (await second.put([job(100, is_limited=True)])).refused
            await shop.until(lambda: shop.done)
            await second.drain(1)
        assert shop.begun == ids(100)
        assert list(statuses(queue_url).values()).count("ENQUEUED") == 21


class TestEnds:
    """What becomes of the work when the process goes."""

    async def test_what_runs_is_finished_and_nothing_begins(
        self, open_queue: OpenQueue, shop: Workshop, queue_url: sa.URL
    ) -> None:
        """Neither its successor, nor what comes after that; the next process does them."""
        async with open_queue() as queue:
            shop.gate.clear()
            await queue.put([job(1), job(2), job(3, "other")])
            await queue.work()
            await shop.until(lambda: len(shop.begun) == 2)
            draining = asyncio.create_task(queue.drain(10))
            await asyncio.sleep(0.05)
            await queue.put([job(4, "third")])
            shop.gate.set()
            await draining
            assert sorted(shop.done) == ids(1, 3)
            assert sorted(shop.begun) == ids(1, 3)
        async with open_queue() as queue:
            await queue.work()
            await shop.until(lambda: len(shop.done) == 4)
        assert sorted(shop.begun) == ids(1, 2, 3, 4)
        assert set(statuses(queue_url).values()) == {"SUCCESS"}

    async def test_what_does_not_end_is_handed_back(
        self, open_queue: OpenQueue, shop: Workshop, queue_url: sa.URL
    ) -> None:
        """At once, with PostgreSQL to any replica; it keeps its place before what waits behind it."""
        async with open_queue(replica="one") as queue:
            shop.gate.clear()
            await queue.put([job(1), job(2)])
            await queue.work()
            await shop.until(lambda: shop.begun)
            with capture_logs() as logs:
                await queue.drain(0.05)
            assert shop.broken_off == ids(1)
        assert [(entry["event"], entry["jobs"]) for entry in logs] == [("inbox.handed_back", 1)]
        assert set(statuses(queue_url).values()) == {"ENQUEUED"}
        async with open_queue(replica="two") as queue:
            await queue.work()
            await shop.until(lambda: len(shop.done) == 2)
        assert shop.done == ids(1, 2)

    async def test_a_restart_takes_up_its_own_work(
        self, open_queue: OpenQueue, shop: Workshop, queue_url: sa.URL
    ) -> None:
        """What it was doing when it was killed, before what waited behind that."""
        async with open_queue() as queue:
            await queue.put([job(1), job(2)])
        left_by(queue_url, "local", job(1).id)
        async with open_queue() as queue:
            await queue.work()
            await shop.until(lambda: len(shop.done) == 2)
        assert shop.done == ids(1, 2)

    async def test_the_work_of_a_dead_replica_is_put_back(
        self, queue: JobQueue, shop: Workshop, queue_url: sa.URL
    ) -> None:
        """Till then its lanes wait, and no others do."""
        await queue.put([job(1), job(2), job(3, "other")])
        left_by(queue_url, "dead", job(1).id)
        await queue.work()
        await shop.until(lambda: shop.done)
        await queue.put([job(4, "other")])
        await shop.until(lambda: len(shop.done) == 2)
        assert shop.done == ids(3, 4)
        assert await queue.recover("another one") == 0
        assert await queue.recover("dead") == 1
        await shop.until(lambda: len(shop.done) == 4)
        assert shop.done[2:] == ids(1, 2)
        assert await queue.recover("dead") == 0

    async def test_a_claim_whose_answer_was_lost_is_put_back(self, queue: JobQueue, shop: Workshop) -> None:
        """The database carried it out and nobody heard of that: without a look at it, its lane would wait for ever."""
        lost = lose_the_answer_to_a_claim(queue)
        await queue.put([job(1), job(2)])
        await queue.work()
        await lost.wait()
        shop.gate.clear()
        assert await queue.put_back_strays() == 0, "it may be about to begin"
        await the_loop_comes_round(queue)
        assert await queue.put_back_strays() == 1
        await shop.until(lambda: shop.begun == ids(1))

        # What is being done is no stray.
        for _ in range(2):
            await the_loop_comes_round(queue)
            assert await queue.put_back_strays() == 0
        shop.gate.set()
        await shop.until(lambda: shop.done == ids(1, 2))

    async def test_an_end_that_the_database_did_not_take_is_noted_later(self, queue: JobQueue, shop: Workshop) -> None:
        """What was done is not done again, and the next of its lane begins."""
        lose_ends(queue)
        with capture_logs() as logs:
            await queue.put([job(1), job(2)])
            await queue.work()
            await until(lambda: [entry for entry in logs if entry["event"] == "inbox.end_not_noted"])
        assert shop.begun == ids(1)
        assert await queue.put_back_strays() == 1
        await shop.until(lambda: shop.done == ids(1, 2))
        assert shop.begun == ids(1, 2)

    async def test_what_other_programs_keep_in_the_same_tables_is_theirs(
        self, open_queue: OpenQueue, shop: Workshop, queue_url: sa.URL
    ) -> None:
        """Several bots may share a database, and other programs of the library."""
        async with open_queue(name="theirs") as queue:
            await queue.put([job(1)])
            await queue.work()
            await shop.until(lambda: shop.done)
        async with open_queue() as queue:
            assert await queue.purge(SystemClock().now() + timedelta(minutes=1)) == 0
        assert statuses(queue_url) == {job(1).id: "SUCCESS"}

    async def test_what_is_done_and_old_is_deleted(self, queue: JobQueue, shop: Workshop, queue_url: sa.URL) -> None:
        """And nothing else, so many at a time."""
        shop.failing = set(ids(2))
        await queue.put([job(number, f"lane {number}") for number in (1, 2, 3)])
        await queue.work()
        await shop.until(lambda: len(shop.done) == 2 and not shop.at_once.total())
        shop.gate.clear()
        await queue.put([job(4), job(5)])
        await shop.until(lambda: job(4).id in shop.begun)
        now = SystemClock().now()
        await until(lambda: not set(ids(1, 2, 3)) & {id_ for id_, st in statuses(queue_url).items() if st == "PENDING"})
        assert await queue.purge(now - timedelta(minutes=1)) == 0
        later = now + timedelta(minutes=1)
        assert [await queue.purge(later, limit=2) for _ in range(3)] == [2, 1, 0]
        assert sorted(statuses(queue_url)) == ids(4, 5)

    async def test_a_database_that_is_gone_says_so_in_one_line(self) -> None:
        queue = JobQueue(sync_url("postgresql://nobody@127.0.0.1:1/nothing"), "x", "x", Workshop().run)
        with pytest.raises(StartupError, match="the inbox cannot be opened in its database"):
            await queue.start()


class TestReplicas:
    """Several processes on one PostgreSQL."""

    async def test_starts_on_an_empty_database_beside_a_transaction_of_its_own(self, postgres_url: str) -> None:
        """Its tables get indexes that wait for every transaction, and one here ends only while the event loop runs."""
        queue = JobQueue(sync_url(postgres_url), "x", "x", Workshop().run)
        engine = create_async_engine(postgres_url, isolation_level="REPEATABLE READ")
        try:
            async with engine.connect() as connection:
                await connection.execute(sa.text("SELECT 1"))
                starting = asyncio.create_task(queue.start())
                waiting = sa.text("SELECT count(*) FROM pg_locks WHERE locktype = 'virtualxid' AND NOT granted")
                while not await connection.scalar(waiting):
                    assert not starting.done()
                    await asyncio.sleep(0.05)
            async with asyncio.timeout(30):
                await starting
        finally:
            await engine.dispose()
            await queue.close()

    async def test_start_at_once_on_an_empty_database_and_share_the_work(self, postgres_url: str) -> None:
        """Each puts the same jobs; each job is done once, lanes keep their order, and no lane is done twice at once."""
        jobs = [[f"job-{number:04d}", f"lane {number % 12}", number + 1, False] for number in range(120)]
        async with queue_processes(postgres_url, "one", "two", "three") as replicas:
            for each in replicas:
                each.tell(work=0.02)
            # One of each lane at a time, so that everybody hears of something to do.
            for first in range(0, len(jobs), 12):
                for each in replicas:
                    each.tell(put=jobs[first : first + 12])
            async with asyncio.timeout(30):
                while sum(len(each.done) for each in replicas) < len(jobs):
                    hearing = [asyncio.create_task(each.hear("did")) for each in replicas]
                    await asyncio.wait(hearing, return_when=asyncio.FIRST_COMPLETED, timeout=1)
                    for task in hearing:
                        task.cancel()
                    await asyncio.gather(*hearing, return_exceptions=True)
            done = await ended(replicas)
            assert sum(bool(each.done) for each in replicas) >= 2
        assert sorted(each["did"] for each in done) == [id_ for id_, *_ in jobs]
        for lane in range(12):
            of_lane = [each for each in done if each["lane"] == f"lane {lane}"]
            assert [each["did"] for each in of_lane] == sorted(each["did"] for each in of_lane)
            for before, after in pairwise(of_lane):
                assert before["ended"] <= after["begun"]

    async def test_together_put_no_more_into_a_lane_than_one_alone(self, postgres_url: str) -> None:
        async with queue_processes(postgres_url, "one", "two") as replicas:
            for number in range(30):
                for which, each in enumerate(replicas):
                    each.tell(put=[[f"job-{which}-{number}", "lane", number + 1, True]])
            taken = 0
            for _ in range(30):
                taken += sum([(await each.hear("new"))["new"] for each in replicas])
            await ended(replicas)
        assert taken == WAITING_LIMIT + 1

    async def test_a_database_that_restarts_loses_nothing(self, postgres: PostgresServer, postgres_url: str) -> None:
        shop = Workshop()
        queue = JobQueue(sync_url(postgres_url), "inbox", "one", shop.run)
        await queue.start()
        try:
            await queue.work()
            shop.gate.clear()
            await queue.put([job(1), job(2)])
            await shop.until(lambda: shop.begun)
            await asyncio.to_thread(postgres.stop)
            try:
                with pytest.raises(StorageError):
                    await queue.put([job(3)])
            finally:
                await asyncio.to_thread(postgres.start)
            shop.gate.set()
            await queue.put([job(3)])
            await shop.until(lambda: len(shop.done) == 3)
            assert shop.done == ids(1, 2, 3)
        finally:
            await queue.drain(5)
            await queue.close()

    async def test_a_shutdown_does_not_wait_for_a_database_that_is_gone(
        self, postgres: PostgresServer, postgres_url: str
    ) -> None:
        shop = Workshop()
        queue = JobQueue(sync_url(postgres_url), "inbox", "one", shop.run)
        await queue.start()
        await queue.work()
        shop.gate.clear()
        await queue.put([job(1)])
        await shop.until(lambda: shop.begun)
        await asyncio.to_thread(postgres.stop)
        try:
            with capture_logs() as logs:
                async with asyncio.timeout(20):
                    await queue.drain(0.1)
                    await queue.close()
            assert "inbox.not_handed_back" in {entry["event"] for entry in logs}
        finally:
            await asyncio.to_thread(postgres.start)
