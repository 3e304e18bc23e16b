"""Kills and restarts daemons under load; counts lost, reordered and duplicated answers.

Prints a Markdown table, one row per run. Each run starts real processes against a Bot API server and an LLM server on
loopback, sends SIGKILL to one of them at random instants, and compares the chats, the requests to the provider and the
database in the end.
"""

import argparse
import asyncio
import random
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.processes.fleet import Fleet
from tests.support.processes.fork_server import Daemon, ForkServer
from tests.support.processes.load import DuplicateCause, LoadOutcome, SimulatedUsers, ask_in_waves
from tests.support.processes.postgres_server import PostgresServer, missing

PATIENCE_S = 600.0
LAG_S = 0.05
"""Latency of Telegram's responses: a crash may duplicate a message whose response is under way."""


@dataclass
class Run:
    """Measurements of one run."""

    name: str
    outcome: LoadOutcome
    kills: int
    dead_letters: int
    rejected_polls: int
    polling_again_s: list[float] = field(default_factory=list)
    """Time to the next poll since the kill, or since ready if there is a single process."""
    working_again_s: list[float] = field(default_factory=list)
    """Time until the dead replica's jobs are taken over, or the first answer is requested again."""
    seconds: float = 0.0

    def row(self) -> str:
        """Return a row of the table."""
        outcome = self.outcome
        return " | ".join(
            (
                f"| {self.name}",
                f"{outcome.questions}",
                f"{self.kills}",
                f"{len(outcome.lost)}",
                f"{len(outcome.disorder)}",
                f"{outcome.count_by_cause(DuplicateCause.CUT_OFF)}",
                f"{outcome.count_by_cause(DuplicateCause.NOT_RECORDED)}",
                f"{len(outcome.unexplained)}",
                f"{self.dead_letters}",
                f"{self.rejected_polls}",
                _spread(self.polling_again_s),
                f"{_spread(self.working_again_s)} |",
            )
        )


HEAD = """\
| run | updates | kills | lost | out of order | doubled: cut off | doubled: not recorded \
| doubled: unexplained | dead letters | two pollers at once | polling again after, median (worst) \
| working again after, median (worst) |
|---|---|---|---|---|---|---|---|---|---|---|---|"""


def _spread(seconds: list[float]) -> str:
    return f"{statistics.median(seconds):.1f} s ({max(seconds):.1f} s)" if seconds else "-"


async def run_single(fork_server: ForkServer, people: int, questions: int, kills: int, chance: random.Random) -> Run:
    """Run one process on SQLite, restarted after each kill."""
    with tempfile.TemporaryDirectory() as directory:
        async with Fleet(fork_server, Path(directory)) as fleet:
            users, asking = _start_users(fleet, people, questions, chance)
            polling: list[float] = []
            working: list[float] = []
            began = time.monotonic()
            daemon = await fleet.start()
            for _ in range(kills):
                if not await _wait_before_kill(users, people * questions, kills, chance):
                    break
                users.killed_at.append(await fleet.kill(daemon))
                asked = len(users.requested)
                daemon = await fleet.start()
                ready = time.time()
                polling.append(max(0.0, await fleet.wait_for_poll(since=users.killed_at[-1]) - ready))
                # The last answers may be complete already and need no request.
                with suppress(TimeoutError):
                    await users.wait_for_requests(asked + 1, timeout_s=10)
                    working.append(time.time() - ready)
            await asking
            await users.wait_until_answered(PATIENCE_S)
            return _to_run("SQLite, one process", fleet, users, polling, working, time.monotonic() - began)


