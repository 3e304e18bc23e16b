"""Sends confirmed broadcasts, one replica at a time, at a fixed pace.

Each served chat is recorded, so that another process resumes where this one ended; only a chat whose message was in
flight may get it twice.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

import structlog

from core.background import cancel_and_wait
from core.clock import Clock
from core.errors import StorageError
from services.admin.broadcasts import Broadcast, BroadcastResult, Broadcasts

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class BroadcastTiming:
    """Pace and intervals of broadcasts, in seconds.

    Args:
        pace_s: pause after each message. Telegram allows a bot 30 a second; answers need some of them.
        card_s: interval at which the progress is shown.
        poll_s: interval at which a process polls for broadcasts that another one started, or left.
        lease_s: time for which a process owns a broadcast after it last renewed its lease.
        last_send_s: time for which shutdown waits for the message in flight.
    """

    pace_s: float = 0.05
    card_s: float = 3.0
    poll_s: float = 5.0
    lease_s: float = 30.0
    last_send_s: float = 3.0


class BroadcastRunner:
    """Sends the broadcasts that are confirmed, one after the other.

    Args:
        send: sends a broadcast to one chat.
        show: shows its progress to the operator.
        owner: names this process among those that share the database.
    """

    def __init__(
        self,
        broadcasts: Broadcasts,
        send: Callable[[Broadcast, int], Awaitable[BroadcastResult]],
        show: Callable[[Broadcast], Awaitable[None]],
        clock: Clock,
        owner: str,
        timing: BroadcastTiming | None = None,
    ) -> None:
        self._broadcasts = broadcasts
        self._send = send
        self._show = show
        self._clock = clock
        self._owner = owner
        self._timing = timing or BroadcastTiming()

    async def run(self) -> None:
        """Sends broadcasts until cancelled."""
        while True:
            self._broadcasts.started.clear()
            try:
                broadcast = await self._broadcasts.claim(self._owner, self._timing.lease_s)
                if broadcast is not None:
                    await self._deliver(broadcast)
                    continue
            except StorageError as error:
                log.warning("broadcast.paused", error=str(error))
            await self._wait()

    async def _wait(self) -> None:
        """Waits for a broadcast that starts here, or for the next poll."""
        waits = [
            asyncio.ensure_future(self._broadcasts.started.wait()),
            asyncio.ensure_future(self._clock.sleep(self._timing.poll_s)),
        ]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await cancel_and_wait(*waits)

    async def _deliver(self, broadcast: Broadcast) -> None:
        log.info("broadcast.running", number=broadcast.id, served=broadcast.served, total=broadcast.total)
        helpers = [
            asyncio.create_task(self._keep(broadcast.id), name="broadcast.lease"),
            asyncio.create_task(self._show_progress(broadcast.id), name="broadcast.progress"),
        ]
        try:
            await self._serve(broadcast)
        finally:
            await cancel_and_wait(*helpers)
        if (ended := await self._broadcasts.get(broadcast.id)) is not None:
            log.info(
                "broadcast.ended", number=ended.id, state=ended.state, sent=ended.sent, blocked=ended.blocked,
                failed=ended.failed,
            )  # fmt: skip
            await self._show(ended)

    async def _serve(self, broadcast: Broadcast) -> None:
        after: int | None = broadcast.last_chat_id
        while after is not None:
            chats, after = await self._broadcasts.recipients(after)
            for chat_id in chats:
                if not await self._serve_chat(broadcast, chat_id):
                    return
                await self._clock.sleep(self._timing.pace_s)
        await self._broadcasts.finish(broadcast.id, self._owner)

    async def _serve_chat(self, broadcast: Broadcast, chat_id: int) -> bool:
        """Serves one chat. Returns whether to continue; a cancellation waits for the message in flight."""
        step = asyncio.create_task(self._send_and_record(broadcast, chat_id), name="broadcast.send")
        try:
            return await asyncio.shield(step)
        except asyncio.CancelledError:
            await asyncio.wait([step], timeout=self._timing.last_send_s)
            raise
        finally:
            step.cancel()

    async def _send_and_record(self, broadcast: Broadcast, chat_id: int) -> bool:
        receipt = await self._send(broadcast, chat_id)
        return await self._broadcasts.record(broadcast.id, self._owner, chat_id, receipt)

    async def _keep(self, number: int) -> None:
        while True:
            await self._clock.sleep(self._timing.lease_s / 3)
            with suppress(StorageError):
                await self._broadcasts.renew(number, self._owner, self._timing.lease_s)

    async def _show_progress(self, number: int) -> None:
        while True:
            await self._clock.sleep(self._timing.card_s)
            with suppress(StorageError):
                if (broadcast := await self._broadcasts.get(number)) is not None:
                    await self._show(broadcast)
