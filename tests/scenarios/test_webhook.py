"""Webhook deliveries: confirmed with 200 once stored, and only with the secret."""

import asyncio
import io
import json
import socket
from typing import Any

import aiohttp
import pytest

from core.errors import StartupError, StorageError
from services.inbox.dbos_queue import JobQueue
from tests.support.bot_harness import FIRST, PERSON, BotHarness

SECRET = "a-word-between-telegram-and-us"
HEADER = "X-Telegram-Bot-Api-Secret-Token"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@pytest.fixture
async def hooked(empty_stage: BotHarness) -> BotHarness:
    """A bot in webhook mode."""
    port = free_port()
    await empty_stage.start(
        TELEGRAM_MODE="webhook",
        TELEGRAM_WEBHOOK_URL=f"http://127.0.0.1:{port}/telegram",
        TELEGRAM_WEBHOOK_SECRET=SECRET,
        WEB_PORT=str(port),
    )
    await empty_stage.until(lambda: empty_stage.telegram.webhook)
    return empty_stage


async def deliver(
    stage: BotHarness, body: object, secret: str | None = SECRET, session: aiohttp.ClientSession | None = None
) -> int:
    """Deliver a body by hand. Returns the status."""
    data = io.BytesIO(body if isinstance(body, bytes) else json.dumps(body).encode())
    headers = {HEADER: secret} if secret is not None else {}
    own = session or aiohttp.ClientSession()
    try:
        async with own.post(stage.settings["TELEGRAM_WEBHOOK_URL"], data=data, headers=headers) as answer:
            return answer.status
    finally:
        if session is None:
            await own.close()


def message(update_id: int, text: str) -> dict[str, Any]:
    person = {"id": PERSON, "is_bot": False, "first_name": "Ann"}
    chat = {"id": PERSON, "type": "private", "first_name": "Ann"}
    return {
        "update_id": update_id,
        "message": {"message_id": update_id, "date": 1, "from": person, "chat": chat, "text": text},
    }


async def test_webhook_delivery_is_answered(hooked: BotHarness) -> None:
    """No polling; Telegram knows the secret and the update types."""
    assert (await hooked.asks("Are you there?")).text == FIRST
    assert not hooked.telegram.calls_of("getUpdates")
    told = hooked.telegram.calls_of("setWebhook")[-1].params
    assert told["secret_token"] == SECRET
    assert "callback_query" in told["allowed_updates"]
    assert not hooked.telegram.calls_of("deleteWebhook")


async def test_webhook_deduplicates_deliveries(hooked: BotHarness) -> None:
    update = message(5000, "Are you there?")
    async with aiohttp.ClientSession() as session:
        statuses = await asyncio.gather(*(deliver(hooked, update, session=session) for _ in range(10)))
        assert statuses == [200] * 10
        await hooked.until(lambda: hooked.chat().texts() == [FIRST])
        assert await deliver(hooked, update, session=session) == 200
    await hooked.quiet()
    assert hooked.chat().texts() == [FIRST]
    assert len(hooked.first.requests) == 1


@pytest.mark.parametrize("secret", [None, "", "another-word", SECRET + "x", SECRET[:-1], "ключ"])
async def test_webhook_rejects_a_wrong_secret(hooked: BotHarness, secret: str | None) -> None:
    assert await deliver(hooked, message(5000, "Are you there?"), secret) == 401
    await hooked.quiet()
    assert not hooked.first.requests
    assert SECRET not in hooked.log


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"\xff\xfe", 400),
        ([], 400),
        # An update of an unknown kind or shape is valid and confirmed.
        ({}, 200),
        ({"update_id": 5001, "novelty": {"id": 1}}, 200),
        ({"update_id": 5001, "message": {"message_id": "x"}}, 200),
        (b" " * (1024 * 1024 + 1), 413),
        # Nested deeply: as a whole, within an update, and only as deep as Python's parser just takes.
        (b"[" * 600_000, 400),
        (b'{"a":' * 120_000 + b"1" + b"}" * 120_000, 400),
        (b'{"update_id": 5001, "message": ' + b"[" * 300_000 + b"]" * 300_000 + b"}", 400),
        (b'{"update_id": 5001, "message": ' + b"[" * 900 + b"]" * 900 + b"}", 400),
    ],
)
async def test_webhook_rejects_invalid_bodies(hooked: BotHarness, body: object, status: int) -> None:
    assert await deliver(hooked, body) == status
    assert (await hooked.asks("Are you there?")).text == FIRST


async def test_webhook_confirms_stored_updates_only(hooked: BotHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    """Telegram delivers the others again."""
    put, refusals = JobQueue.put, []

    async def refuse(queue: JobQueue, jobs: Any) -> Any:
        if len(refusals) < 3:
            refusals.append(jobs)
            raise StorageError("the database failed: its disk is full")
        return await put(queue, jobs)

    monkeypatch.setattr(JobQueue, "put", refuse)
    assert await deliver(hooked, message(5000, "Are you there?")) == 503
    assert (await hooked.asks("Are you there?")).text == FIRST
    assert len(refusals) == 3
    assert len(hooked.first.requests) == 1


async def test_webhook_url_rejected_by_telegram_exits(empty_stage: BotHarness) -> None:
    empty_stage.telegram.fail(
        "setWebhook", 100, status=400, description="Bad Request: bad webhook: IP address is reserved"
    )
    await empty_stage.start(
        TELEGRAM_MODE="webhook",
        TELEGRAM_WEBHOOK_URL="http://10.0.0.1/telegram",
        TELEGRAM_WEBHOOK_SECRET=SECRET,
        WEB_PORT=str(free_port()),
    )
    task = empty_stage.task
    assert task is not None
    await empty_stage.until(task.done)
    with pytest.raises(StartupError, match=r"^TELEGRAM_WEBHOOK_URL: .*IP address is reserved.*example"):
        task.result()


async def test_polling_takes_over_from_a_webhook(hooked: BotHarness) -> None:
    """Undelivered updates are fetched."""
    await hooked.stop()
    hooked.says("Are you there?")
    await hooked.start(TELEGRAM_MODE="polling")
    assert (await hooked.answer()).text == FIRST
    assert hooked.telegram.webhook is None


async def test_webhook_during_shutdown_is_redelivered(hooked: BotHarness) -> None:
    await hooked.stop()
    hooked.says("Are you there?")
    await hooked.quiet(0.2)
    await hooked.start()
    assert (await hooked.answer()).text == FIRST
