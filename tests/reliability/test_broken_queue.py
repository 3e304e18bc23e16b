"""A queue that cannot work: not ready, told to the admins, and the end of the process."""

import asyncio
import contextlib
import re
import sqlite3
from pathlib import Path

import pytest

from tests.support.processes.fleet import Fleet
from tests.support.processes.fork_server import ForkServer
from tests.support.processes.redis_server import free_port
from tests.support.web_client import WebClient

ADMIN = 77


@pytest.mark.timeout(120)
async def test_daemon_with_a_broken_queue_ends_with_one_line(fork_server: ForkServer, tmp_path: Path) -> None:
    """Each start of a supervisor ends the same way, and the admins are told once."""
    port = free_port()
    settings = {"ADMIN_IDS": str(ADMIN), "WEB_PORT": str(port)}
    async with Fleet(fork_server, tmp_path, **settings) as fleet:
        daemon = await fleet.start()
        with contextlib.closing(sqlite3.connect(tmp_path / "inbox.db", timeout=10)) as file, file:
            file.execute("CREATE TRIGGER no BEFORE UPDATE ON workflow_status BEGIN SELECT RAISE(ABORT, 'no'); END")
        fleet.telegram.user_says("Hello", 5)
        unready = await WebClient(port).becomes("/readyz", 503)
        assert unready.json["parts"]["bot"].startswith("the queue does not work: poll failed")
        assert await daemon.wait_for_exit(timeout_s=30) == 1
        [line] = [line for line in daemon.log.splitlines() if not line.startswith("{")]
        # A further poll may fail before the health of the queue is looked at.
        expected = r"the inbox cannot work, so no message would be answered: poll failed [5-9] times in a row"
        assert re.match(expected, line)
        assert "SQLITE_CONSTRAINT" in line
        again = await fleet.launch()
        assert await again.wait_for_exit(timeout_s=30) == 1
        [notice] = fleet.telegram.chat(ADMIN).texts()
        assert notice.startswith("I have to stop: the inbox cannot work")
        with contextlib.closing(sqlite3.connect(tmp_path / "inbox.db", timeout=10)) as file, file:
            file.execute("DROP TRIGGER no")
        await fleet.start()
        async with asyncio.timeout(20):
            while not fleet.telegram.chat(5).texts():
                await asyncio.sleep(0.05)
