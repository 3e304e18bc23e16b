"""A real daemon that is attacked, and bystanders: other people who write meanwhile and tell how long they waited."""

import asyncio
import itertools
import time
from pathlib import Path
from typing import Self

from tests.support.bot_harness import RETRY, told
from tests.support.fake_llm.server import Act, Exchange, answer
from tests.support.fake_telegram.chats import Message
from tests.support.processes.fleet import Fleet
from tests.support.processes.fork_server import Daemon, ForkServer

ATTACKER = 666
PATIENCE_S = 3.0
"""How much longer than before the attack a bystander may wait, on two cores."""
BASELINE = 5
"""Bystanders before the attack."""
FIRST_BYSTANDER = 5001
QUESTION = "Are you there?"
ANSWER = "Yes, I am here."
SLOW = "Slowly, please."


class Attack:
    """A daemon between loopback servers.

    The provider answers bystanders at once, and prompts that begin with `SLOW` after `slow_s`.

    Args:
        directory: the daemon's DATA_DIR.
        settings: environment variables beside those of `Fleet`.
    """

    def __init__(self, fork_server: ForkServer, directory: Path, **settings: str) -> None:
        self.fleet = Fleet(fork_server, directory, **settings)
        self.telegram = self.fleet.telegram
        self.slow_s = 10.0
        self.usual_s = 0.0
        """The longest wait before the attack."""
        self.daemon: Daemon
        self._bystanders = itertools.count(FIRST_BYSTANDER)

    async def __aenter__(self) -> Self:
        await self.fleet.__aenter__()
        self.fleet.llm.default = Act(self._answer)
        return self

    async def __aexit__(self, *arguments: object) -> None:
        await self.fleet.__aexit__(*arguments)

    async def start(self) -> None:
        """Starts the daemon and measures how long bystanders wait when nobody attacks."""
        self.daemon = await self.fleet.start()
        await self.bystander_waits_s(timeout_s=30)
        self.usual_s = max([await self.bystander_waits_s(timeout_s=30) for _ in range(BASELINE)])

    async def bystander_waits_s(self, timeout_s: float) -> float:
        """Asks as a person who has not written before; returns the seconds until the complete answer."""
        person = next(self._bystanders)
        began = time.monotonic()
        self.telegram.user_says(QUESTION, person)
        await self.telegram.wait_for(lambda: self._is_answered(person), timeout_s)
        return time.monotonic() - began

    async def watch(self, bystanders: int, *, apart_s: float = 0.5) -> list[float]:
        """Lets bystanders write during the attack; asserts that none waits much longer than usual.

        Args:
            bystanders: how many write.
            apart_s: pause between two of them.
        """
        waits: list[float] = []
        for _ in range(bystanders):
            waits.append(await self.bystander_waits_s(timeout_s=60))
            await asyncio.sleep(apart_s)
        # A machine that is busy with other work delays everybody alike.
        assert max(waits) < PATIENCE_S + 3 * self.usual_s, f"waits {waits}, usually {self.usual_s}"
        return waits

    @property
    def sent_to_attacker(self) -> list[str]:
        """Texts of the messages that the attacker got."""
        return self.telegram.chat(ATTACKER).texts()

    def assert_healthy(self) -> None:
        """Asserts that the daemon runs, has given up nothing, and logged no exception."""
        assert self.daemon.is_alive
        assert self.daemon.events("inbox.job_dead_lettered") == []
        assert '"exception"' not in self.daemon.log, self.fleet.errors()

    def _is_answered(self, person: int) -> Message | None:
        messages = self.telegram.chat(person).answers()
        return next((message for message in messages if RETRY in message.labels and ANSWER in message.text), None)

    async def _answer(self, exchange: Exchange) -> None:
        prompt = told(exchange.request)[-1][1]
        if prompt.startswith(SLOW):
            await answer(pieces=["Well, ", "that takes time."], pause_s=self.slow_s).play(exchange)
        else:
            await answer(ANSWER).play(exchange)
