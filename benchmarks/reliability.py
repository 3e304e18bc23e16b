"""Daemons that are killed and restarted while many people write: what is lost, out of order or there twice.

Prints a table in Markdown, one row a run. Each run starts real processes against a Bot API server and an LLM server on
loopback, kills one of them again and again with `kill -9` at random instants, and judges in the end what stands in the
chats, what the provider was told, and what the database has.
"""

import argparse
import asyncio
import random
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.processes.fleet import Fleet
from tests.support.processes.fork_server import Daemon, ForkServer
from tests.support.processes.load import LoadOutcome, SimulatedUsers, Why, ask_in_waves
from tests.support.processes.postgres_server import PostgresServer, missing

PATIENCE_S = 600.0
LAG_S = 0.05
"""How long Telegram's answers are under way: what is sent and not yet known is what a crash may double."""


@dataclass
class Run:
    """What was measured in one run."""

    name: str
    outcome: LoadOutcome
    kills: int
    dead_letters: int
    refused_polls: int
    polling_again_s: list[float] = field(default_factory=list)
    """From a kill, or from being ready where the killed one is the only one, to the next poll."""
    working_again_s: list[float] = field(default_factory=list)
    """The same to the moment when nothing is the dead one's any more, or when the first answer is asked for again."""
    seconds: float = 0.0

    def row(self) -> str:
        """A line of the table."""
        outcome = self.outcome
        return " | ".join(
            (
                f"| {self.name}",
                f"{outcome.questions}",
                f"{self.kills}",
                f"{len(outcome.lost)}",
                f"{len(outcome.disorder)}",
                f"{outcome.because(Why.CUT_OFF)}",
                f"{outcome.because(Why.NOT_NOTED)}",
                f"{len(outcome.unexplained)}",
                f"{self.dead_letters}",
                f"{self.refused_polls}",
                _spread(self.polling_again_s),
                f"{_spread(self.working_again_s)} |",
            )
        )


HEAD = """\
| run | updates | kills | lost | out of order | twice: cut off | twice: not noted | twice: unexplained | dead letters \
| two polled at once | polls again after, median (worst) | works again after, median (worst) |
|---|---|---|---|---|---|---|---|---|---|---|---|"""


def _spread(seconds: list[float]) -> str:
    return f"{statistics.median(seconds):.1f} s ({max(seconds):.1f} s)" if seconds else "-"


async def alone(nursery: ForkServer, people: int, questions: int, kills: int, chance: random.Random) -> Run:
    """One process on SQLite, restarted after each kill."""
    with tempfile.TemporaryDirectory() as directory:
        async with Fleet(nursery, Path(directory)) as fleet:
            crowd, asking = _people(fleet, people, questions, chance)
            polling: list[float] = []
            working: list[float] = []
            began = time.monotonic()
            daemon = await fleet.start()
            for _ in range(kills):
                if not await _some(crowd, people * questions, kills, chance):
                    break
                crowd.deaths.append(await fleet.kill(daemon))
                asked = len(crowd.asked_for)
                daemon = await fleet.start()
                ready = time.time()
                polling.append(max(0.0, await fleet.polled(since=crowd.deaths[-1]) - ready))
                await crowd.are_asked_for(asked + 1, timeout_s=30)
                working.append(time.time() - ready)
            await asking
            await crowd.all_answered(PATIENCE_S)
            return _judged("SQLite, one process", fleet, crowd, polling, working, time.monotonic() - began)


