"""A real daemon that is attacked, and bystanders: other people who write meanwhile and tell how long they waited."""

import asyncio
import itertools
import os
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
"""The longest wait of a bystander on two cores of their own: docs/security.md."""
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
        self.daemon: Daemon
        self._bystanders = itertools.count(FIRST_BYSTANDER)

    async def __aenter__(self) -> Self:
        await self.fleet.__aenter__()
        self.fleet.llm.default = Act(self._answer)
        return self

    async def __aexit__(self, *arguments: object) -> None:
        await self.fleet.__aexit__(*arguments)

    async def start(self, entry: str = "bot.__main__") -> None:
        """Starts the daemon and has a bystander answered: the first answer imports modules.

        Args:
            entry: module that provides the daemon's `main`.
        """
        self.daemon = await self.fleet.start(entry)
        await self.bystander_waits_s(timeout_s=30)

    async def bystander_waits_s(self, timeout_s: float) -> float:
        """Asks as a person who has not written before.

        Returns:
            The seconds until the complete answer, without those in which the daemon's or the test's event loop could
            have run and had no core, because the machine was busy with other work.
        """
        person = next(self._bystanders)
        began, starved_s = time.monotonic(), self._starved_s()
        self.telegram.user_says(QUESTION, person)
        await self.telegram.wait_for(lambda: self._is_answered(person), timeout_s)
        return time.monotonic() - began - (self._starved_s() - starved_s)

    async def watch(self, bystanders: int, *, apart_s: float = 0.5, patience_s: float = PATIENCE_S) -> list[float]:
        """Lets bystanders write during the attack; asserts that each is answered within `patience_s`.

        Args:
            bystanders: how many write.
            apart_s: pause between two of them.
            patience_s: the longest wait of any.
        """
        waits: list[float] = []
        for _ in range(bystanders):
            waits.append(await self.bystander_waits_s(timeout_s=60))
            await asyncio.sleep(apart_s)
        assert max(waits) < patience_s, f"waits {waits}"
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

    def _starved_s(self) -> float:
        """Returns how long the event loops of the daemon and of the test have waited for a core (Linux)."""
        statistics = [Path(f"/proc/{pid}/schedstat") for pid in (self.daemon.pid, os.getpid())]
        return sum(int(each.read_text().split()[1]) for each in statistics if each.exists()) / 1e9

    def _is_answered(self, person: int) -> Message | None:
        messages = self.telegram.chat(person).answers()
        return next((message for message in messages if RETRY in message.labels and ANSWER in message.text), None)

    async def _answer(self, exchange: Exchange) -> None:
        prompt = told(exchange.request)[-1][1]
        if prompt.startswith(SLOW):
            await answer(pieces=["Well, ", "that takes time."], pause_s=self.slow_s).play(exchange)
        else:
            await answer(ANSWER).play(exchange)
