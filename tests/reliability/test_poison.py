"""An update that kills every process, and one that no handler can process, among healthy ones."""

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

POISON_USER = 666
RUNS = 1 + 2 + 3
"""One first run, two concurrent restarts, three isolated runs."""


@pytest.mark.timeout(240)
async def test_update_that_kills_the_process_becomes_a_dead_letter(fork_server: ForkServer, tmp_path: Path) -> None:
    """The process that sends this prompt to the provider is killed, as if it ran out of memory."""
    async with Fleet(fork_server, tmp_path) as fleet:
        users = SimulatedUsers(fleet.telegram, fleet.llm, people=8, pause_s=0.3)
        kills = 0

        async def poison(exchange: Exchange) -> None:
            nonlocal kills
            if told(exchange.request)[-1][1] != "Poison":
                return
            kills += 1
            users.killed_at.append(time.time())
            for daemon in fleet.alive:
                daemon.signal(signal.SIGKILL)
            await exchange.hang()

        users.on_request = poison
        daemon = await fleet.launch()
        for person in users.people[:4]:
            users.ask(person)
        fleet.telegram.user_says("Poison", POISON_USER)
        for person in users.people[4:]:
            users.ask(person)
        for _ in range(RUNS):
            assert await daemon.wait_for_exit(timeout_s=60) == -signal.SIGKILL
            daemon = await fleet.launch()
            users.ask(users.people[kills % len(users.people)])
        await users.wait_until_answered(timeout_s=60)
        notices = await fleet.telegram.wait_for(lambda: fleet.telegram.chat(POISON_USER).texts(), 60)
        await daemon.wait_for_event("inbox.job_dead_lettered")
        assert daemon.is_alive
        assert kills == RUNS
        assert len(notices) == 1, notices
        assert notices[0].startswith("Something went wrong on our side")
        async with asyncio.timeout(10):
            while not fleet.rows("SELECT reason FROM dead_letters"):
                await asyncio.sleep(0.05)
        letters = fleet.rows("SELECT lane, reason FROM dead_letters")
        assert letters == [(f"telegram:{POISON_USER}:0", "the process died each time this job ran")]
        outcome = users.outcome(fleet.recorded_answers())
        assert (outcome.lost, outcome.disorder, outcome.unexplained, outcome.unexpected) == ([], [], [], []), (
            fleet.errors()
        )
        users.on_request = None
        fleet.telegram.user_says("And now?", POISON_USER)
        await fleet.telegram.wait_for(lambda: len(fleet.telegram.chat(POISON_USER).texts()) == 2, 20)


@pytest.mark.timeout(120)
async def test_update_that_always_fails_becomes_a_dead_letter_with_one_notice(
    fork_server: ForkServer, tmp_path: Path
) -> None:
    """The database rejects the writes of one chat."""
    async with Fleet(fork_server, tmp_path) as fleet:
        users = SimulatedUsers(fleet.telegram, fleet.llm, people=5)
        daemon = await fleet.start("tests.support.processes.fast_daemon")
        with contextlib.closing(sqlite3.connect(tmp_path / "understudy.db", timeout=10)) as file, file:
            file.execute(
                "CREATE TRIGGER poison BEFORE INSERT ON threads "
                f"WHEN NEW.chat_id = {POISON_USER} BEGIN SELECT RAISE(ABORT, 'no'); END"
            )
        users.ask(users.people[0])
        fleet.telegram.user_says("/new", POISON_USER)
        for person in users.people:
            users.ask(person)
        await users.wait_until_answered(timeout_s=20)
        notices = await fleet.telegram.wait_for(lambda: fleet.telegram.chat(POISON_USER).texts(), 40)
        await daemon.wait_for_event("inbox.job_dead_lettered")
        pauses = [failed["retry_in_s"] for failed in daemon.events("inbox.job_failed")]
        assert pauses == [0.5, 2.0, 8.0, 30.0, None]
        await asyncio.sleep(0.5)
        assert len(notices) == 1, notices
        assert notices[0].startswith("The database is unavailable right now")
        letters = fleet.rows("SELECT lane, reason FROM dead_letters")
        assert letters == [(f"telegram:{POISON_USER}:0", "the database failed: it refused the statement")]
        outcome = users.outcome(fleet.recorded_answers())
        assert (outcome.lost, outcome.disorder, outcome.duplicates, outcome.unexpected) == ([], [], [], []), (
            fleet.errors()
        )
