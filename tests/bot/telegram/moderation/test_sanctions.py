"""What moderation does in a group, and what a refusal means."""

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
    ("words", "done"),
    [
        # Telegram's own wordings.
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
def test_what_a_refusal_means(words: str, done: ActionResult) -> None:
    method = DeleteMessage(chat_id=GROUP, message_id=1)
    assert classify_sanction_error(TelegramBadRequest(method=method, message=f"Bad Request: {words}")) is done


async def test_many_messages_at_once(sanctions: GroupSanctions, server: TelegramServer) -> None:
    """Those that are gone are passed over; more than Telegram takes in one call are taken in two."""
    messages = [server.user_says("x", GROUP, user_id=7) for _ in range(101)]
    messages[3].deleted = True
    assert await sanctions.delete(GROUP, [message.id for message in messages]) is ActionResult.DONE
    assert all(message.deleted for message in messages)
    assert len(server.calls_of("deleteMessages")) == 2


async def test_a_mute_silences_in_every_way_and_ends_by_itself(
    sanctions: GroupSanctions, server: TelegramServer, clock: ManualClock
) -> None:
    assert await sanctions.mute(GROUP, 7, clock.now()) is ActionResult.DONE
    assert server.chat(GROUP).muted == {7: int(clock.time())}
    permissions = server.calls_of("restrictChatMember")[0].params["permissions"]
    assert "true" not in permissions.lower()
    assert await sanctions.unmute(GROUP, 7) is ActionResult.DONE
    assert server.chat(GROUP).muted == {}


async def test_bans_of_people_and_of_channels(sanctions: GroupSanctions, server: TelegramServer) -> None:
    for who, kind in ((7, AuthorKind.USER), (-900, AuthorKind.CHANNEL)):
        assert await sanctions.ban(GROUP, who, kind) is ActionResult.DONE
        assert server.chat(GROUP).banned == {who}
        assert await sanctions.unban(GROUP, who, kind) is ActionResult.DONE
        assert server.chat(GROUP).banned == set()


async def test_an_admin_is_protected_by_telegram_itself(sanctions: GroupSanctions, server: TelegramServer) -> None:
    server.chat(GROUP).admin_ids.add(7)
    assert await sanctions.ban(GROUP, 7, AuthorKind.USER) is ActionResult.PROTECTED
