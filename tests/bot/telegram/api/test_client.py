"""Bot API client: startup against servers of every kind, and the command menus."""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
from aiogram.exceptions import ClientDecodeError, TelegramAPIError, TelegramRetryAfter
from aiohttp import web
from structlog.testing import capture_logs

from bot.telegram.api.client import KnownBot, connect, create_bot, publish_commands
from bot.telegram.api.errors import describe_api_error
from core.background import cancel_and_wait
from core.errors import StartupError
from core.i18n import Texts
from tests.support.clock import ManualClock, settle, until
from tests.support.fake_telegram.chats import bad
from tests.support.fake_telegram.server import TOKEN, TelegramServer
from tests.support.processes.redis_server import free_port

pytestmark = pytest.mark.integration


@pytest.fixture
async def bot(server: TelegramServer) -> AsyncIterator[KnownBot]:
    bot = create_bot(TOKEN, server.url)
    yield bot
    # Skips the 0.25 s that aiogram waits for TLS.
    await (await bot.session.create_session()).close()


async def test_connect_caches_the_identity(bot: KnownBot, server: TelegramServer, clock: ManualClock) -> None:
    assert (await connect(bot, clock)).username == "understudy_bot"
    assert (await bot.me()).id == 42
    assert len(server.calls_of("getMe")) == 1


async def test_me_requests_the_identity_before_connect(bot: KnownBot) -> None:
    assert (await bot.me()).username == "understudy_bot"


@pytest.mark.parametrize(
    ("method", "body"),
    [
        # Fields that aiogram requires are missing.
        ("getMe", '{"ok": true, "result": {"id": 42, "username": "understudy_bot"}}'),
        ("deleteWebhook", '{"ok": true, "result": null}'),
    ],
)
async def test_connect_accepts_responses_of_compatible_servers(
    bot: KnownBot, server: TelegramServer, clock: ManualClock, method: str, body: str
) -> None:
    server.garble(method, 100, body=body)
    assert (await connect(bot, clock)).username == "understudy_bot"
    assert (await bot.me()).id == 42


async def test_connect_accepts_a_server_without_webhooks(
    bot: KnownBot, server: TelegramServer, clock: ManualClock
) -> None:
    server.unknown_methods.add("deleteWebhook")
    assert (await connect(bot, clock)).id == 42


@pytest.mark.parametrize(("status", "description"), [(401, "Unauthorized"), (404, "Not Found")])
async def test_connect_raises_startup_error_for_a_rejected_token(
    bot: KnownBot, server: TelegramServer, clock: ManualClock, status: int, description: str
) -> None:
    server.fail("getMe", status=status, description=description)
    with pytest.raises(StartupError, match=r"^TELEGRAM_BOT_TOKEN: .*, for example TELEGRAM_BOT_TOKEN="):
        await connect(bot, clock)


@pytest.mark.parametrize("method", ["getMe", "deleteWebhook"])
async def test_connect_retries_with_backoff(
    bot: KnownBot, server: TelegramServer, clock: ManualClock, method: str
) -> None:
    """1 s, then 2 s; after a 429 its `retry_after`."""
    server.fail(method, 2, status=502, description="Bad Gateway")
    server.fail(method, 1, status=429, description="Too Many Requests: retry after 40", retry_after=40)
    connecting = asyncio.create_task(connect(bot, clock))
    for attempt, pause in enumerate((1, 2, 40), start=1):
        await server.wait_for(lambda attempt=attempt: len(server.calls_of(method)) == attempt and clock._sleepers)
        await clock.advance(pause - 0.1)
        assert len(server.calls_of(method)) == attempt
        await clock.advance(0.1)
    assert (await asyncio.wait_for(connecting, 5)).id == 42


