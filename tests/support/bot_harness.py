"""The whole bot in this process, with a fake Telegram and two fake providers on loopback.

A scenario acts as a user (`says`, `presses`) and checks the replies (`answer`, `reply`). `close` asserts that
the log contains no message and no secret.
"""

import asyncio
import base64
import io
import json
import logging
import os
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, TypeVar

import structlog
from aiogram.client.session.aiohttp import AiohttpSession
from sqlalchemy import func, select

from bot.composition.services import Services, open_services
from bot.composition.telegram import run_daemon
from core.config.settings import load_settings
from core.db.tables import ThreadRow
from core.observability.log import configure_logging
from tests.support.fake_llm.server import LLMServer, RecordedRequest, answer
from tests.support.fake_telegram.chats import Chat, Message
from tests.support.fake_telegram.server import TOKEN, TelegramServer

T = TypeVar("T")

PERSON = 7
GROUP = -100
ADMIN = 1000
KEYS = {"A_API_KEY": "sk-loopback-first-0123456789", "B_API_KEY": "sk-loopback-second-0123456789"}
STOP, RETRY, ELSEWHERE = "Stop", "Retry", "Retry elsewhere"
FIRST = "This is what the first provider says."
SECOND = "This is what the second provider says."
NAME = "A name for it"
"""The thread name that the providers return."""
LONG = "An answer that is long enough to be shown before it is done, since it has more than eighty characters. "
"""From eighty characters on, the first message of a stream appears at once."""
LEAK_LENGTH = 16
"""A log that contains this many characters of a message in a row has leaked it."""