async def together(
    nursery: ForkServer, url: str, replicas: int, people: int, questions: int, kills: int, chance: random.Random
) -> Run:
    """Replicas on PostgreSQL, of which the one that polls is killed, and another one started."""
    with tempfile.TemporaryDirectory() as directory:
        async with Fleet(nursery, Path(directory), DATABASE_URL=url) as fleet:
            crowd, asking = _people(fleet, people, questions, chance)
            polling: list[float] = []
            working: list[float] = []
            began = time.monotonic()
            for _ in range(replicas):
                await fleet.start()
            for _ in range(kills):
                if not await _some(crowd, people * questions, kills, chance):
                    break
                leader = await _leader(fleet)
                jobs = fleet.in_flight(leader)
                death = await fleet.kill(leader)
                crowd.deaths.append(death)
                starting = asyncio.create_task(fleet.launch())
                polling.append(await fleet.polled(since=death) - death)
                await fleet.taken_up(jobs, leader, timeout_s=60)
                working.append(time.time() - death)
                await (await starting).event("bot.started", timeout_s=60)
            await asking
            await crowd.all_answered(PATIENCE_S)
            name = f"PostgreSQL, {replicas} replicas"
            return _judged(name, fleet, crowd, polling, working, time.monotonic() - began)


def _people(
    fleet: Fleet, people: int, questions: int, chance: random.Random
) -> tuple[SimulatedUsers, asyncio.Task[None]]:
    fleet.telegram.lag_s = LAG_S
    crowd = SimulatedUsers(fleet.telegram, fleet.llm, people=people)
    return crowd, asyncio.create_task(ask_in_waves(crowd, questions, chance))


async def _some(crowd: SimulatedUsers, total: int, kills: int, chance: random.Random) -> bool:
    """Wait until some more are answered, and a moment that nobody can tell; False where too few are left to kill over.

    While a replica is away the others may answer more than what is waited for here.
    """
    most = total // (kills + 1)
    more = chance.randint(most // 4, most)
    if crowd.answered + more >= total:
        return False
    await crowd.some_answered(more, timeout_s=PATIENCE_S)
    await asyncio.sleep(chance.uniform(0, 0.5))
    return True


async def _leader(fleet: Fleet) -> Daemon:
    """The living replica that took the lead last."""
    while True:
        leads = [(daemon.events("replicas.leadership_acquired")[-1:], daemon) for daemon in fleet.alive]
        found = [(events[0]["timestamp"], daemon) for events, daemon in leads if events]
        if found:
            return max(found, key=lambda each: each[0])[1]
        await asyncio.sleep(0.1)


def _judged(
    name: str, fleet: Fleet, crowd: SimulatedUsers, polling: list[float], working: list[float], seconds: float
) -> Run:
    outcome = crowd.outcome(fleet.noted())
    for fault in [*outcome.lost, *outcome.disorder, *outcome.unexplained, *outcome.odd]:
        print(f"{name}: {fault}", file=sys.stderr)
    if outcome.lost or outcome.unexplained:
        print(fleet.tell(), file=sys.stderr)
    dead = len(fleet.rows("SELECT id FROM dead_letters"))
    return Run(name, outcome, len(crowd.deaths), dead, fleet.polls_refused, polling, working, seconds)


async def main(people: int, questions: int, kills: int, seed: int, replicas: list[int]) -> None:
    """A run for each number of replicas; the table as they end."""
    print(f"seed {seed}, {people} conversations, {questions} questions each\n\n{HEAD}", flush=True)
    chance = random.Random(seed)  # noqa: S311 - chance, no secret
    with ExitStack() as stack:
        nursery = ForkServer()
        stack.callback(nursery.close)
        if 1 in replicas:
            print((await alone(nursery, people, questions, kills, chance)).row(), flush=True)
        if others := [count for count in replicas if count > 1]:
            if reason := missing():
                sys.exit(reason)
            server = PostgresServer()
            stack.callback(server.remove)
            await asyncio.to_thread(server.start)
            for count in others:
                url = await asyncio.to_thread(server.create_database)
                run = await together(nursery, url, count, people, questions, kills, chance)
                print(run.row(), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--people", type=int, default=50)
    parser.add_argument("--questions", type=int, default=20)
    parser.add_argument("--kills", type=int, default=6)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))  # noqa: S311 - as above
    parser.add_argument("--replicas", type=int, nargs="+", default=[1, 2, 3], help="one is SQLite, more PostgreSQL")
    options = parser.parse_args()
    asyncio.run(main(options.people, options.questions, options.kills, options.seed, options.replicas))
