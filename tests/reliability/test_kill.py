"""SIGKILL at random instants: nothing is lost or reordered, and every duplicate has a known cause."""

import asyncio
import os
import random
import signal
import time
from pathlib import Path

import pytest

from tests.support.processes.fleet import Fleet
from tests.support.processes.fork_server import ForkServer
from tests.support.processes.load import SimulatedUsers, ask_in_waves

PEOPLE, QUESTIONS = 30, 10
MOST_DUPLICATES = 1
"""Extra messages, stray beginnings included, in 300 answers."""
WITHIN_S = 10.0
"""Time within which the jobs and the leadership of a dead replica are taken over."""


def seeded() -> random.Random:
    """Return a random generator with a new seed; a failure shows it, RELIABILITY_SEED repeats it."""
    seed = int(os.environ.get("RELIABILITY_SEED") or random.randrange(10**9))
    print(f"RELIABILITY_SEED={seed}")
    return random.Random(seed)


def assert_consistent(fleet: Fleet, users: SimulatedUsers) -> None:
    """Assert that nothing is lost, reordered or unexplained."""
    outcome = users.outcome(fleet.recorded_answers())
    print(*outcome.duplicates, sep="\n")
    assert outcome.lost == [], fleet.errors()
    assert outcome.disorder == []
    assert outcome.unexplained == []
    assert len(outcome.duplicates) <= MOST_DUPLICATES
    assert outcome.unexpected == []
    assert fleet.rows("SELECT reason FROM dead_letters") == []
    assert fleet.rejected_polls == 0


@pytest.mark.timeout(240)
async def test_sqlite_survives_repeated_kills(fork_server: ForkServer, tmp_path: Path) -> None:
    chance = seeded()
    async with Fleet(fork_server, tmp_path, STREAM_MODE="edit") as fleet:
        fleet.telegram.lag_s = 0.02
        users = SimulatedUsers(fleet.telegram, fleet.llm, people=PEOPLE)
        asking = asyncio.create_task(ask_in_waves(users, QUESTIONS, chance))
        daemon = await fleet.launch()
        for _ in range(4):
            await daemon.wait_for_event("bot.started", timeout_s=60)
            await users.wait_for_answers(chance.randint(10, 50))
            await asyncio.sleep(chance.uniform(0, 0.3))
            users.killed_at.append(await fleet.kill(daemon))
            daemon = await fleet.launch()
        await asking
        await users.wait_until_answered(timeout_s=90)
        assert users.asked == PEOPLE * QUESTIONS
        assert_consistent(fleet, users)


@pytest.mark.timeout(240)
async def test_replica_takes_over_from_a_killed_one(
    fork_server: ForkServer, tmp_path: Path, migrated_postgres_url: str
) -> None:
    """The second polls and runs its jobs within 10 s; after SIGTERM a third one polls as soon."""
    chance = seeded()
    async with Fleet(fork_server, tmp_path, DATABASE_URL=migrated_postgres_url, STREAM_MODE="off") as fleet:
        fleet.telegram.lag_s = 0.02
        users = SimulatedUsers(fleet.telegram, fleet.llm, people=PEOPLE)
        first = await fleet.start()
        await first.wait_for_event("replicas.leadership_acquired")
        second = await fleet.start()
        asking = asyncio.create_task(ask_in_waves(users, QUESTIONS, chance))
        await users.wait_for_answers(chance.randint(30, 60))
        assert not second.events("replicas.leadership_acquired")

        in_flight = fleet.in_flight(first)
        death = await fleet.kill(first)
        users.killed_at.append(death)
        polled = await fleet.wait_for_poll(since=death)
        assert polled - death < WITHIN_S
        await fleet.wait_for_takeover(in_flight, first, timeout_s=WITHIN_S - (polled - death))

        third = await fleet.start()
        left = time.time()
        second.signal(signal.SIGTERM)
        await third.wait_for_event("replicas.leadership_acquired", timeout_s=WITHIN_S)
        assert await fleet.wait_for_poll(since=left) - left < WITHIN_S
        assert await second.wait_for_exit() == 0, second.log[-2000:]
        await asking
        await users.wait_until_answered(timeout_s=90)
        assert users.asked == PEOPLE * QUESTIONS
        assert_consistent(fleet, users)
