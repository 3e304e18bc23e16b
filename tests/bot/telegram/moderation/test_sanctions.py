"""Sanctions through the Bot API, and the classification of their errors."""

import asyncio
import json
import socket
from datetime import timedelta

import pytest
from aiogram.exceptions import TelegramBadRequest, TelegramNetworkError, TelegramNotFound
from aiogram.methods import DeleteMessage, DeleteMessages
from structlog.testing import capture_logs

from bot.telegram.api.group_admins import GroupAdmins
from bot.telegram.delivery.delivery import Delivery
from bot.telegram.markdown.render import Rendered
from bot.telegram.moderation.sanctions import GroupSanctions, classify_sanction_error
from services.moderation.domain.message import AuthorKind
from services.moderation.domain.ports import UNRESTRICTED, ActionResult, Restriction
from tests.support.clock import ManualClock, until
from tests.support.fake_telegram.server import TelegramServer
from tests.support.fake_telegram.traffic import Traffic

GROUP = -100


@pytest.fixture
def sanctions(delivery: Delivery, traffic: Traffic, clock: ManualClock) -> GroupSanctions:
    return GroupSanctions(delivery, GroupAdmins(traffic.bot, clock))


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


def test_an_error_that_is_no_refusal_is_a_failure() -> None:
    """Its words may be those of a message that is gone: an unknown host, a server without the method."""
    unresolved = TelegramNetworkError(method=DeleteMessage(chat_id=GROUP, message_id=1), message="ClientConnectorError")
    unresolved.__cause__ = socket.gaierror("Name or service not known")
    unsupported = TelegramNotFound(method=DeleteMessages(chat_id=GROUP, message_ids=[1]), message="Not Found")
    for error in (unresolved, unsupported):
        assert classify_sanction_error(error) is ActionResult.FAILED


@pytest.mark.parametrize(
    ("description", "result"),
    [("message can't be deleted", ActionResult.NO_RIGHT), ("something else", ActionResult.FAILED)],
)
async def test_delete_returns_the_failure_of_any_batch(
    sanctions: GroupSanctions, server: TelegramServer, description: str, result: ActionResult
) -> None:
    """The other batches are deleted nevertheless."""
    messages = [server.user_says("x", GROUP, user_id=7) for _ in range(101)]
    server.fail("deleteMessages", status=400, description=f"Bad Request: {description}")
    assert await sanctions.delete(GROUP, [message.id for message in messages]) is result
    assert [message.deleted for message in messages] == [False] * 100 + [True]


async def test_delete_batches_messages_and_ignores_deleted_ones(
    sanctions: GroupSanctions, server: TelegramServer
) -> None:
    """Telegram accepts 100 messages per call."""
    messages = [server.user_says("x", GROUP, user_id=7) for _ in range(101)]
    messages[3].deleted = True
    assert await sanctions.delete(GROUP, [message.id for message in messages]) is ActionResult.DONE
    assert all(message.deleted for message in messages)
    assert len(server.calls_of("deleteMessages")) == 2


@pytest.mark.parametrize("count", [1, 101])
async def test_deleted_messages_are_gone(sanctions: GroupSanctions, server: TelegramServer, count: int) -> None:
    for method in ("deleteMessage", "deleteMessages", "deleteMessages"):
        server.fail(method, status=400, description="Bad Request: message to delete not found")
    with capture_logs() as logs:
        assert await sanctions.delete(GROUP, list(range(1, 1 + count))) is ActionResult.GONE
    failed = [each for each in logs if each["event"] == "moderation.action_failed"]
    assert {(each["action"], each["group_id"], each["result"]) for each in failed} == {("delete", GROUP, "gone")}


async def test_unmute_restores_a_restriction_with_its_end(
    sanctions: GroupSanctions, server: TelegramServer, clock: ManualClock
) -> None:
    """Photos stay allowed although other media are not: the permissions are independent of each other."""
    end = clock.now().replace(microsecond=0) + timedelta(hours=1)
    before = Restriction(permissions=frozenset({"can_send_messages", "can_send_photos"}), until=end)
    await sanctions.unmute(GROUP, 7, before)
    call = server.calls_of("restrictChatMember")[-1].params
    assert (call["use_independent_chat_permissions"], call["until_date"]) == ("true", str(int(end.timestamp())))
    granted = {name for name, is_granted in json.loads(call["permissions"]).items() if is_granted}
    assert granted == before.permissions


async def test_unban_throws_out_no_member(sanctions: GroupSanctions, server: TelegramServer) -> None:
    """Telegram removes a member who is not banned unless it is told otherwise."""
    await sanctions.unban(GROUP, 7, AuthorKind.USER)
    assert server.calls_of("unbanChatMember")[0].params["only_if_banned"] == "true"


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


async def test_fetch_restriction_reads_mutes_and_partial_restrictions(
    sanctions: GroupSanctions, server: TelegramServer, clock: ManualClock
) -> None:
    assert await sanctions.fetch_restriction(GROUP, 7) == UNRESTRICTED
    await sanctions.mute(GROUP, 7, clock.now())
    muted = await sanctions.fetch_restriction(GROUP, 7)
    assert muted is not None
    assert (muted.is_mute, muted.until) == (True, clock.now().replace(microsecond=0))
    await sanctions.unmute(GROUP, 7, Restriction(permissions=frozenset({"can_send_messages", "can_react_to_messages"})))
    partly = await sanctions.fetch_restriction(GROUP, 7)
    assert partly is not None
    assert (partly.is_mute, "can_send_photos" in partly.permissions, partly.until) == (False, False, None)


async def test_deletion_does_not_wait_for_held_messages(
    sanctions: GroupSanctions, delivery: Delivery, server: TelegramServer, clock: ManualClock
) -> None:
    """A 429 to a card holds messages of the group, not deletions."""
    server.fail("sendMessage", status=429, description="Too Many Requests: retry after 60", retry_after=60)
    card = asyncio.create_task(delivery.send(GROUP, Rendered("a card")))
    await until(lambda: delivery.held_s(GROUP) > 0)
    message = server.user_says("an advert", GROUP, user_id=7)
    assert await sanctions.delete(GROUP, [message.id]) is ActionResult.DONE
    assert not card.done()
    await clock.advance(61)
    assert await card is not None
