"""Daemons as processes of their own, with Telegram and the provider they talk to in the process of the test."""

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

BOT = int(TOKEN.partition(":")[0])


class Fleet:
    """The daemons of one bot.

    Args:
        nursery: starts them.
        directory: where each has a folder, or all the same one.
        settings: environment variables of all of them.
    """

    def __init__(self, nursery: ForkServer, directory: Path, **settings: str) -> None:
        self.telegram = TelegramServer()
        self.llm = LLMServer(models=("m",))
        self.daemons: list[Daemon] = []
        self._nursery = nursery
        self._directory = directory
        self._settings = settings
        self._numbers = itertools.count(1)

    async def __aenter__(self) -> Self:
        await self.telegram.start()
        await self.llm.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        for daemon in self.daemons:
            daemon.signal(signal.SIGKILL)
        for daemon in self.daemons:
            await daemon.code()
        await self.telegram.stop()
        await self.llm.stop()

    @property
    def alive(self) -> list[Daemon]:
        return [daemon for daemon in self.daemons if daemon.is_alive]

    async def launch(self, entry: str = "bot.__main__", **settings: str) -> Daemon:
        """Start a daemon without waiting for anything."""
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
        daemon = await self._nursery.daemon(environment, self._directory, log, entry)
        self.daemons.append(daemon)
        return daemon

    async def start(self, entry: str = "bot.__main__", **settings: str) -> Daemon:
        """Start a daemon, and wait until it has started."""
        daemon = await self.launch(entry, **settings)
        await daemon.event("bot.started", timeout_s=60)
        return daemon

    async def kill(self, daemon: Daemon) -> float:
        """`kill -9`; when that was, on the clock of `time.time`."""
        daemon.signal(signal.SIGKILL)
        await daemon.code()
        return time.time()

    def rows(self, query: str) -> list[tuple[object, ...]]:
        """What a query gives, in the database that the daemons share."""
        url = self._settings.get("DATABASE_URL", "")
        if url:
            with psycopg.connect(url) as connection:
                return connection.execute(query.encode()).fetchall()
        with contextlib.closing(sqlite3.connect(self._directory / "understudy.db", timeout=10)) as file:
            return file.execute(query).fetchall()

    def noted(self) -> set[tuple[int, int]]:
        """Chat and message ids of the answers that the bot knows of."""
        rows = self.rows("SELECT chat_id, message_id FROM answer_messages")
        return {(int(str(chat)), int(str(message))) for chat, message in rows}

    async def polled(self, *, since: float, timeout_s: float = 30) -> float:
        """Wait until somebody begins to fetch updates after an instant of `time.time`; when that was."""
        return await self.telegram.wait_for(lambda: next(iter(self.telegram.polls_begun(since=since)), 0), timeout_s)

    def in_flight(self, daemon: Daemon) -> set[str]:
        """The jobs that a replica is doing."""
        name = daemon.events("replicas.joined")[-1]["replica"]
        pending = self.rows("SELECT workflow_uuid, executor_id FROM dbos.workflow_status WHERE status = 'PENDING'")
        return {str(job) for job, replica in pending if replica == name}

    async def taken_up(self, jobs: set[str], dead: Daemon, *, timeout_s: float) -> None:
        """Wait until none of some jobs is a dead replica's any more."""
        deadline = time.monotonic() + timeout_s
        while left := jobs & self.in_flight(dead):
            if time.monotonic() > deadline:
                raise AssertionError(f"{len(left)} of {len(jobs)} jobs were not taken up\n{self.tell()}")
            await asyncio.sleep(0.1)

    def unfinished(self) -> int:
        """How many jobs wait or are being done, on PostgreSQL."""
        query = "SELECT count(*) FROM dbos.workflow_status WHERE status IN ('ENQUEUED', 'PENDING')"
        return int(str(self.rows(query)[0][0]))

    @property
    def polls_refused(self) -> int:
        """How often two living processes polled at once."""
        return sum(call.status == 409 and not call.is_cut_off for call in self.telegram.calls_of("getUpdates"))

    def tell(self) -> str:
        """What went wrong, short enough for a failed assertion."""
        grave = [
            line[:600]
            for daemon in self.daemons
            for line in daemon.log.splitlines()
            if '"level": "info"' not in line and '"logger": "dbos"' not in line
        ]
        return "\n".join(grave[-40:])