async def test_connect_retries_after_an_html_response(
    bot: KnownBot, server: TelegramServer, clock: ManualClock
) -> None:
    server.garble("getMe")
    connecting = asyncio.create_task(connect(bot, clock))
    await server.wait_for(lambda: clock._sleepers)
    await clock.advance(1)
    assert (await asyncio.wait_for(connecting, 5)).id == 42


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ("{url}/bot", "not an answer of the Bot API"),  # a path that the client appends itself
        ("http://127.0.0.1:{port}", "connection refused"),
        ("https://127.0.0.1:{port_of_server}", "TLS failed"),
        ("http://no-such-host.invalid", "host not found"),
    ],
)
async def test_connect_logs_why_an_address_does_not_work(
    server: TelegramServer, clock: ManualClock, wrong: str, reason: str
) -> None:
    """In words, without the token, which is a part of each address."""
    port_of_server = server.url.rpartition(":")[2]
    bot = create_bot(TOKEN, wrong.format(url=server.url, port=free_port(), port_of_server=port_of_server))
    with capture_logs() as logs:
        connecting = asyncio.create_task(connect(bot, clock))
        await until(lambda: clock._sleepers)
        await cancel_and_wait(connecting)
    await (await bot.session.create_session()).close()
    assert [(entry["event"], entry["reason"]) for entry in logs] == [("telegram.unreachable", reason)]


@pytest.mark.parametrize(
    "body",
    [
        '{"ok": true, "result": null}',
        '{"ok": true, "result": []}',
        '{"ok": true}',
        '{"ok": false}',
        '{"ok": false, "description": null, "error_code": 1e400}',
        "[null]",
        "",
        "[" * 100_000,
    ],
)
async def test_connect_retries_after_an_unusable_response(
    bot: KnownBot, server: TelegramServer, clock: ManualClock, body: str
) -> None:
    server.garble("getMe", body=body)
    connecting = asyncio.create_task(connect(bot, clock))
    await server.wait_for(lambda: clock._sleepers)
    await clock.advance(1)
    assert (await asyncio.wait_for(connecting, 5)).id == 42


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, b'{"ok": true, "result": null}'),
        (200, b"\xff\xfe"),
        (500, b'{"ok": false}'),
        (500, b'{"ok": false, "description": null}'),
        (400, b'{"ok": false}'),
        (200, b'{"ok": true, "result": ' + b"9" * 5000 + b"}"),
    ],
)
async def test_call_with_an_unusable_answer_raises_an_error_of_the_client(
    bot: KnownBot, server: TelegramServer, status: int, body: bytes
) -> None:
    """Callers handle these; any other exception counts as a bug."""
    fault = server.garble("sendMessage")
    fault.act = lambda: web.Response(status=status, body=body, content_type="application/json", charset="utf-8")
    with pytest.raises((TelegramAPIError, ClientDecodeError)) as caught:
        await bot.send_message(7, "hello")
    assert isinstance(describe_api_error(caught.value), str)


@pytest.mark.parametrize(("asked", "kept"), [(-5, 1), (7, 7), (10**18, 24 * 3600)])
async def test_pause_that_telegram_asks_for_is_bounded(
    bot: KnownBot, server: TelegramServer, asked: int, kept: int
) -> None:
    server.fail("sendMessage", status=429, description="Too Many Requests", retry_after=asked)
    with pytest.raises(TelegramRetryAfter) as caught:
        await bot.send_message(7, "hello")
    assert caught.value.retry_after == kept


async def test_menus_are_published_in_every_language(bot: KnownBot, server: TelegramServer) -> None:
    await publish_commands(bot, Texts(strict=True))
    shown = {
        call.params.get("language_code"): json.loads(call.params["commands"])[0]["description"]
        for call in server.calls_of("setMyCommands")
    }
    assert shown == {None: "start a new conversation", "ru": "начать новый разговор"}


async def test_server_without_command_menus_is_asked_once(bot: KnownBot, server: TelegramServer) -> None:
    server.unknown_methods.add("setMyCommands")
    await publish_commands(bot, Texts(strict=True))
    await settle()
    assert len(server.calls_of("setMyCommands")) == 1


async def test_an_operator_without_a_chat_keeps_no_other_from_a_menu(bot: KnownBot, server: TelegramServer) -> None:
    """Telegram knows no chat with an operator who has not written to the bot yet."""
    server.chat(8).refusal = bad("chat not found")
    await publish_commands(bot, Texts(strict=True), [9, 8])
    scopes = [json.loads(call.params.get("scope") or "{}") for call in server.calls_of("setMyCommands")]
    assert [scope.get("chat_id") for scope in scopes if scope.get("type") == "chat"] == [8, 9, 9]
