"""Ends and beginnings of one process: SIGTERM, a restart, a long sleep."""

import asyncio
import signal
from pathlib import Path

import pytest

from tests.support.processes.fleet import Fleet
from tests.support.processes.fork_server import ForkServer
from tests.support.processes.load import SimulatedUsers

AGAIN_S = 5.0
"""A restart takes its own work up again by then, once it is ready."""


@pytest.mark.timeout(120)
async def test_sigterm_in_a_busy_moment(nursery: ForkServer, tmp_path: Path) -> None:
    """Answers in flight are finished, what waits behind them is the next process's; the exit code is 0."""
    async with Fleet(nursery, tmp_path, SHUTDOWN_TIMEOUT="20") as fleet:
        crowd = SimulatedUsers(fleet.telegram, fleet.llm, people=10, pause_s=0.5)
        daemon = await fleet.start()
        for person in crowd.people:
            for _ in range(3):
                crowd.asks(person)
        await crowd.are_asked_for(10)
        daemon.signal(signal.SIGTERM)
        await daemon.event("bot.stopping")
        late = crowd.people[0]
        crowd.asks(late)
        assert await daemon.code() == 0, daemon.log[-2000:]
        assert [update["message"]["chat"]["id"] for update in fleet.telegram.pending] == [late], "nobody fetched it"
        assert crowd.answered == len(crowd.asked_for), "what was begun is finished"
        assert 10 <= crowd.answered < crowd.asked, "nothing is begun after that"
        assert daemon.events("inbox.jobs_interrupted") == []
        await fleet.start()
        await crowd.all_answered(timeout_s=40)
        outcome = crowd.outcome(fleet.noted())
        assert (outcome.lost, outcome.disorder, outcome.duplicates, outcome.odd) == ([], [], [], []), fleet.tell()


@pytest.mark.timeout(120)
async def test_a_restart_takes_its_own_work_up_again(nursery: ForkServer, tmp_path: Path) -> None:
    """Within five seconds of being ready, in the messages that the killed process had begun."""
    async with Fleet(nursery, tmp_path) as fleet:
        crowd = SimulatedUsers(fleet.telegram, fleet.llm, people=5, pieces=2, pause_s=30)
        daemon = await fleet.start()
        for person in crowd.people:
            crowd.asks(person)
        await crowd.are_asked_for(5)
        async with asyncio.timeout(20):
            while len(fleet.noted()) < 5:  # noqa: ASYNC110 - a database that tells nobody
                await asyncio.sleep(0.05)
        await fleet.kill(daemon)
        crowd.pause_s = 0
        asked = len(crowd.asked_for)
        daemon = await fleet.start()
        await crowd.are_asked_for(asked + 5, timeout_s=AGAIN_S)
        await crowd.all_answered(timeout_s=20)
        outcome = crowd.outcome(fleet.noted())
        assert (outcome.lost, outcome.disorder, outcome.duplicates, outcome.odd) == ([], [], [], []), fleet.tell()


@pytest.mark.timeout(120)
async def test_a_replica_that_was_only_slow_makes_no_second_answer_appear(
    nursery: ForkServer, tmp_path: Path, postgres_url: str
) -> None:
    """It stands still for four seconds in the middle of its answers while another one looks on."""
    async with Fleet(nursery, tmp_path, DATABASE_URL=postgres_url) as fleet:
        crowd = SimulatedUsers(fleet.telegram, fleet.llm, people=10, pause_s=1.0)
        slow = await fleet.start()
        await slow.event("replicas.leadership_acquired")
        await fleet.start()
        for person in crowd.people:
            crowd.asks(person)
        await crowd.are_asked_for(10)
        slow.signal(signal.SIGSTOP)
        await asyncio.sleep(4)
        slow.signal(signal.SIGCONT)
        await crowd.all_answered(timeout_s=40)
        outcome = crowd.outcome(fleet.noted())
        assert (outcome.lost, outcome.disorder, outcome.duplicates, outcome.odd) == ([], [], [], []), fleet.tell()
        assert len(crowd.asked_for) == 10, "nobody asked again"
