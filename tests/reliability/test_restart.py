"""Shutdown, restart and suspension of a process."""

import asyncio
import signal
from pathlib import Path

import pytest

from tests.support.processes.fleet import Fleet
from tests.support.processes.fork_server import ForkServer
from tests.support.processes.load import SimulatedUsers

AGAIN_S = 5.0
"""Time from ready until a restarted process resumes its jobs."""


@pytest.mark.timeout(120)
async def test_sigterm_finishes_running_answers(fork_server: ForkServer, tmp_path: Path) -> None:
    """Waiting jobs are left to the next process; the exit code is 0."""
    async with Fleet(fork_server, tmp_path, SHUTDOWN_TIMEOUT="20") as fleet:
        users = SimulatedUsers(fleet.telegram, fleet.llm, people=10, pause_s=0.5)
        daemon = await fleet.start()
        for person in users.people:
            for _ in range(3):
                users.ask(person)
        await users.wait_for_requests(10)
        daemon.signal(signal.SIGTERM)
        await daemon.wait_for_event("bot.stopping")
        late = users.people[0]
        users.ask(late)
        assert await daemon.wait_for_exit() == 0, daemon.log[-2000:]
        assert [update["message"]["chat"]["id"] for update in fleet.telegram.pending] == [late], "not polled"
        assert users.answered == len(users.requested), "running jobs finish"
        assert 10 <= users.answered < users.asked, "no job starts after SIGTERM"
        assert daemon.events("inbox.jobs_interrupted") == []
        await fleet.start()
        await users.wait_until_answered(timeout_s=40)
        outcome = users.outcome(fleet.recorded_answers())
        assert (outcome.lost, outcome.disorder, outcome.duplicates, outcome.unexpected) == ([], [], [], []), (
            fleet.errors()
        )


@pytest.mark.timeout(120)
async def test_restart_resumes_jobs_in_the_same_messages(fork_server: ForkServer, tmp_path: Path) -> None:
    """Within five seconds, editing the messages that the killed process had sent."""
    async with Fleet(fork_server, tmp_path) as fleet:
        users = SimulatedUsers(fleet.telegram, fleet.llm, people=5, pieces=2, pause_s=30)
        daemon = await fleet.start()
        for person in users.people:
            users.ask(person)
        await users.wait_for_requests(5)
        async with asyncio.timeout(20):
            while len(fleet.recorded_answers()) < 5:
                await asyncio.sleep(0.05)
        await fleet.kill(daemon)
        users.pause_s = 0
        asked = len(users.requested)
        daemon = await fleet.start()
        await users.wait_for_requests(asked + 5, timeout_s=AGAIN_S)
        await users.wait_until_answered(timeout_s=20)
        outcome = users.outcome(fleet.recorded_answers())
        assert (outcome.lost, outcome.disorder, outcome.duplicates, outcome.unexpected) == ([], [], [], []), (
            fleet.errors()
        )


@pytest.mark.timeout(120)
async def test_suspended_replica_causes_no_duplicate(
    fork_server: ForkServer, tmp_path: Path, migrated_postgres_url: str
) -> None:
    """It is stopped for four seconds while streaming, beside a second replica."""
    async with Fleet(fork_server, tmp_path, DATABASE_URL=migrated_postgres_url) as fleet:
        users = SimulatedUsers(fleet.telegram, fleet.llm, people=10, pause_s=1.0)
        slow = await fleet.start()
        await slow.wait_for_event("replicas.leadership_acquired")
        await fleet.start()
        for person in users.people:
            users.ask(person)
        await users.wait_for_requests(10)
        slow.signal(signal.SIGSTOP)
        await asyncio.sleep(4)
        slow.signal(signal.SIGCONT)
        await users.wait_until_answered(timeout_s=40)
        outcome = users.outcome(fleet.recorded_answers())
        assert (outcome.lost, outcome.disorder, outcome.duplicates, outcome.unexpected) == ([], [], [], []), (
            fleet.errors()
        )
        assert len(users.requested) == 10, "no request was repeated"
