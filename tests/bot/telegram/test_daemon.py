"""Daemon: the end of its tasks."""

import asyncio
from contextlib import AbstractAsyncContextManager
from typing import Any

from bot.telegram.daemon import Daemon
from tests.support.clock import ManualClock, settle


async def test_cancelled_daemon_ends_the_attempt_to_connect(clock: ManualClock) -> None:
    """It would go on after the end of the session, and open another one."""
    is_over = False

    async def connect() -> Any:
        nonlocal is_over
        try:
            await asyncio.Event().wait()
        finally:
            is_over = True

    def open_runtime() -> AbstractAsyncContextManager[Any]:
        raise AssertionError("there is no connection")

    status: Any = None  # shown once the daemon is connected
    running = asyncio.create_task(Daemon(connect, open_runtime, status, clock).run(asyncio.Event()))
    await settle()
    running.cancel()
    await asyncio.wait([running])
    assert is_over
