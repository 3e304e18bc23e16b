"""Joins over the Bot API: the gate, and commands about newcomers."""

import time

import pytest

from tests.support.moderated_group import ADMIN, NEWCOMER, ModeratedGroup

pytestmark = pytest.mark.asyncio(loop_scope="session")

GATE = "New here? Press the button, then you can write in this group."


def join(group: ModeratedGroup, user_id: int) -> None:
    """Has a user join the group, as Telegram reports it."""
    user = {"id": user_id, "is_bot": False, "first_name": f"User {user_id}"}
    chat = {"id": group.id, "type": "supergroup", "title": "The Group"}
    group.harness.telegram.push_update(
        chat_member={
            "chat": chat, "from": user, "date": int(time.time()),
            "old_chat_member": {"status": "left", "user": user},
            "new_chat_member": {"status": "member", "user": user},
        }
    )  # fmt: skip


async def test_newcomer_passes_the_gate_by_its_button(group: ModeratedGroup) -> None:
    shown = await group.command("/newcomers gate button")
    assert "Gate: a button" in shown.text
    join(group, NEWCOMER)
    notice = await group.harness.seen(lambda message: message.text == GATE, group.id)
    assert group.actions == ["restrictChatMember"]
    assert "nothing to do" in await group.press(notice, "I am not a bot", by=NEWCOMER + 500)
    assert "Welcome" in await group.press(notice, "I am not a bot", by=NEWCOMER)
    assert group.actions == ["restrictChatMember"] * 2


async def test_raid_by_hand_and_locks(group: ModeratedGroup) -> None:
    assert "contact" in (await group.command("/lock contact")).text
    group.send("/raid on", ADMIN)
    card = await group.harness.seen(lambda message: message.text.startswith("Raid mode is on"), group.id)
    assert "off" in await group.press(card, "End raid mode")
    assert "Only admins" in (await group.command("/raid off", by=NEWCOMER)).text
