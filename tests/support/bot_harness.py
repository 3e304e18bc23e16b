"""The whole bot on a stage: the daemon in this process, Telegram and two providers on loopback.

A scenario speaks as a person (`says`, `presses`) and looks at what the person would see (`answer`, `reply`). Whatever
is said on the stage must not be in the log: `close` looks for it.
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
"""What the providers call a conversation."""
LONG = "An answer that is long enough to be shown before it is done, since it has more than eighty characters. "
"""Eighty characters make the first message of a stream appear at once."""
TELLING = 16
"""So many characters of a message in a row are no accident in a log."""


class BotHarness:
    """The bot, and everybody whom it talks to.

    Args:
        directory: where the database is.
        settings: environment variables beside what the stage sets.
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

    # The house lights.

    async def open(self) -> None:
        """Everybody takes their places; the bot is not there yet."""
        await asyncio.gather(self.telegram.start(), self.first.start(), self.second.start())
        configure_logging("debug", "json", stream=self._log)

    async def close(self) -> None:
        """End everything, and make sure that the log told nothing of what was said."""
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
            assert word not in self.log, f"the log tells {word!r}"

    @property
    def environment(self) -> dict[str, str]:
        """What the bot is configured by."""
        return {
            "TELEGRAM_BOT_TOKEN": TOKEN,
            "TELEGRAM_API_BASE_URL": self.telegram.url,
            "AVAILABLE_PROVIDERS": json.dumps({"a": ["m"], "b": ["n"]}),
            "A_BASE_URL": self.first.url,
            "B_BASE_URL": self.second.url,
            "ADMIN_IDS": str(ADMIN),
            "DATA_DIR": str(self.directory),
            # Answers that a scenario leaves hanging need not be waited for.
            "SHUTDOWN_TIMEOUT": "0.2",
            **KEYS,
            **self.settings,
        }

    async def start(self, **settings: str) -> None:
        """Start the bot, and wait until it has started."""
        self.settings |= settings
        await self.launch()
        await self.stands()

    async def launch(self) -> None:
        """Start the bot without waiting for anything."""
        self.services = await self._stack.enter_async_context(open_services(load_settings(None, self.environment)))
        self._starts = len(self.events("bot.started")) + 1
        self.task = asyncio.create_task(run_daemon(self.services), name="daemon")

    async def stands(self) -> None:
        """Wait until the bot has started; what keeps it from that is raised."""
        task = self.task
        assert task is not None
        await self.until(lambda: task.done() or len(self.events("bot.started")) == self._starts)
        if task.done():
            task.result()

    async def stop(self) -> int | None:
        """SIGTERM, and everything comes to its end; the exit code where the bot ran."""
        if self.task is not None:
            if not self.task.done():
                os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.wait([self.task], timeout=30)
        task, self.task = self.task, None
        await self._stack.aclose()
        return task.result() if task is not None and not task.cancelled() and task.exception() is None else None

    # What people do.

    def says(self, text: str = "", chat_id: int = PERSON, **more: Any) -> Message:  # noqa: ANN401 - as there
        """A person writes; see `TelegramServer.user_says`."""
        return self.telegram.user_says(text, chat_id, **more)

    def presses(self, message: Message, button: str, user_id: int | None = None) -> str:
        """A person presses a button; the query's id comes back."""
        return self.telegram.presses(message, button, user_id)

    async def asks(self, text: str, chat_id: int = PERSON, **more: Any) -> Message:  # noqa: ANN401 - as above
        """A person writes, and waits for the whole answer."""
        question = self.says(text, chat_id, **more)
        return await self.answer(chat_id, after=question.id)

    # What people see.

    def chat(self, chat_id: int = PERSON) -> Chat:
        return self.telegram.chat(chat_id)

    async def answer(self, chat_id: int = PERSON, *, after: int | None = None, timeout: float = 8) -> Message:  # noqa: ASYNC109 - the test's patience
        """Wait for an answer that is done, newer than the person's last message (or than `after`)."""
        done = {RETRY, "Повторить"}
        return await self.seen(
            lambda message: not done.isdisjoint(message.labels), chat_id, after=after, timeout=timeout
        )

    async def reply(self, chat_id: int = PERSON, *, after: int | None = None) -> Message:
        """Wait for anything that the bot says after the person's last message (or `after`)."""
        return await self.seen(lambda message: STOP not in message.labels, chat_id, after=after)

    async def growing(self, chat_id: int = PERSON, *, after: int | None = None) -> Message:
        """Wait for an answer that is shown while it is being made."""
        return await self.seen(lambda message: message.labels == [STOP], chat_id, after=after)

    async def seen(
        self,
        right: Callable[[Message], bool],
        chat_id: int = PERSON,
        *,
        after: int | None = None,
        timeout: float = 8,  # noqa: ASYNC109 - the test's patience
    ) -> Message:
        """Wait for a message of the bot that is as described, and newer."""
        if after is None:
            after = max((m.id for m in self.chat(chat_id).visible() if not m.by_bot), default=0)
        since = after

        def found() -> Message | None:
            return next((m for m in self.chat(chat_id).answers() if m.id > since and right(m)), None)

        message = await self.until(found, timeout)
        assert message is not None
        return message

    async def toast(self, query_id: str) -> str:
        """Wait until a pressed button is answered; what the passing note says."""
        answered = await self.until(lambda: self.telegram.callback_answers.get(query_id))
        return answered.get("text", "")

    async def until(self, predicate: Callable[[], T], timeout: float = 8) -> T:  # noqa: ASYNC109 - the test's patience
        """Wait until something is true; a failure shows what was said and what went wrong."""
        try:
            return await self.telegram.wait_for(predicate, timeout)
        except AssertionError as error:
            grave = [line for line in self.log.splitlines() if '"level": "info"' not in line]
            raise AssertionError(f"{error}\n" + "\n".join(line[:400] for line in grave[-20:])) from None

    async def named(self, threads: int) -> None:
        """Wait until so many conversations have got their names, each by a request of its own."""
        count = select(func.count()).select_from(ThreadRow).where(ThreadRow.name.is_not(None))
        async with asyncio.timeout(8):
            while True:
                async with self.services.infra.database.reading() as session:
                    if await session.scalar(count) == threads:
                        return
                await asyncio.sleep(0.02)

    async def quiet(self, seconds: float = 0.3) -> None:
        """Give something that must not happen the time to happen."""
        await asyncio.sleep(seconds)

    # What is behind the scenes.

    @property
    def log(self) -> str:
        """Everything that was logged."""
        return self._log.getvalue()

    def events(self, name: str) -> list[dict[str, Any]]:
        """The logged events of that name."""
        return [entry for entry in map(json.loads, self.log.splitlines()) if entry.get("event") == name]

    def _private_words(self) -> Sequence[str]:
        """The beginnings of everything that was said, and what is secret anyway."""
        said = [message.text for chat in self.telegram.chats.values() for message in chat.messages]
        lines = {line.strip() for text in said for line in text.splitlines()}
        words = [line[:TELLING] for line in lines if len(line) >= TELLING]
        return [TOKEN, TOKEN.partition(":")[2], *KEYS.values(), *words]


