"""Replicas: crash detection and leader election."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack

import psycopg
import pytest

from core.clock import SystemClock
from core.errors import ReplicaReplaced
from services.inbox.lease import ReplicaLease
from services.inbox.replicas import (
    ALIVE_LOCK,
    LEADER_LOCK,
    PostgresReplicas,
    ReplicaTiming,
    SingleReplica,
    _lock_key,
    replica_name,
)
from tests.support.clock import until
from tests.support.processes.postgres_server import PostgresServer

# Twenty times as fast as the defaults, with a grace period of half a second.
TIMING = ReplicaTiming(check_s=0.05, grace_s=0.5, reconnect_s=0.025, lease_s=2.0, margin_s=1.5, settle_s=0.5)


async def test_single_replica_leads_at_once() -> None:
    async with SingleReplica().lead() as lost:
        assert not lost.is_set()


def test_replica_name_is_unique() -> None:
    assert len({replica_name() for _ in range(100)}) == 100
    assert str(os.getpid()) in replica_name()


class Replica:
    """A replica that records the dead ones it recovered."""

    def __init__(self, url: str, name: str, group: str = "42") -> None:
        self.name = name
        self.recovered: list[str] = []
        self.lease = ReplicaLease()
        self.watcher = PostgresReplicas(url, name, group, SystemClock(), TIMING, lease=self.lease)
        self.task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self.task = asyncio.create_task(self.watcher.watch(self._recover))

    async def stop(self) -> None:
        """Die: the connection ends."""
        if self.task is not None:
            self.task.cancel()
            await asyncio.wait([self.task])

    async def _recover(self, replica: str) -> int:
        self.recovered.append(replica)
        return 1


@pytest.fixture
async def join_replica(postgres_url: str) -> AsyncIterator[Callable[..., Replica]]:
    """Return a function that starts a replica."""
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA dbos")
        connection.execute("CREATE TABLE dbos.workflow_status (status text, executor_id text)")
        connection.execute("CREATE TABLE replicas (name text PRIMARY KEY, expires_at timestamptz NOT NULL)")
    async with AsyncExitStack() as stack:

        def join(name: str, group: str = "42") -> Replica:
            replica = Replica(postgres_url, name, group)
            replica.start()
            stack.push_async_callback(replica.stop)
            return replica

        yield join


def names(url: str) -> set[str]:
    """Return the names of the registered replicas."""
    with psycopg.connect(url) as connection:
        return {name for (name,) in connection.execute("SELECT name FROM replicas")}


def claim_job(url: str, replica: str) -> None:
    """Insert a job claimed by a replica."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("INSERT INTO dbos.workflow_status VALUES ('PENDING', %s)", [replica])


