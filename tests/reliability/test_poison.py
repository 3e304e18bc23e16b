"""One update that no process survives, and one that no handler can do, among healthy ones."""

import asyncio
import contextlib
import signal
import sqlite3
import time
from pathlib import Path

import pytest

from tests.support.bot_harness import told
from tests.support.fake_llm.server import Exchange
from tests.support.processes.fleet import Fleet
from tests.support.processes.fork_server import ForkServer
from tests.support.processes.load import SimulatedUsers

POISONER = 666
TRIES = 1 + 2 + 3
"""Begun once, twice again beside others, three times alone."""


@pytest.mark.timeout(240)
async def test_what_kills_the_process_is_given_up_and_takes_nobody_along(nursery: ForkServer, tmp_path: Path) -> None:
    """Whoever asks the provider this one question dies of it, like a process that runs out of memory over it."""
    async with Fleet(nursery, tmp_path) as fleet:
        crowd = SimulatedUsers(fleet.telegram, fleet.llm, people=8, pause_s=0.3)
        deadly = 0

        async def poison(exchange: Exchange) -> None:
            nonlocal deadly
            if told(exchange.request)[-1][1] != "Poison":
                return
            deadly += 1
            crowd.deaths.append(time.time())
            for daemon in fleet.alive:
                daemon.signal(signal.SIGKILL)
            await exchange.hang()

        crowd.before = poison
        daemon = await fleet.launch()
        for person in crowd.people[:4]:
            crowd.asks(person)
        fleet.telegram.user_says("Poison", POISONER)
        for person in crowd.people[4:]:
            crowd.asks(person)
        for _ in range(TRIES):
            assert await daemon.code(timeout_s=60) == -signal.SIGKILL
            daemon = await fleet.launch()
            crowd.asks(crowd.people[deadly % len(crowd.people)])
        await crowd.all_answered(timeout_s=60)
        apologies = await fleet.telegram.wait_for(lambda: fleet.telegram.chat(POISONER).texts(), 60)
        await daemon.event("inbox.job_dead_lettered")
        assert daemon.is_alive
        assert deadly == TRIES
        assert len(apologies) == 1, apologies
        assert apologies[0].startswith("Something went wrong on our side")
        async with asyncio.timeout(10):
            while not fleet.rows("SELECT reason FROM dead_letters"):  # noqa: ASYNC110 - a database that tells nobody
                await asyncio.sleep(0.05)
        letters = fleet.rows("SELECT lane, reason FROM dead_letters")
        assert letters == [(f"telegram:{POISONER}:0", "the process died each time this job ran")]
        outcome = crowd.outcome(fleet.noted())
        assert (outcome.lost, outcome.disorder, outcome.unexplained, outcome.odd) == ([], [], [], []), fleet.tell()
        crowd.before = None
        fleet.telegram.user_says("And now?", POISONER)
        await fleet.telegram.wait_for(lambda: len(fleet.telegram.chat(POISONER).texts()) == 2, 20)


@pytest.mark.timeout(120)
async def test_what_always_fails_is_given_up_and_its_user_told_once(nursery: ForkServer, tmp_path: Path) -> None:
    """The database refuses what one chat wants of it."""
    async with Fleet(nursery, tmp_path) as fleet:
        crowd = SimulatedUsers(fleet.telegram, fleet.llm, people=5)
        daemon = await fleet.start("tests.support.processes.short_lease_daemon")
        with contextlib.closing(sqlite3.connect(tmp_path / "understudy.db", timeout=10)) as file, file:
            file.execute(
                "CREATE TRIGGER poison BEFORE INSERT ON threads "
                f"WHEN NEW.chat_id = {POISONER} BEGIN SELECT RAISE(ABORT, 'no'); END"
            )
        crowd.asks(crowd.people[0])
        fleet.telegram.user_says("/new", POISONER)
        for person in crowd.people:
            crowd.asks(person)
        await crowd.all_answered(timeout_s=20)
        apologies = await fleet.telegram.wait_for(lambda: fleet.telegram.chat(POISONER).texts(), 40)
        await daemon.event("inbox.job_dead_lettered")
        pauses = [failed["retry_in_s"] for failed in daemon.events("inbox.job_failed")]
        assert pauses == [0.5, 2.0, 8.0, 30.0, None]
        await asyncio.sleep(0.5)
        assert len(apologies) == 1, apologies
        assert apologies[0].startswith("The database is unavailable right now")
        letters = fleet.rows("SELECT lane, reason FROM dead_letters")
        assert letters == [(f"telegram:{POISONER}:0", "the database failed: it refused the statement")]
        outcome = crowd.outcome(fleet.noted())
        assert (outcome.lost, outcome.disorder, outcome.duplicates, outcome.odd) == ([], [], [], []), fleet.tell()
