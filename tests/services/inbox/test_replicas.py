"""Who is alive, and who leads."""

import asyncio
import gc
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import psycopg
import pytest
from structlog.testing import capture_logs

from core.clock import SystemClock
from core.errors import StartupError
from services.inbox import replicas as module
from services.inbox.replicas import FILE_PATIENCE_S, FileLock, PostgresReplicas, replica_name
from tests.support.clock import ManualClock, until
from tests.support.processes.postgres_server import PostgresServer

LOCKING = """
import fcntl, sys
with open(sys.argv[1], "ab") as file:
    fcntl.flock(file, fcntl.LOCK_EX)
    print(flush=True)
    sys.stdin.read()
"""


class TestSingleProcess:
    """A folder with a SQLite file is one process's."""

    async def test_a_second_process_waits_and_is_told_in_one_line(self, tmp_path: Path, clock: ManualClock) -> None:
        """After its patience, how to have several."""
        first, second = (FileLock(tmp_path / "inbox.lock", clock) for _ in range(2))
        await first.claim()
        with capture_logs() as logs:
            claiming = asyncio.create_task(second.claim())
            await asyncio.sleep(0)
            await clock.advance(FILE_PATIENCE_S - 1)
            assert not claiming.done()
            await clock.advance(2)
        with pytest.raises(StartupError, match=r"DATA_DIR: another process .* DATABASE_URL=postgresql://") as told:
            claiming.result()
        assert "\n" not in str(told.value)
        assert {entry["event"] for entry in logs} == {"inbox.folder_in_use"}
        first.release()

    async def test_one_that_leaves_makes_room(self, tmp_path: Path, clock: ManualClock) -> None:
        first, second = (FileLock(tmp_path / "inbox.lock", clock) for _ in range(2))
        await first.claim()
        claiming = asyncio.create_task(second.claim())
        await asyncio.sleep(0)
        first.release()
        first.release()
        await clock.advance(1.5)
        await claiming
        second.release()

    async def test_one_that_is_killed_makes_room_at_once(self, tmp_path: Path, clock: ManualClock) -> None:
        """Its lock is gone with it, though the file is there."""
        path = tmp_path / "inbox.lock"
        command = [sys.executable, "-c", LOCKING, str(path)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:  # noqa: ASYNC220, S603
            assert other.stdout is not None
            await asyncio.to_thread(other.stdout.readline)
            this = FileLock(path, clock)
            claiming = asyncio.create_task(this.claim())
            await asyncio.sleep(0)
            assert not claiming.done()
            other.kill()
            await asyncio.to_thread(other.wait)
        await clock.advance(1.5)
        await claiming
        this.release()

    async def test_a_wait_that_is_given_up_leaves_nothing_open(self, tmp_path: Path, clock: ManualClock) -> None:
        first, second = (FileLock(tmp_path / "inbox.lock", clock) for _ in range(2))
        await first.claim()
        claiming = asyncio.create_task(second.claim())
        await asyncio.sleep(0)
        claiming.cancel()
        await asyncio.wait([claiming])
        first.release()
        gc.collect()

    async def test_a_folder_that_takes_no_file_is_told_in_one_line(self, tmp_path: Path, clock: ManualClock) -> None:
        (tmp_path / "inbox.lock").mkdir()
        with pytest.raises(StartupError, match="DATA_DIR: "):
            await FileLock(tmp_path / "inbox.lock", clock).claim()

    async def test_it_leads_for_ever(self, tmp_path: Path, clock: ManualClock) -> None:
        async with FileLock(tmp_path / "inbox.lock", clock).lead() as lost:
            assert not lost.is_set()


def test_no_two_lives_have_the_same_name() -> None:
    assert len({replica_name() for _ in range(100)}) == 100
    assert str(os.getpid()) in replica_name()


class Replica:
    """One that looks after the others, and notes whom it took for dead."""

    def __init__(self, url: str, name: str, leads: str = "42") -> None:
        self.name = name
        self.recovered: list[str] = []
        self.watcher = PostgresReplicas(url, name, leads, SystemClock())
        self.task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self.task = asyncio.create_task(self.watcher.watch(self._recover))

    async def stop(self) -> None:
        """It dies: its connection ends."""
        if self.task is not None:
            self.task.cancel()
            await asyncio.wait([self.task])

    async def _recover(self, replica: str) -> int:
        self.recovered.append(replica)
        return 1


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second of theirs takes a twentieth."""
    for name in ("LOOK_S", "RECONNECT_S"):
        monkeypatch.setattr(module, name, getattr(module, name) / 20)
    monkeypatch.setattr(module, "GRACE_S", 0.5)


@pytest.fixture
async def meet(postgres_url: str) -> AsyncIterator[Callable[..., Replica]]:
    """Lets a replica join the others."""
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA dbos")
        connection.execute("CREATE TABLE dbos.workflow_status (status text, executor_id text)")
    async with AsyncExitStack() as stack:

        def join(name: str, leads: str = "42") -> Replica:
            replica = Replica(postgres_url, name, leads)
            replica.start()
            stack.push_async_callback(replica.stop)
            return replica

        yield join


def works(url: str, replica: str) -> None:
    """A replica is in the middle of something."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("INSERT INTO dbos.workflow_status VALUES ('PENDING', %s)", [replica])


def cut(url: str, replica: str) -> None:
    """Somebody ends the connection in which a replica holds its locks."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND classid = %s "
            "AND objid::bigint = (%s::bigint & 4294967295) AND granted",
            [module.ALIVE, module._number(replica)],
        )


class TestLead:
    """One of those that serve a bot may poll for it."""

    async def test_one_leads_and_when_it_dies_another_does(self, meet: Callable[..., Replica]) -> None:
        one, two = meet("one"), meet("two")
        led: list[str] = []

        async def lead(replica: Replica) -> None:
            async with replica.watcher.lead() as lost:
                led.append(replica.name)
                await lost.wait()

        leading = [asyncio.create_task(lead(each)) for each in (one, two)]
        await until(lambda: led)
        await asyncio.sleep(0.3)
        assert len(led) == 1
        await (one if led == ["one"] else two).stop()
        await until(lambda: len(led) == 2)
        assert sorted(led) == ["one", "two"]
        for each in (one, two):
            await each.stop()
        await asyncio.wait(leading, timeout=5)

    async def test_one_that_leaves_passes_it_on_and_lives(self, meet: Callable[..., Replica]) -> None:
        """A shutdown polls no more, and still finishes its answers."""
        one, two = meet("one"), meet("two")
        async with one.watcher.lead() as lost:
            assert not lost.is_set()
        async with asyncio.timeout(5), two.watcher.lead():
            assert lost.is_set()
        assert one.task is not None
        assert not one.task.done()

    async def test_two_bots_have_a_leader_each(self, meet: Callable[..., Replica]) -> None:
        one, other = meet("one"), meet("other", leads="43")
        async with asyncio.timeout(5), one.watcher.lead(), other.watcher.lead():
            pass

    async def test_a_connection_that_is_cut_loses_it_and_a_new_one_gets_it_back(
        self, meet: Callable[..., Replica], postgres_url: str
    ) -> None:
        one = meet("one")
        async with asyncio.timeout(10):
            async with one.watcher.lead() as lost:
                cut(postgres_url, "one")
                await lost.wait()
            async with one.watcher.lead() as lost:
                assert not lost.is_set()


class TestTheDead:
    """What a dead replica was doing is put back."""

    async def test_after_the_grace_and_until_then_not(self, meet: Callable[..., Replica], postgres_url: str) -> None:
        two = meet("two")
        works(postgres_url, "dead")
        works(postgres_url, "two")
        began = asyncio.get_running_loop().time()
        await until(lambda: two.recovered)
        assert asyncio.get_running_loop().time() - began >= module.GRACE_S * 0.9
        assert set(two.recovered) == {"dead"}

    async def test_whoever_looks_at_the_same_instant_is_not_taken_for_the_dead_one(
        self, meet: Callable[..., Replica], postgres_url: str
    ) -> None:
        """Of many replicas somebody always looks."""
        two = meet("two")
        works(postgres_url, "dead")
        with psycopg.connect(postgres_url, autocommit=True) as another:
            another.execute("SELECT pg_advisory_lock_shared(%s, %s)", [module.ALIVE, module._number("dead")])
            await until(lambda: two.recovered)

    async def test_one_that_is_only_slow_is_left_alone(self, meet: Callable[..., Replica], postgres_url: str) -> None:
        """It does nothing at all, and holds its connection."""
        slow = meet("slow")
        await asyncio.sleep(0.2)
        works(postgres_url, "slow")
        two = meet("two")
        await asyncio.sleep(3 * module.GRACE_S)
        assert two.recovered == []
        await slow.stop()
        await until(lambda: two.recovered)

    async def test_one_whose_connection_was_cut_for_a_moment_is_left_alone(
        self, meet: Callable[..., Replica], postgres_url: str
    ) -> None:
        one, two = meet("one"), meet("two")
        await asyncio.sleep(0.2)
        works(postgres_url, "one")
        for _ in range(4):
            cut(postgres_url, "one")
            await asyncio.sleep(0.4 * module.GRACE_S)
        await asyncio.sleep(2 * module.GRACE_S)
        assert two.recovered == one.recovered == []

    async def test_after_a_restart_of_the_database_nobody_is_taken_for_dead(
        self, meet: Callable[..., Replica], postgres: PostgresServer, postgres_url: str
    ) -> None:
        one, two = meet("one"), meet("two")
        await asyncio.sleep(0.2)
        works(postgres_url, "one")
        works(postgres_url, "two")
        async with asyncio.timeout(15):
            async with one.watcher.lead() as lost:
                await asyncio.to_thread(postgres.stop)
                await asyncio.to_thread(postgres.start)
                await lost.wait()
            async with one.watcher.lead():
                pass
        await asyncio.sleep(2 * module.GRACE_S)
        assert two.recovered == one.recovered == []
        works(postgres_url, "dead")
        await until(lambda: "dead" in two.recovered)
