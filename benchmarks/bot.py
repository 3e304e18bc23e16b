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
from tests.support.telegram_server import TOKEN, TelegramServer

DONE = "Retry"
"""The button under an answer that is all there."""
LONGEST_TURN_S = 900.0
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

    @property
    def pid(self) -> int:
        """The id of the daemon's process."""
        return self.process.pid

    async def turn(self, chat_id: int) -> None:
        """Write in a private chat, and wait until the whole answer stands there."""
        asked = self.telegram.user_says(QUESTION, chat_id).id
        chat = self.telegram.chat(chat_id)

        def answered() -> bool:
            last = chat.messages[-1]
            return last.id > asked and last.by_bot and DONE in last.labels

        await self.telegram.wait_for(answered, LONGEST_TURN_S)

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
                yield Bot(process, telegram)


def environment(telegram_url: str, llm_url: str, directory: Path) -> Mapping[str, str]:
    """What the daemon is configured by, and nothing else."""
    return {
        "TELEGRAM_BOT_TOKEN": TOKEN,
        "TELEGRAM_API_BASE_URL": telegram_url,
        "AVAILABLE_PROVIDERS": json.dumps({"a": ["m"]}),
        "A_BASE_URL": llm_url,
        "DATA_DIR": str(directory),
    }