def told(request: RecordedRequest) -> list[tuple[str, str]]:
    """What a provider was told: who said what, without the instructions."""
    said = [message for message in request.json["messages"] if message["role"] in ("user", "assistant")]
    return [(message["role"], _text_of(message.get("content"))) for message in said]


def images(server: LLMServer, request: int = -1) -> list[bytes]:
    """The pictures in what a provider was sent."""
    content = server.requests[request].json["messages"][-1]["content"]
    urls = [part["image_url"]["url"] for part in content if part["type"] == "image_url"]
    return [base64.b64decode(url.partition("base64,")[2]) for url in urls]


def instructions(request: RecordedRequest) -> str:
    """What a provider was told about its role."""
    return "\n".join(_text_of(m["content"]) for m in request.json["messages"] if m["role"] in ("system", "developer"))


def _text_of(content: Any) -> str:  # noqa: ANN401 - whatever the wire had
    if isinstance(content, list):
        return "".join(part.get("text", f"<{part['type']}>") for part in content)
    return content or ""


async def staged(directory: Path, **settings: str) -> AsyncIterator[BotHarness]:
    """A stage for one test."""
    stage = BotHarness(directory, **settings)
    await stage.open()
    try:
        yield stage
    finally:
        await stage.close()


async def close_at_once(session: AiohttpSession) -> None:
    """Close a session without the quarter of a second that aiogram allows TLS for that."""
    if session._session is not None:
        await session._session.close()
