"""Daemons in processes of their own; Telegram and the provider run in the process of the test."""

import asyncio
import contextlib
import itertools
import json
import os
import signal
import sqlite3
import time
from pathlib import Path
from typing import Self

import psycopg

from tests.support.fake_llm.server import LLMServer
from tests.support.fake_telegram.server import TOKEN, TelegramServer
from tests.support.processes.fork_server import Daemon, ForkServer
from tests.support.sqlite_file import place_database

BOT = int(TOKEN.partition(":")[0])


class Fleet:
    """The daemons of one bot.

    Args:
        directory: their shared data directory.
        settings: environment variables of all daemons.
    """

    def __init__(self, fork_server: ForkServer, directory: Path, **settings: str) -> None:
        self.telegram = TelegramServer()
        self.llm = LLMServer(models=("m",))
        self.daemons: list[Daemon] = []
        self._fork_server = fork_server
        self._directory = directory
        self._settings = settings
        self._numbers = itertools.count(1)

    async def __aenter__(self) -> Self:
        if "DATABASE_URL" not in self._settings:
            place_database(self._directory)
        await self.telegram.start()
        await self.llm.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        for daemon in self.daemons:
            daemon.signal(signal.SIGKILL)
        for daemon in self.daemons:
            await daemon.wait_for_exit()
        await self.telegram.stop()
        await self.llm.stop()

    @property
    def alive(self) -> list[Daemon]:
        return [daemon for daemon in self.daemons if daemon.is_alive]

    async def launch(self, entry: str = "bot.__main__", **settings: str) -> Daemon:
        """Start a daemon without waiting for it."""
        environment = {
            "TELEGRAM_BOT_TOKEN": TOKEN,
            "TELEGRAM_API_BASE_URL": self.telegram.url,
            "AVAILABLE_PROVIDERS": json.dumps({"a": ["m"]}),
            "A_BASE_URL": self.llm.url,
            "A_API_KEY": "sk-loopback-0123456789",
            "DATA_DIR": str(self._directory),
            "LOG_FORMAT": "json",
            "PATH": os.environ["PATH"],
            **self._settings,
            **settings,
        }
        log = self._directory / f"daemon-{next(self._numbers)}.log"
        daemon = await self._fork_server.daemon(environment, self._directory, log, entry)
        self.daemons.append(daemon)
        return daemon

    async def start(self, entry: str = "bot.__main__", **settings: str) -> Daemon:
        """Start a daemon and wait until it serves."""
        daemon = await self.launch(entry, **settings)
        await daemon.wait_for_event("bot.started", timeout_s=60)
        return daemon

    async def kill(self, daemon: Daemon) -> float:
        """Send SIGKILL and wait; return the time, as of `time.time`."""
        daemon.signal(signal.SIGKILL)
        await daemon.wait_for_exit()
        return time.time()

    def rows(self, query: str) -> list[tuple[object, ...]]:
        """Return the rows of a query on the daemons' database."""
        url = self._settings.get("DATABASE_URL", "")
        if url:
            with psycopg.connect(url) as connection:
                return connection.execute(query.encode()).fetchall()
        with contextlib.closing(sqlite3.connect(self._directory / "understudy.db", timeout=10)) as file:
            return file.execute(query).fetchall()

    def recorded_answers(self) -> set[tuple[int, int]]:
        """Return (chat id, message id) of the recorded answers."""
        rows = self.rows("SELECT chat_id, message_id FROM answer_messages")
        return {(int(str(chat)), int(str(message))) for chat, message in rows}

    async def wait_for_poll(self, *, since: float, timeout_s: float = 30) -> float:
        """Wait for the first poll that starts after an instant of `time.time`; return its time."""
        return await self.telegram.wait_for(lambda: next(iter(self.telegram.polls_begun(since=since)), 0), timeout_s)

    def in_flight(self, daemon: Daemon) -> set[str]:
        """Return the jobs claimed by a replica."""
        name = daemon.events("replicas.joined")[-1]["replica"]
        pending = self.rows("SELECT workflow_uuid, executor_id FROM dbos.workflow_status WHERE status = 'PENDING'")
        return {str(job) for job, replica in pending if replica == name}

    async def wait_for_takeover(self, jobs: set[str], dead: Daemon, *, timeout_s: float) -> None:
        """Wait until a dead replica has no claim on any of the jobs."""
        deadline = time.monotonic() + timeout_s
        while left := jobs & self.in_flight(dead):
            if time.monotonic() > deadline:
                raise AssertionError(f"{len(left)} of {len(jobs)} jobs were not taken over\n{self.errors()}")
            await asyncio.sleep(0.1)

    def unfinished(self) -> int:
        """Return the number of unfinished jobs; PostgreSQL only."""
        query = "SELECT count(*) FROM dbos.workflow_status WHERE status IN ('ENQUEUED', 'PENDING')"
        return int(str(self.rows(query)[0][0]))

    @property
    def rejected_polls(self) -> int:
        """Number of polls rejected because two processes polled at once."""
        return sum(call.status == 409 and not call.is_cut_off for call in self.telegram.calls_of("getUpdates"))

    def errors(self) -> str:
        """Return the last warnings and errors logged, short enough for an assertion."""
        lines = [
            line[:600]
            for daemon in self.daemons
            for line in daemon.log.splitlines()
            if '"level": "info"' not in line and '"logger": "dbos"' not in line
        ]
        return "\n".join(lines[-40:])