async def run_replicas(
    fork_server: ForkServer, url: str, replicas: int, people: int, questions: int, kills: int, chance: random.Random
) -> Run:
    """Run replicas on PostgreSQL; each kill hits the leader and a new replica is started."""
    with tempfile.TemporaryDirectory() as directory:
        async with Fleet(fork_server, Path(directory), DATABASE_URL=url) as fleet:
            users, asking = _start_users(fleet, people, questions, chance)
            polling: list[float] = []
            working: list[float] = []
            began = time.monotonic()
            for _ in range(replicas):
                await fleet.start()
            for _ in range(kills):
                if not await _wait_before_kill(users, people * questions, kills, chance):
                    break
                leader = await _leader(fleet)
                jobs = fleet.in_flight(leader)
                death = await fleet.kill(leader)
                users.killed_at.append(death)
                starting = asyncio.create_task(fleet.launch())
                polling.append(await fleet.wait_for_poll(since=death) - death)
                await fleet.wait_for_takeover(jobs, leader, timeout_s=60)
                working.append(time.time() - death)
                await (await starting).wait_for_event("bot.started", timeout_s=60)
            await asking
            await users.wait_until_answered(PATIENCE_S)
            name = f"PostgreSQL, {replicas} replicas"
            return _to_run(name, fleet, users, polling, working, time.monotonic() - began)


def _start_users(
    fleet: Fleet, people: int, questions: int, chance: random.Random
) -> tuple[SimulatedUsers, asyncio.Task[None]]:
    fleet.telegram.lag_s = LAG_S
    users = SimulatedUsers(fleet.telegram, fleet.llm, people=people)
    return users, asyncio.create_task(ask_in_waves(users, questions, chance))


async def _wait_before_kill(users: SimulatedUsers, total: int, kills: int, chance: random.Random) -> bool:
    """Wait for a random number of answers and a random pause; False if too few questions are left.

    While a replica is down the others may answer more than is waited for.
    """
    most = total // (kills + 1)
    more = chance.randint(most // 4, most)
    if users.answered + more >= total:
        return False
    await users.wait_for_answers(more, timeout_s=PATIENCE_S)
    await asyncio.sleep(chance.uniform(0, 0.5))
    return True


async def _leader(fleet: Fleet) -> Daemon:
    """Return the living replica that became leader last."""
    while True:
        leads = [(daemon.events("replicas.leadership_acquired")[-1:], daemon) for daemon in fleet.alive]
        found = [(events[0]["timestamp"], daemon) for events, daemon in leads if events]
        if found:
            return max(found, key=lambda each: each[0])[1]
        await asyncio.sleep(0.1)


def _to_run(
    name: str, fleet: Fleet, users: SimulatedUsers, polling: list[float], working: list[float], seconds: float
) -> Run:
    outcome = users.outcome(fleet.recorded_answers())
    for fault in [*outcome.lost, *outcome.disorder, *outcome.unexplained, *outcome.unexpected]:
        print(f"{name}: {fault}", file=sys.stderr)
    if outcome.lost or outcome.unexplained:
        print(fleet.errors(), file=sys.stderr)
    dead = len(fleet.rows("SELECT id FROM dead_letters"))
    return Run(name, outcome, len(users.killed_at), dead, fleet.rejected_polls, polling, working, seconds)


async def main(people: int, questions: int, kills: int, seed: int, replicas: list[int]) -> None:
    """Run each number of replicas; print rows as they end."""
    print(f"seed {seed}, {people} conversations, {questions} questions each\n\n{HEAD}", flush=True)
    chance = random.Random(seed)
    with ExitStack() as stack:
        fork_server = ForkServer()
        stack.callback(fork_server.close)
        if 1 in replicas:
            print((await run_single(fork_server, people, questions, kills, chance)).row(), flush=True)
        if others := [count for count in replicas if count > 1]:
            if reason := missing():
                sys.exit(reason)
            server = PostgresServer()
            stack.callback(server.remove)
            await asyncio.to_thread(server.start)
            for count in others:
                url = await asyncio.to_thread(server.create_database)
                run = await run_replicas(fork_server, url, count, people, questions, kills, chance)
                print(run.row(), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--people", type=int, default=50)
    parser.add_argument("--questions", type=int, default=20)
    parser.add_argument("--kills", type=int, default=6)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--replicas", type=int, nargs="+", default=[1, 2, 3], help="one is SQLite, more PostgreSQL")
    options = parser.parse_args()
    asyncio.run(main(options.people, options.questions, options.kills, options.seed, options.replicas))
