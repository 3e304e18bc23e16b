"""Sanctions through the Bot API, and the classification of their errors."""

import pytest
from aiogram.exceptions import TelegramBadRequest
from aiogram.methods import DeleteMessage

from bot.telegram.delivery.delivery import Delivery
from bot.telegram.moderation.sanctions import GroupSanctions, classify_sanction_error
from services.moderation.domain.message import AuthorKind
from services.moderation.domain.ports import ActionResult
from tests.support.clock import ManualClock
from tests.support.fake_telegram.server import TelegramServer

GROUP = -100


@pytest.fixture
def sanctions(delivery: Delivery) -> GroupSanctions:
    return GroupSanctions(delivery)


@pytest.mark.parametrize(
    ("description", "result"),
    [
        # Error descriptions of Telegram.
        ("message to delete not found", ActionResult.GONE),
        ("message can't be deleted", ActionResult.NO_RIGHT),
        ("not enough rights to restrict/unrestrict chat member", ActionResult.NO_RIGHT),
        ("CHAT_ADMIN_REQUIRED", ActionResult.NO_RIGHT),
        ("need administrator rights in the channel chat", ActionResult.NO_RIGHT),
        ("method is available only for supergroups", ActionResult.NO_RIGHT),
        ("user is an administrator of the chat", ActionResult.PROTECTED),
        ("can't remove chat owner", ActionResult.PROTECTED),
        ("can't restrict self", ActionResult.PROTECTED),
        ("USER_NOT_PARTICIPANT", ActionResult.GONE),
        ("PARTICIPANT_ID_INVALID", ActionResult.GONE),
        ("user not found", ActionResult.GONE),
        ("something else", ActionResult.FAILED),
    ],
)
def test_classify_sanction_error(description: str, result: ActionResult) -> None:
    method = DeleteMessage(chat_id=GROUP, message_id=1)
    assert classify_sanction_error(TelegramBadRequest(method=method, message=f"Bad Request: {description}")) is result


async def test_delete_batches_messages_and_ignores_deleted_ones(
    sanctions: GroupSanctions, server: TelegramServer
) -> None:
    """Telegram accepts 100 messages per call."""
    messages = [server.user_says("x", GROUP, user_id=7) for _ in range(101)]
    messages[3].deleted = True
    assert await sanctions.delete(GROUP, [message.id for message in messages]) is ActionResult.DONE
    assert all(message.deleted for message in messages)
    assert len(server.calls_of("deleteMessages")) == 2


async def test_mute_removes_every_permission_until_its_end(
    sanctions: GroupSanctions, server: TelegramServer, clock: ManualClock
) -> None:
    assert await sanctions.mute(GROUP, 7, clock.now()) is ActionResult.DONE
    assert server.chat(GROUP).muted == {7: int(clock.time())}
    permissions = server.calls_of("restrictChatMember")[0].params["permissions"]
    assert "true" not in permissions.lower()
    assert await sanctions.unmute(GROUP, 7) is ActionResult.DONE
    assert server.chat(GROUP).muted == {}


async def test_ban_and_unban_of_users_and_channels(sanctions: GroupSanctions, server: TelegramServer) -> None:
    for author_id, kind in ((7, AuthorKind.USER), (-900, AuthorKind.CHANNEL)):
        assert await sanctions.ban(GROUP, author_id, kind) is ActionResult.DONE
        assert server.chat(GROUP).banned == {author_id}
        assert await sanctions.unban(GROUP, author_id, kind) is ActionResult.DONE
        assert server.chat(GROUP).banned == set()


async def test_ban_of_an_admin_is_protected(sanctions: GroupSanctions, server: TelegramServer) -> None:
    server.chat(GROUP).admin_ids.add(7)
    assert await sanctions.ban(GROUP, 7, AuthorKind.USER) is ActionResult.PROTECTED
