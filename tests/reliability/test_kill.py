"""kill -9 at random instants: nothing is lost, nothing changes places, and what is there twice is explained."""

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
WITHIN_S = 10.0
"""What a dead replica was doing, and its right to poll, is taken over by then."""


def seeded() -> random.Random:
    """Another seed each time; a failure shows it, and RELIABILITY_SEED repeats it."""
    seed = int(os.environ.get("RELIABILITY_SEED") or random.randrange(10**9))  # noqa: S311 - chance, no secret
    print(f"RELIABILITY_SEED={seed}")  # noqa: T201 - pytest shows it with a failure
    return random.Random(seed)  # noqa: S311 - the same


def prove(fleet: Fleet, crowd: SimulatedUsers) -> None:
    """Everything that must hold in the end, whatever was killed."""
    outcome = crowd.outcome(fleet.noted())
    print(*outcome.duplicates, sep="\n")  # noqa: T201 - counted and explained, for who reads a failure
    assert outcome.lost == [], fleet.tell()
    assert outcome.disorder == []
    assert outcome.unexplained == []
    assert outcome.odd == []
    assert fleet.rows("SELECT reason FROM dead_letters") == []
    assert fleet.polls_refused == 0


@pytest.mark.timeout(240)
async def test_one_process_on_sqlite_killed_again_and_again(nursery: ForkServer, tmp_path: Path) -> None:
    chance = seeded()
    async with Fleet(nursery, tmp_path, STREAM_MODE="edit") as fleet:
        fleet.telegram.lag_s = 0.02
        crowd = SimulatedUsers(fleet.telegram, fleet.llm, people=PEOPLE)
        asking = asyncio.create_task(ask_in_waves(crowd, QUESTIONS, chance))
        daemon = await fleet.launch()
        for _ in range(4):
            await daemon.event("bot.started", timeout_s=60)
            await crowd.some_answered(chance.randint(10, 50))
            await asyncio.sleep(chance.uniform(0, 0.3))
            crowd.deaths.append(await fleet.kill(daemon))
            daemon = await fleet.launch()
        await asking
        await crowd.all_answered(timeout_s=90)
        assert crowd.asked == PEOPLE * QUESTIONS
        prove(fleet, crowd)


@pytest.mark.timeout(240)
async def test_two_replicas_on_postgresql_of_which_one_is_killed(
    nursery: ForkServer, tmp_path: Path, postgres_url: str
) -> None:
    """The other fetches and does its work within 10 s; after SIGTERM a third one fetches as soon."""
    chance = seeded()
    async with Fleet(nursery, tmp_path, DATABASE_URL=postgres_url, STREAM_MODE="off") as fleet:
        fleet.telegram.lag_s = 0.02
        crowd = SimulatedUsers(fleet.telegram, fleet.llm, people=PEOPLE)
        first = await fleet.start()
        await first.event("replicas.leadership_acquired")
        second = await fleet.start()
        asking = asyncio.create_task(ask_in_waves(crowd, QUESTIONS, chance))
        await crowd.some_answered(chance.randint(30, 60))
        assert not second.events("replicas.leadership_acquired")

        in_flight = fleet.in_flight(first)
        death = await fleet.kill(first)
        crowd.deaths.append(death)
        polled = await fleet.polled(since=death)
        assert polled - death < WITHIN_S
        await fleet.taken_up(in_flight, first, timeout_s=WITHIN_S - (polled - death))

        third = await fleet.start()
        left = time.time()
        second.signal(signal.SIGTERM)
        await third.event("replicas.leadership_acquired", timeout_s=WITHIN_S)
        assert await fleet.polled(since=left) - left < WITHIN_S
        assert await second.code() == 0, second.log[-2000:]
        await asking
        await crowd.all_answered(timeout_s=90)
        assert crowd.asked == PEOPLE * QUESTIONS
        prove(fleet, crowd)
