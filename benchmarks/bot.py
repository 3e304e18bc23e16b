"""The daemon in a process of its own, between loopback servers, and people who write to it over the Bot API."""

import asyncio
import json
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from benchmarks.conversation import QUESTION
from benchmarks.processes import child
from tests.support.fake_telegram.server import TOKEN, TelegramServer

DONE = "Retry"
"""The button under an answer that is all there."""
LONGEST_TURN_S = 900.0
LOOKS_S = 0.02
STARTS_WITHIN_S = 60.0


class Bot:
    """The daemon, and the Bot API server that it talks to.

    Args:
        process: the daemon's.
        telegram: the server, which runs in this process.
    """

    def __init__(self, process: Process, telegram: TelegramServer) -> None:
        self.process = process
        self.telegram = telegram
        self._waiting: dict[int, tuple[int, asyncio.Future[None]]] = {}
        """By chat the message that was written there, and who waits for its answer."""

    @property
    def pid(self) -> int:
        """The id of the daemon's process."""
        return self.process.pid

    async def turn(self, chat_id: int) -> None:
        """Write in a private chat, and wait until the whole answer stands there."""
        asked = self.telegram.user_says(QUESTION, chat_id).id
        answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[chat_id] = (asked, answered)
        async with asyncio.timeout(LONGEST_TURN_S):
            await answered

    async def watch(self) -> None:
        """Tell those who wait for an answer that it is there; one look for all, since there are thousands of them."""
        while True:
            for chat_id, (asked, answered) in list(self._waiting.items()):
                last = self.telegram.chat(chat_id).messages[-1]
                if last.id > asked and last.by_bot and DONE in last.labels:
                    del self._waiting[chat_id]
                    answered.set_result(None)
            await asyncio.sleep(LOOKS_S)

    async def turns(self, chats: Iterable[int], at_once: int, *, apart_s: float = 0) -> None:
        """A turn in each of the chats, so many at a time; a chat that comes again waits for its answer.

        Args:
            chats: where.
            at_once: how many people write.
            apart_s: between two of them who begin.
        """
        left = iter(chats)

        async def visitor(number: int) -> None:
            await asyncio.sleep(number * apart_s)
            for chat_id in left:
                await self.turn(chat_id)
                self.telegram.calls.clear()

        await asyncio.gather(*map(visitor, range(at_once)))


@asynccontextmanager
async def bot(directory: Path, llm_url: str, redis_url: str, **settings: str) -> AsyncIterator[Bot]:
    """`python -m bot telegram` with one provider and otherwise its defaults, once it polls."""
    async with TelegramServer() as telegram:
        variables = {**environment(telegram.url, llm_url, directory), "REDIS_URL": redis_url, **settings}
        with (directory / "log").open("wb") as log:
            command = [sys.executable, "-m", "bot", "telegram"]
            async with child(command, variables, directory=directory, stderr=log.fileno()) as process:
                await telegram.wait_for(lambda: telegram.polls, STARTS_WITHIN_S)
                house = Bot(process, telegram)
                watching = asyncio.create_task(house.watch())
                try:
                    yield house
                finally:
                    watching.cancel()


def environment(telegram_url: str, llm_url: str, directory: Path) -> Mapping[str, str]:
    """What the daemon is configured by, and nothing else."""
    return {
        "TELEGRAM_BOT_TOKEN": TOKEN,
        "TELEGRAM_API_BASE_URL": telegram_url,
        "AVAILABLE_PROVIDERS": json.dumps({"a": ["m"]}),
        "A_BASE_URL": llm_url,
        "DATA_DIR": str(directory),
    }
