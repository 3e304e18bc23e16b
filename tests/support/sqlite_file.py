"""Locks the bot's SQLite file as another program would."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path


@asynccontextmanager
async def locked_file(path: Path) -> AsyncIterator[sqlite3.Connection]:
    """Lock the file for writing in another connection; its changes are committed on exit.

    The bot runs in this process and writes in the background: waiting for the lock inside SQLite would block it.
    """
    with closing(sqlite3.connect(path, isolation_level=None, timeout=0)) as other:
        async with asyncio.timeout(5):
            while not _takes_lock(other):
                await asyncio.sleep(0.005)
        yield other
        other.execute("COMMIT")


def _takes_lock(other: sqlite3.Connection) -> bool:
    try:
        other.execute("BEGIN IMMEDIATE")
    except sqlite3.OperationalError:
        return False
    return True
