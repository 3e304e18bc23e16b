"""Calls to Telegram wait while the lease has lapsed, and fail after the end; their answers build no type twice."""

import asyncio
import gc
import json
import weakref
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl

import pytest
from aiogram import Bot
from aiogram.client.session.aiohttp import AiohttpSession
from aiogram.client.telegram import TelegramAPIServer
from aiogram.exceptions import ClientDecodeError, TelegramNetworkError
from aiogram.methods import (
    BanChatMember,
    EditMessageText,
    GetMe,
    GetUpdates,
    Response,
    RestrictChatMember,
    SendMessage,
    SetMessageReaction,
    SetMyCommands,
    TelegramMethod,
)
from aiogram.types import (
    BotCommand,
    BotCommandScopeChat,
    ChatPermissions,
    InlineKeyboardButton,
    InlineKeyboardMarkup,
    LinkPreviewOptions,
    MessageEntity,
    ReplyParameters,
)
from aiohttp import ClientConnectionError

from bot.telegram.api.session import ApiSession, LeaseGate
from bot.telegram.delivery.delivery import build_edit
from bot.telegram.delivery.outgoing import OutgoingMessage
from bot.telegram.markdown.render import Rendered
from services.inbox.lease import ReplicaLease
from tests.support.clock import ManualClock, settle


async def test_calls_wait_until_the_lease_is_held_again(clock: ManualClock) -> None:
    lease = ReplicaLease(clock.monotonic)
    made: list[object] = []

    async def make(_bot: Bot, method: Any) -> Response[Any]:
        made.append(method)
        return Response(ok=True)

    gate, bot = LeaseGate(lease), Bot("42:AAF-for-no-server-at-all-0123456789abcde")
    await gate(make, bot, GetMe())
    assert len(made) == 1, "held for ever without replicas"
    lease.renew(clock.monotonic() + 5)
    clock.shift(6)
    waiting = asyncio.create_task(gate(make, bot, GetMe()))
    await settle()
    assert len(made) == 1
    lease.renew(clock.monotonic() + 5)
    assert (await waiting).ok
    assert len(made) == 2
    await bot.session.close()


MARKUP = InlineKeyboardMarkup(inline_keyboard=[[InlineKeyboardButton(text="Стоп & +", callback_data="stop:1")]])
ENTITIES = [
    MessageEntity(type="text_link", offset=0, length=2, url="https://example.org/?a=1&b=%20"),
    MessageEntity(type="bold", offset=3, length=1),
]


@pytest.mark.parametrize(
    "method",
    [
        SendMessage(
            chat_id=-100, text="50 % = a+b & “c”;\n~d~", parse_mode=None, entities=ENTITIES, reply_markup=MARKUP,
            link_preview_options=LinkPreviewOptions(is_disabled=True),
            reply_parameters=ReplyParameters(message_id=7, allow_sending_without_reply=True),
        ),
        EditMessageText(chat_id="@group", message_id=2, text="", reply_markup=None),
        BanChatMember(chat_id=-1, user_id=5, until_date=datetime(2026, 11, 29, tzinfo=UTC), revoke_messages=False),
        RestrictChatMember(chat_id=-1, user_id=5, permissions=ChatPermissions(can_send_messages=False)),
        SetMessageReaction(chat_id=1, message_id=2, reaction=[]),
        SetMyCommands(commands=[BotCommand(command="help", description="Ж")], scope=BotCommandScopeChat(chat_id=1)),
        GetUpdates(offset=5, timeout=0, allowed_updates=["message"]),
    ],
    ids=lambda method: type(method).__name__,
)  # fmt: skip
async def test_parameters_are_those_that_aiogram_sends(method: TelegramMethod[Any]) -> None:
    bot = Bot("42:AAF-for-no-server-at-all-0123456789abcde")

    async def sent(session: AiohttpSession) -> dict[str, object]:
        body = session.build_form_data(bot, method)()
        assert body.content_type == "application/x-www-form-urlencoded"
        fields = parse_qsl(body.decode(), keep_blank_values=True, strict_parsing=True)
        await session.close()
        return {name: json.loads(value) if value[:1] in "[{" else value for name, value in fields}

    server = TelegramAPIServer.from_base("http://127.0.0.1:1")
    assert await sent(ApiSession(server)) == await sent(AiohttpSession(api=server))


@pytest.mark.parametrize(("result", "is_accepted"), [('{"message_id": 7}', True), ("true", True), ("[]", False)])
async def test_answer_to_an_edit_is_not_built_as_a_message(result: str, is_accepted: bool) -> None:
    session, bot = ApiSession(TelegramAPIServer.from_base("http://127.0.0.1:1")), Bot("42:AAF-for-no-server-at-all-01")
    edit = build_edit(OutgoingMessage(1, Rendered("text"), message_id=7))
    body = f'{{"ok": true, "result": {result}}}'
    if is_accepted:
        assert session.check_response(bot, edit, 200, body).result == json.loads(result)
    else:
        with pytest.raises(ClientDecodeError):
            session.check_response(bot, edit, 200, body)
    await session.close()


async def test_response_types_outlive_a_collection_of_garbage() -> None:
    session = ApiSession(TelegramAPIServer.from_base("http://127.0.0.1:1"))
    bot = Bot("42:AAF-for-no-server-at-all-0123456789abcde", session)
    me = '{"ok": true, "result": {"id": 42, "is_bot": true, "first_name": "Understudy"}}'
    built = weakref.ref(type(session.check_response(bot, GetMe(), 200, me)))
    gc.collect()
    assert built() is not None
    assert type(session.check_response(bot, GetMe(), 200, me)) is built()
    await session.close()


async def test_call_after_the_end_opens_no_session() -> None:
    """As a look-up makes it that has waited for the lease; aiogram opens another session, which nothing closes."""
    session = ApiSession(TelegramAPIServer.from_base("http://127.0.0.1:1"))
    bot = Bot("42:AAF-for-no-server-at-all-0123456789abcde", session)
    await session.create_session()
    await session.close()
    with pytest.raises(TelegramNetworkError, match="closed"):
        await bot.get_me()
    with pytest.raises(ClientConnectionError):
        await anext(session.stream_content("http://127.0.0.1:1"))
    assert session._session is not None
    assert session._session.closed