class BotHarness:
    """The bot, a fake Telegram and two fake providers.

    Args:
        directory: the bot's DATA_DIR.
        settings: environment variables beside those of `environment`.
    """

    def __init__(self, directory: Path, **settings: str) -> None:
        self.telegram = TelegramServer()
        self.first = LLMServer(models=("m", "m2"))
        self.second = LLMServer(models=("n",))
        self.first.default, self.second.default = answer(FIRST), answer(SECOND)
        self.first.naming = self.second.naming = answer(NAME)
        self.directory = directory
        self.settings = settings
        self.services: Services
        self.task: asyncio.Task[int] | None = None
        self._log = io.StringIO()
        self._starts = 0
        self._stack = AsyncExitStack()

    # Lifecycle.

    async def open(self) -> None:
        """Starts Telegram and the providers, but not the bot."""
        await asyncio.gather(self.telegram.start(), self.first.start(), self.second.start())
        configure_logging("debug", "json", stream=self._log)

    async def close(self) -> None:
        """Stops everything and asserts that the log contains no message and no secret."""
        try:
            await self.stop()
        finally:
            await asyncio.gather(self.telegram.stop(), self.first.stop(), self.second.stop())
            structlog.reset_defaults()
            logging.captureWarnings(capture=False)
            for handler in [
                each for each in logging.getLogger().handlers if type(each).__module__ == "core.observability.log"
            ]:
                logging.getLogger().removeHandler(handler)
        for word in self._private_words():
            assert word not in self.log, f"the log contains {word!r}"

    @property
    def environment(self) -> dict[str, str]:
        """The bot's environment variables."""
        return {
            "TELEGRAM_BOT_TOKEN": TOKEN,
            "TELEGRAM_API_BASE_URL": self.telegram.url,
            "AVAILABLE_PROVIDERS": json.dumps({"a": ["m"], "b": ["n"]}),
            "A_BASE_URL": self.first.url,
            "B_BASE_URL": self.second.url,
            "ADMIN_IDS": str(ADMIN),
            "TIMEZONE": "UTC",
            "DATA_DIR": str(self.directory),
            # Answers that a scenario leaves unfinished are not waited for.
            "SHUTDOWN_TIMEOUT": "0.2",
            **KEYS,
            **self.settings,
        }

    async def start(self, **settings: str) -> None:
        """Starts the bot and waits until it serves."""
        self.settings |= settings
        await self.launch()
        await self.stands()

    async def launch(self) -> None:
        """Starts the bot without waiting."""
        self.services = await self._stack.enter_async_context(open_services(load_settings(None, self.environment)))
        self._starts = len(self.events("bot.started")) + 1
        self.task = asyncio.create_task(run_daemon(self.services), name="daemon")

    async def stands(self) -> None:
        """Waits until the bot serves; raises the error that ended its startup."""
        task = self.task
        assert task is not None
        await self.until(lambda: task.done() or len(self.events("bot.started")) == self._starts)
        if task.done():
            task.result()

    async def stop(self) -> int | None:
        """Sends SIGTERM, waits for the end, and returns the exit code; None if the bot did not run or failed."""
        if self.task is not None:
            if not self.task.done():
                os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.wait([self.task], timeout=30)
        task, self.task = self.task, None
        await self._stack.aclose()
        return task.result() if task is not None and not task.cancelled() and task.exception() is None else None

    # User actions.

    def says(self, text: str = "", chat_id: int = PERSON, **more: Any) -> Message:
        """Sends a message as a user; see `TelegramServer.user_says`."""
        return self.telegram.user_says(text, chat_id, **more)

    def presses(self, message: Message, button: str, user_id: int | None = None) -> str:
        """Presses a button as a user and returns the id of the callback query."""
        return self.telegram.presses(message, button, user_id)

    async def asks(self, text: str, chat_id: int = PERSON, **more: Any) -> Message:
        """Sends a message as a user and waits for the complete answer."""
        question = self.says(text, chat_id, **more)
        return await self.answer(chat_id, after=question.id)

    # Replies.

    def chat(self, chat_id: int = PERSON) -> Chat:
        return self.telegram.chat(chat_id)

    async def answer(self, chat_id: int = PERSON, *, after: int | None = None, timeout: float = 30) -> Message:
        """Waits for a complete answer that is newer than the user's last message (or than `after`)."""
        done = {RETRY, "Повторить"}
        return await self.seen(
            lambda message: not done.isdisjoint(message.labels), chat_id, after=after, timeout=timeout
        )

    async def reply(self, chat_id: int = PERSON, *, after: int | None = None) -> Message:
        """Waits for any finished message of the bot that is newer than the user's last one (or than `after`)."""
        return await self.seen(lambda message: STOP not in message.labels, chat_id, after=after)

    async def growing(self, chat_id: int = PERSON, *, after: int | None = None) -> Message:
        """Waits for an answer that is still streamed."""
        return await self.seen(lambda message: message.labels == [STOP], chat_id, after=after)

    async def seen(
        self,
        predicate: Callable[[Message], bool],
        chat_id: int = PERSON,
        *,
        after: int | None = None,
        timeout: float = 30,
    ) -> Message:
        """Waits for a newer message of the bot that satisfies the predicate."""
        if after is None:
            after = max((m.id for m in self.chat(chat_id).visible() if not m.by_bot), default=0)
        since = after

        def found() -> Message | None:
            return next((m for m in self.chat(chat_id).answers() if m.id > since and predicate(m)), None)

        message = await self.until(found, timeout)
        assert message is not None
        return message

    async def toast(self, query_id: str) -> str:
        """Waits until a button press is answered and returns the text of the toast."""
        answered = await self.until(lambda: self.telegram.callback_answers.get(query_id))
        return answered.get("text", "")

    async def until(self, predicate: Callable[[], T], timeout: float = 30) -> T:
        """Waits until the predicate is true; a failure shows the messages and the warnings of the log."""
        try:
            return await self.telegram.wait_for(predicate, timeout)
        except AssertionError as error:
            warnings = [line for line in self.log.splitlines() if '"level": "info"' not in line]
            raise AssertionError(f"{error}\n" + "\n".join(line[:400] for line in warnings[-20:])) from None

    async def named(self, threads: int) -> None:
        """Waits until that many threads have been named; each takes a request of its own."""
        count = select(func.count()).select_from(ThreadRow).where(ThreadRow.name.is_not(None))
        async with asyncio.timeout(8):
            while True:
                async with self.services.infra.database.reading() as session:
                    if await session.scalar(count) == threads:
                        return
                await asyncio.sleep(0.02)

    async def quiet(self, seconds: float = 0.3) -> None:
        """Waits long enough for an unwanted effect to show."""
        await asyncio.sleep(seconds)

    # The log.

    @property
    def log(self) -> str:
        """Everything that was logged, as JSON lines."""
        return self._log.getvalue()

    def events(self, name: str) -> list[dict[str, Any]]:
        """Returns the log entries of that event."""
        return [entry for entry in map(json.loads, self.log.splitlines()) if entry.get("event") == name]

    def _private_words(self) -> Sequence[str]:
        """Returns the beginning of each line of each message, and the secrets."""
        texts = [message.text for chat in self.telegram.chats.values() for message in chat.messages]
        lines = {line.strip() for text in texts for line in text.splitlines()}
        words = [line[:LEAK_LENGTH] for line in lines if len(line) >= LEAK_LENGTH]
        return [TOKEN, TOKEN.partition(":")[2], *KEYS.values(), *words]


def told(request: RecordedRequest) -> list[tuple[str, str]]:
    """Returns the messages of a request as (role, text), without the instructions."""
    messages = [message for message in request.json["messages"] if message["role"] in ("user", "assistant")]
    return [(message["role"], _text_of(message.get("content"))) for message in messages]


def images(server: LLMServer, request: int = -1) -> list[bytes]:
    """Returns the images of a request."""
    content = server.requests[request].json["messages"][-1]["content"]
    urls = [part["image_url"]["url"] for part in content if part["type"] == "image_url"]
    return [base64.b64decode(url.partition("base64,")[2]) for url in urls]


def instructions(request: RecordedRequest) -> str:
    """Returns the instructions of a request."""
    return "\n".join(_text_of(m["content"]) for m in request.json["messages"] if m["role"] in ("system", "developer"))


def _text_of(content: Any) -> str:
    if isinstance(content, list):
        return "".join(part.get("text", f"<{part['type']}>") for part in content)
    return content or ""


async def staged(directory: Path, **settings: str) -> AsyncIterator[BotHarness]:
    """Yields an open harness and closes it."""
    harness = BotHarness(directory, **settings)
    await harness.open()
    try:
        yield harness
    finally:
        await harness.close()


async def close_at_once(session: AiohttpSession) -> None:
    """Closes a session without the quarter of a second that aiogram waits for TLS."""
    if session._session is not None:
        await session._session.close()
