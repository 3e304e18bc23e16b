"""The daemon in a process of its own between loopback servers, and users who write to it."""

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
"""Button under a complete answer."""
TURN_TIMEOUT_S = 900.0
CHECK_S = 0.02
START_TIMEOUT_S = 60.0


class Bot:
    """The daemon and its Bot API server, which runs in this process."""

    def __init__(self, process: Process, telegram: TelegramServer) -> None:
        self.process = process
        self.telegram = telegram
        self._waiting: dict[int, tuple[int, asyncio.Future[None]]] = {}
        """By chat: the id of the user's message, and the future of its answer."""

    @property
    def pid(self) -> int:
        """Process id of the daemon."""
        return self.process.pid

    async def turn(self, chat_id: int) -> None:
        """Write in a private chat and wait for the complete answer."""
        asked = self.telegram.user_says(QUESTION, chat_id).id
        answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[chat_id] = (asked, answered)
        async with asyncio.timeout(TURN_TIMEOUT_S):
            await answered

    async def watch(self) -> None:
        """Resolve the futures of answers that have arrived: one loop for thousands of waiters."""
        while True:
            for chat_id, (asked, answered) in list(self._waiting.items()):
                last = self.telegram.chat(chat_id).messages[-1]
                if last.id > asked and last.by_bot and DONE in last.labels:
                    del self._waiting[chat_id]
                    answered.set_result(None)
            await asyncio.sleep(CHECK_S)

    async def turns(self, chats: Iterable[int], at_once: int, *, apart_s: float = 0) -> None:
        """Run a turn in each chat.

        Args:
            chats: chat ids; a repeated one waits for its previous answer.
            at_once: concurrent users.
            apart_s: pause between the starts of two users.
        """
        remaining = iter(chats)

        async def user(number: int) -> None:
            await asyncio.sleep(number * apart_s)
            for chat_id in remaining:
                await self.turn(chat_id)
                self.telegram.calls.clear()

        await asyncio.gather(*map(user, range(at_once)))


@asynccontextmanager
async def bot(directory: Path, llm_url: str, redis_url: str, **settings: str) -> AsyncIterator[Bot]:
    """Run `python -m bot telegram` with one provider and no rate limit; wait for its first poll."""
    async with TelegramServer() as telegram:
        variables = {**environment(telegram.url, llm_url, directory), "REDIS_URL": redis_url, **settings}
        with (directory / "log").open("wb") as log:
            command = [sys.executable, "-m", "bot", "telegram"]
            async with child(command, variables, directory=directory, stderr=log.fileno()) as process:
                await telegram.wait_for(lambda: telegram.polls, START_TIMEOUT_S)
                daemon = Bot(process, telegram)
                watching = asyncio.create_task(daemon.watch())
                try:
                    yield daemon
                finally:
                    watching.cancel()


def environment(telegram_url: str, llm_url: str, directory: Path) -> Mapping[str, str]:
    """Return the complete environment of the daemon."""
    return {
        "TELEGRAM_BOT_TOKEN": TOKEN,
        "TELEGRAM_API_BASE_URL": telegram_url,
        "AVAILABLE_PROVIDERS": json.dumps({"a": ["m"]}),
        "A_BASE_URL": llm_url,
        "DATA_DIR": str(directory),
        # Its users write as fast as they are answered.
        "LIMIT_MESSAGES_PER_MINUTE": "0",
    }
