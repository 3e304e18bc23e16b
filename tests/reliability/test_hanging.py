"""A replica that hangs loses the poll and its work to a healthy one, and says nothing when it wakes."""

import asyncio
import signal
import time
from pathlib import Path

import pytest

from tests.support.processes.fleet import Fleet
from tests.support.processes.fork_server import Daemon, ForkServer
from tests.support.processes.load import SimulatedUsers
from tests.support.processes.postgres_server import PostgresServer
from tests.support.processes.tcp_proxy import TCPProxy

TAKEOVER_S = 10.0
"""Time within which a hanging replica loses the poll and its jobs."""
ANSWERED_S = 15.0
"""Time within which all of its questions are answered by the other one."""
PEOPLE = 10


async def assert_taken_over(fleet: Fleet, users: SimulatedUsers, hanging: Daemon, jobs: set[str], began: float) -> None:
    """Assert that another replica polls, takes the jobs and answers every question in time."""
    users.pause_s = 0.05
    await fleet.wait_for_takeover(jobs, hanging, timeout_s=TAKEOVER_S - (time.time() - began))
    assert await fleet.wait_for_poll(since=began + 0.5) - began < TAKEOVER_S
    await users.wait_until_answered(timeout_s=ANSWERED_S - (time.time() - began))
    assert users.answered == users.asked, fleet.errors()


def assert_nothing_twice(fleet: Fleet, users: SimulatedUsers) -> None:
    outcome = users.outcome(fleet.recorded_answers())
    assert (outcome.lost, outcome.disorder, outcome.duplicates, outcome.unexpected) == ([], [], [], []), fleet.errors()
    assert [daemon.is_alive for daemon in fleet.daemons] == [True, True]


async def assert_serves_again(fleet: Fleet, woken: Daemon) -> None:
    """Assert that the replaced replica registers under a new name."""
    await woken.wait_for_event("bot.replaced", timeout_s=20)
    async with asyncio.timeout(30):
        while len(woken.events("replicas.joined")) < 2:
            await asyncio.sleep(0.05)
    first, second = (event["replica"] for event in woken.events("replicas.joined")[:2])
    assert first != second
    async with asyncio.timeout(10):
        while len(fleet.rows("SELECT name FROM replicas")) != 2:
            await asyncio.sleep(0.1)


async def start_pair(fleet: Fleet, users: SimulatedUsers, entry: str = "bot.__main__", **settings: str) -> Daemon:
    """Start the replica that will hang, let it begin all answers, then start a second one; return the first."""
    first = await fleet.start(entry, **settings)
    await first.wait_for_event("replicas.leadership_acquired")
    second = await fleet.start()
    await second.wait_for_event("replicas.joined")
    return first


async def begin_answers(fleet: Fleet, users: SimulatedUsers, first: Daemon) -> set[str]:
    """Ask until each person has an answer in progress; return the jobs of the first replica."""
    for person in users.people:
        users.ask(person)
    await users.wait_for_requests(PEOPLE)
    await asyncio.sleep(0.5)
    return fleet.in_flight(first)


@pytest.mark.timeout(120)
async def test_stopped_replica_loses_poll_and_jobs(
    fork_server: ForkServer, tmp_path: Path, migrated_postgres_url: str
) -> None:
    async with Fleet(fork_server, tmp_path, DATABASE_URL=migrated_postgres_url) as fleet:
        users = SimulatedUsers(fleet.telegram, fleet.llm, people=PEOPLE, pieces=8, pause_s=0.5)
        first = await start_pair(fleet, users)
        jobs = await begin_answers(fleet, users, first)
        began = time.time()
        first.signal(signal.SIGSTOP)
        try:
            for person in users.people[:5]:
                users.ask(person)
            await assert_taken_over(fleet, users, first, jobs, began)
            # It wakes after it has lost everything.
            await asyncio.sleep(max(0.0, TAKEOVER_S + 1 - (time.time() - began)))
        finally:
            first.signal(signal.SIGCONT)
        await assert_serves_again(fleet, first)
        assert_nothing_twice(fleet, users)


@pytest.mark.timeout(120)
async def test_replica_with_a_blocked_loop_loses_poll_and_jobs(
    fork_server: ForkServer, tmp_path: Path, migrated_postgres_url: str
) -> None:
    """Its other threads run on, and must not keep it alive."""
    async with Fleet(fork_server, tmp_path, DATABASE_URL=migrated_postgres_url) as fleet:
        users = SimulatedUsers(fleet.telegram, fleet.llm, people=PEOPLE, pieces=8, pause_s=0.5)
        first = await start_pair(fleet, users, "tests.support.processes.blockable_daemon", BLOCK_S="14")
        jobs = await begin_answers(fleet, users, first)
        began = time.time()
        first.signal(signal.SIGUSR1)
        await assert_taken_over(fleet, users, first, jobs, began)
        await assert_serves_again(fleet, first)
        assert_nothing_twice(fleet, users)


@pytest.mark.timeout(120)
async def test_replica_without_its_database_loses_poll_and_jobs(
    fork_server: ForkServer, tmp_path: Path, postgres: PostgresServer, migrated_postgres_url: str
) -> None:
    """Its connections stay open and nothing comes through; it is not told, and ends its lease by its own clock."""
    async with (
        TCPProxy(postgres.port) as proxy,
        Fleet(fork_server, tmp_path, DATABASE_URL=migrated_postgres_url) as fleet,
    ):
        users = SimulatedUsers(fleet.telegram, fleet.llm, people=PEOPLE, pieces=8, pause_s=0.5)
        behind_proxy = migrated_postgres_url.replace(f":{postgres.port}/", f":{proxy.port}/")
        first = await start_pair(fleet, users, DATABASE_URL=behind_proxy)
        jobs = await begin_answers(fleet, users, first)
        began = time.time()
        proxy.flows.clear()
        await assert_taken_over(fleet, users, first, jobs, began)
        proxy.flows.set()
        await assert_serves_again(fleet, first)
        assert_nothing_twice(fleet, users)
