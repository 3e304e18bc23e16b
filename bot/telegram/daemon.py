"""The Telegram daemon: startup, serve, shutdown. The composition root builds its parts."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any

import structlog
from aiogram.types import User

from bot.telegram.observability import DaemonPhase, DaemonStatus
from bot.telegram.worker import FairJobPlaces
from core.background import BackgroundTasks, cancel_and_wait, restart_on_error, wait_first
from core.clock import Clock
from core.errors import InboxError, ReplicaReplaced
from services.inbox.inbox import Inbox
from services.inbox.job import JobHandler

log = structlog.get_logger()


REPORT_S = 10.0
"""Longest time that telling the operators about a failure may delay the end of the process."""

FATAL = (InboxError, ReplicaReplaced)
"""Errors of a guard that end the daemon."""

Work = Callable[[], Coroutine[Any, Any, object]]


@dataclass(frozen=True, slots=True)
class Runtime:
    """Everything that processes updates while the daemon serves.

    Args:
        inbox: queues the jobs.
        worker: executes them.
        places: bounds how many run at once.
        receive: takes updates in until cancelled; returns or raises where it cannot go on.
        guards: checks, by task name, that this process may go on; one raises InboxError if its queue cannot work, one
            ReplicaReplaced if another replica has taken over. After another exception a check starts again.
        report_failure: tells the operators why the daemon ends.
        background: work beside it, by task name; it starts again after an exception.
        prepare: runs before the first job.
        on_dead_letter: called with the reason of a job that was given up.
        shutdown_timeout_s: how long running jobs may take to finish at shutdown.
        providers: ids in order of priority, for the log.
    """

    inbox: Inbox
    worker: JobHandler
    places: FairJobPlaces
    receive: Work
    guards: Mapping[str, Work]
    report_failure: Callable[[InboxError], Coroutine[Any, Any, None]]
    background: Mapping[str, Work]
    prepare: Work
    on_dead_letter: Callable[[str], None]
    shutdown_timeout_s: float
    providers: Sequence[str]


class Daemon:
    """Connects to Telegram and processes updates until a stop event.

    Args:
        connect: waits for Telegram and returns the bot's user.
        open_runtime: builds the runtime once the bot is connected.
        status: shows the phase of the daemon.
        clock: times the pauses before failed background work starts again.
    """

    def __init__(
        self,
        connect: Callable[[], Coroutine[Any, Any, User]],
        open_runtime: Callable[[], AbstractAsyncContextManager[Runtime]],
        status: DaemonStatus,
        clock: Clock,
    ) -> None:
        self._connect = connect
        self._open_runtime = open_runtime
        self._status = status
        self._clock = clock
        self._background = BackgroundTasks()

    async def run(self, stop: asyncio.Event) -> int:
        """Runs until the event is set. Returns the exit code.

        Raises:
            StartupError: Telegram refuses the token, another process uses it, or the inbox cannot be opened.
            InboxError: the queue cannot work any more.
            ReplicaReplaced: another replica has taken over.
        """
        user = await self._connected(stop)
        if user is None:
            return 0
        async with self._open_runtime() as runtime:
            await self._startup(runtime, user)
            receiving = asyncio.create_task(runtime.receive(), name="receive")
            guarding = [
                asyncio.create_task(restart_on_error(guard, name, self._clock, fatal=FATAL), name=name)
                for name, guard in runtime.guards.items()
            ]
            try:
                await wait_first(stop, receiving, *guarding)
            finally:
                try:
                    await self._shut_down(runtime, receiving, _first_error(guarding))
                finally:
                    # Last: one of them renews the lease, without which the running jobs could not finish.
                    await cancel_and_wait(*guarding)
            for task in (*guarding, receiving):
                if not task.cancelled():
                    task.result()
        return 0

    async def _connected(self, stop: asyncio.Event) -> User | None:
        """Returns the bot's user, or None if stopped before Telegram answered."""
        connecting = asyncio.create_task(self._connect(), name="connect")
        try:
            await wait_first(stop, connecting)
            return connecting.result() if connecting.done() else None
        finally:
            await cancel_and_wait(connecting)

    async def _startup(self, runtime: Runtime, user: User) -> None:
        await runtime.prepare()
        await runtime.inbox.work(runtime.worker, runtime.on_dead_letter, runtime.places)
        for name, work in runtime.background.items():
            self._background.start(restart_on_error(work, name, self._clock), name)
        self._status.phase = DaemonPhase.SERVING
        log.info("bot.started", username=user.username, providers=runtime.providers)

    async def _shut_down(self, runtime: Runtime, receiving: asyncio.Task[Any], error: BaseException | None) -> None:
        """Stops receiving, lets running jobs finish within the timeout, and hands back the rest.

        Args:
            error: why a guard ends the daemon; the operators are told about a queue that cannot work, and the jobs of
                a replica that was replaced are cancelled at once.
        """
        if isinstance(error, InboxError):
            await _report(runtime, error)
        timeout_s = 0.0 if isinstance(error, ReplicaReplaced) else runtime.shutdown_timeout_s
        self._status.phase = DaemonPhase.STOPPING
        await cancel_and_wait(receiving)
        log.info("bot.stopping", timeout_s=timeout_s)
        runtime.places.close()
        await runtime.inbox.queue.drain(timeout_s)
        await self._background.close()
        log.info("bot.stopped")


def _first_error(tasks: Sequence[asyncio.Task[Any]]) -> BaseException | None:
    return next((task.exception() for task in tasks if task.done() and not task.cancelled()), None)


async def _report(runtime: Runtime, error: InboxError) -> None:
    """Tells the operators, for a bounded time, why the daemon ends."""
    log.error("bot.inbox_failed", reason=str(error))
    try:
        async with asyncio.timeout(REPORT_S):
            await runtime.report_failure(error)
    except Exception as failure:  # noqa: BLE001 - the log has the reason, and the process has to end
        log.warning("bot.failure_not_reported", error=type(failure).__name__)