def cut(url: str, replica: str) -> None:
    """Terminate the connection in which a replica holds its locks."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND classid = %s "
            "AND objid::bigint = (%s::bigint & 4294967295) AND granted",
            [ALIVE_LOCK, _lock_key(replica)],
        )


class TestLeadership:
    """One of the replicas of a bot may poll."""

    async def test_another_replica_leads_after_the_leader_died(self, join_replica: Callable[..., Replica]) -> None:
        one, two = join_replica("one"), join_replica("two")
        leaders: list[str] = []

        async def lead(replica: Replica) -> None:
            async with replica.watcher.lead() as lost:
                leaders.append(replica.name)
                await lost.wait()

        leading = [asyncio.create_task(lead(each)) for each in (one, two)]
        await until(lambda: leaders)
        await asyncio.sleep(0.3)
        assert len(leaders) == 1
        await (one if leaders == ["one"] else two).stop()
        await until(lambda: len(leaders) == 2)
        assert sorted(leaders) == ["one", "two"]
        for each in (one, two):
            await each.stop()
        await asyncio.wait(leading, timeout=5)

    async def test_leadership_passes_on_without_a_crash(self, join_replica: Callable[..., Replica]) -> None:
        """A process that shuts down stops polling and still finishes its replies."""
        one, two = join_replica("one"), join_replica("two")
        async with one.watcher.lead() as lost:
            assert not lost.is_set()
        async with asyncio.timeout(5), two.watcher.lead():
            assert lost.is_set()
        assert one.task is not None
        assert not one.task.done()

    async def test_two_bots_have_a_leader_each(self, join_replica: Callable[..., Replica]) -> None:
        one, other = join_replica("one"), join_replica("other", group="43")
        async with asyncio.timeout(5), one.watcher.lead(), other.watcher.lead():
            pass

    async def test_leadership_is_lost_with_the_connection_and_regained(
        self, join_replica: Callable[..., Replica], postgres_url: str
    ) -> None:
        one = join_replica("one")
        async with asyncio.timeout(10):
            async with one.watcher.lead() as lost:
                cut(postgres_url, "one")
                await lost.wait()
            async with one.watcher.lead() as lost:
                assert not lost.is_set()


class TestLease:
    """A replica that hangs keeps its lock and lets its lease expire."""

    async def test_hanging_replica_loses_its_jobs_and_the_leadership(
        self, join_replica: Callable[..., Replica], postgres_url: str
    ) -> None:
        claim_job(postgres_url, "hanging")
        async with await psycopg.AsyncConnection.connect(
            postgres_url, autocommit=True, application_name="hanging/lock"
        ) as hanging:
            await hanging.execute("SELECT pg_advisory_lock(%s, %s)", [ALIVE_LOCK, _lock_key("hanging")])
            await hanging.execute("SELECT pg_advisory_lock(%s, %s)", [LEADER_LOCK, _lock_key("42")])
            await hanging.execute("INSERT INTO replicas VALUES ('hanging', now() + interval '1 s')")
            two = join_replica("two")
            async with asyncio.timeout(10), two.watcher.lead():
                assert set(two.recovered) == {"hanging"}
            with pytest.raises(psycopg.OperationalError):
                await hanging.execute("SELECT 1")
        assert names(postgres_url) == {"two"}

    async def test_replaced_replica_gives_up(self, join_replica: Callable[..., Replica], postgres_url: str) -> None:
        one = join_replica("one")
        await until(lambda: one.lease.is_held)
        with psycopg.connect(postgres_url, autocommit=True) as connection:
            connection.execute("UPDATE replicas SET expires_at = '-infinity' WHERE name = 'one'")
        assert one.task is not None
        with pytest.raises(ReplicaReplaced):
            await asyncio.wait_for(one.task, 5)
        assert not one.lease.is_held

    async def test_lease_lapses_without_the_database(
        self, join_replica: Callable[..., Replica], postgres: PostgresServer
    ) -> None:
        """And is held again afterwards, unless another replica has taken over."""
        one = join_replica("one")
        await until(lambda: one.lease.is_held)
        await asyncio.to_thread(postgres.stop)
        try:
            await until(lambda: not one.lease.is_held)
        finally:
            await asyncio.to_thread(postgres.start)
        await until(lambda: one.lease.is_held)

    async def test_lease_is_deleted_at_a_shutdown(
        self, join_replica: Callable[..., Replica], postgres_url: str
    ) -> None:
        one = join_replica("one")
        await until(lambda: one.lease.is_held)
        await one.stop()
        await one.watcher.leave()
        assert names(postgres_url) == set()

    async def test_takeover_that_was_interrupted_is_continued(
        self, join_replica: Callable[..., Replica], postgres_url: str
    ) -> None:
        """The replica that had begun it died before it requeued the jobs; the hanging one still holds its lock."""
        claim_job(postgres_url, "hanging")
        async with await psycopg.AsyncConnection.connect(postgres_url, autocommit=True) as hanging:
            await hanging.execute("SELECT pg_advisory_lock(%s, %s)", [ALIVE_LOCK, _lock_key("hanging")])
            await hanging.execute("INSERT INTO replicas VALUES ('hanging', '-infinity')")
            two = join_replica("two")
            await until(lambda: two.recovered == ["hanging"])
            await until(lambda: names(postgres_url) == {"two"})


class TestCrashDetection:
    """Jobs of dead replicas are requeued."""

    async def test_dead_replica_is_recovered_after_the_grace_period(
        self, join_replica: Callable[..., Replica], postgres_url: str
    ) -> None:
        two = join_replica("two")
        claim_job(postgres_url, "dead")
        claim_job(postgres_url, "two")
        began = asyncio.get_running_loop().time()
        await until(lambda: two.recovered)
        assert asyncio.get_running_loop().time() - began >= TIMING.grace_s * 0.9
        assert set(two.recovered) == {"dead"}

    async def test_concurrent_probe_is_not_mistaken_for_the_owner(
        self, join_replica: Callable[..., Replica], postgres_url: str
    ) -> None:
        """With many replicas some probe is always under way."""
        two = join_replica("two")
        claim_job(postgres_url, "dead")
        with psycopg.connect(postgres_url, autocommit=True) as another:
            another.execute("SELECT pg_advisory_lock_shared(%s, %s)", [ALIVE_LOCK, _lock_key("dead")])
            await until(lambda: two.recovered)

    async def test_slow_replica_is_not_recovered(self, join_replica: Callable[..., Replica], postgres_url: str) -> None:
        """It does nothing but hold its connection."""
        slow = join_replica("slow")
        await asyncio.sleep(0.2)
        claim_job(postgres_url, "slow")
        two = join_replica("two")
        await asyncio.sleep(3 * TIMING.grace_s)
        assert two.recovered == []
        await slow.stop()
        await until(lambda: two.recovered)

    async def test_replica_with_an_interrupted_connection_is_not_recovered(
        self, join_replica: Callable[..., Replica], postgres_url: str
    ) -> None:
        one, two = join_replica("one"), join_replica("two")
        await asyncio.sleep(0.2)
        claim_job(postgres_url, "one")
        for _ in range(4):
            cut(postgres_url, "one")
            await asyncio.sleep(0.4 * TIMING.grace_s)
        await asyncio.sleep(2 * TIMING.grace_s)
        assert two.recovered == one.recovered == []

    async def test_database_restart_kills_no_replica(
        self, join_replica: Callable[..., Replica], postgres: PostgresServer, postgres_url: str
    ) -> None:
        one, two = join_replica("one"), join_replica("two")
        await asyncio.sleep(0.2)
        claim_job(postgres_url, "one")
        claim_job(postgres_url, "two")
        async with asyncio.timeout(15):
            async with one.watcher.lead() as lost:
                await asyncio.to_thread(postgres.stop)
                await asyncio.to_thread(postgres.start)
                await lost.wait()
            async with one.watcher.lead():
                pass
        await asyncio.sleep(2 * TIMING.grace_s)
        assert two.recovered == one.recovered == []
        claim_job(postgres_url, "dead")
        await until(lambda: "dead" in two.recovered)
