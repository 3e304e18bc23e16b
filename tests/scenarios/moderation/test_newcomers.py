"""Joins over the Bot API: the gate, and commands about newcomers."""

import re
import time
from dataclasses import replace

import pytest

from core.clock import SystemClock
from services.moderation.domain.message import MediaKind
from services.moderation.records.groups import GroupStore
from tests.support.bot_harness import BotHarness, images
from tests.support.moderated_group import ADMIN, MEMBER, NEWCOMER, ModeratedGroup, verdict

pytestmark = pytest.mark.asyncio(loop_scope="session")

PICTURE = b"\xff\xd8\xff\xe0 a casino, for the eyes of the model"
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


async def test_request_to_join_is_approved_after_the_answer_in_private(group: ModeratedGroup) -> None:
    harness, person = group.harness, 6_900_001
    await group.command("/newcomers gate question")
    user = {"id": person, "is_bot": False, "first_name": "Ann"}
    chat = {"id": group.id, "type": "supergroup", "title": "The Group"}
    group.chat.join_requests.add(person)
    harness.telegram.push_update(
        chat_join_request={"chat": chat, "from": user, "user_chat_id": person, "date": int(time.time()), "bio": "hi"}
    )
    question = await harness.seen(lambda message: "+" in message.text, person)
    terms = re.findall(r"\d+", question.text)
    answer = str(int(terms[-2]) + int(terms[-1]))
    stranger = await harness.toast(harness.presses(question, answer, person + 1))
    assert "nothing to do" in stranger
    assert "Welcome" in await harness.toast(harness.presses(question, answer, person))
    approved = [call for call in harness.telegram.calls if call.method == "approveChatJoinRequest"]
    assert [call.chat_id for call in approved] == [group.id]
    assert group.chat.join_requests == set()
    join(group, person)
    await harness.quiet(0.3)
    assert group.actions == []


@pytest.mark.parametrize(
    ("group_id", "is_group"),
    # Anyone can write such a link, also with a number that no database stores.
    [("-1", True), ("-" + "9" * 18, True), ("-" + "9" * 19, False), ("9" * 19, False), ("١", False), ("", False)],
)
async def test_start_with_the_id_of_no_group_of_the_bot(harness: BotHarness, group_id: str, *, is_group: bool) -> None:
    sent = harness.says(f"/start gate_{group_id}", 6_900_002)
    reply = await harness.seen(lambda _: True, 6_900_002, after=sent.id)
    assert (reply.text == "There is nothing to do here.") is is_group
    assert reply.text.startswith("Hello") is not is_group


async def test_lock_keeps_a_rule_that_another_replica_has_just_changed(group: ModeratedGroup) -> None:
    """This replica still has the settings of the second before."""
    await group.moderate("Good evening, when does the meeting begin?")
    replica = GroupStore(group.harness.services.infra.database, SystemClock())
    settings = await replica.read(group.id)
    assert settings is not None
    await replica.change(settings, rules=replace(settings.rules, banned=("casino*",)))
    assert "contact" in (await group.command("/lock contact")).text
    changed = await replica.read(group.id)
    assert changed is not None
    assert (changed.rules.banned, changed.rules.newcomer_media) == (("casino*",), (MediaKind.CONTACT,))


async def test_question_of_the_gate_is_gone_once_it_is_answered(group: ModeratedGroup) -> None:
    """A wrong answer deletes it; it is asked again after a while only."""
    harness, person = group.harness, 6_900_003
    assert "Gate: a question in private" in (await group.command("/newcomers gate question")).text
    join(group, person)
    notice = await harness.seen(lambda message: "one question" in message.text, group.id)
    assert notice.buttons[0]["url"].endswith(f"?start=gate_{group.id}")
    harness.says(f"/start gate_{group.id}", person)
    question = await harness.seen(lambda message: "how much is" in message.text, person)
    right = str(sum(map(int, re.findall(r"\d+", question.text)[-2:])))
    wrong = next(label for label in question.labels if label != right)
    assert "not right" in await harness.toast(harness.presses(question, wrong, person))
    await harness.until(lambda: question.deleted)
    sent = harness.says(f"/start gate_{group.id}", person)
    assert "wait half a minute" in (await harness.seen(lambda _: True, person, after=sent.id)).text


async def test_settings_for_newcomers_are_shown_as_they_are_set(group: ModeratedGroup) -> None:
    for command in ("/newcomers raid 12", "/newcomers cleanup on", "/lock links", "/lock forwards", "/lock poll"):
        await group.command(command)
    lines = (await group.command("/newcomers")).text.splitlines()
    shown = "\n".join(lines)
    for part in ("12", "yes", "poll, links, forwards"):
        assert part in shown
    for command in ("/newcomers raid 0", "/newcomers cleanup off", "/unlock links", "/unlock forwards", "/unlock poll"):
        await group.command(command)
    shown = (await group.command("/lock")).text
    assert "nothing" in shown
    assert "12" not in shown
    assert "yes" not in shown
    for command in (
        "/newcomers raid 1001",
        "/newcomers raid many",
        "/newcomers pictures 10001",
        "/newcomers gate wall",
    ):
        assert (await group.command(command)).text.startswith("Usage: /newcomers")
    assert (await group.command("/lock weather")).text.startswith("Usage: /lock")


async def test_trust_and_untrust_are_about_the_author_of_a_message(group: ModeratedGroup) -> None:
    message = await group.moderate("See you all at the meeting.", MEMBER)
    assert (await group.command("/untrust")).text == "Use this command in a reply to the message."
    replies = [(await group.command(command, reply_to=message)).text for command in ("/untrust", "/trust")]
    assert replies == [
        f"User {MEMBER} counts as a newcomer now.", f"User {MEMBER} counts as an established member now."
    ]  # fmt: skip


async def test_raid_by_hand_and_locks(group: ModeratedGroup) -> None:
    assert "contact" in (await group.command("/lock contact")).text
    group.send("/raid on", ADMIN)
    card = await group.harness.seen(lambda message: message.text.startswith("Raid mode is on"), group.id)
    assert "off" in await group.press(card, "End raid mode")
    assert "Only admins" in (await group.command("/raid off", by=NEWCOMER)).text


async def test_picture_of_a_newcomer_goes_to_the_model_that_sees_and_is_deleted_at_most(group: ModeratedGroup) -> None:
    harness = group.harness
    shown = await group.command("/newcomers pictures 20")
    assert "pictures judged per day: 20" in shown.text
    harness.second.script(verdict("gambling", 99, "WIN 1000"))
    message = group.send("", photo=PICTURE)
    card = await group.card()
    assert "Reason: a picture" in card.text
    assert (images(harness.second), harness.first.requests) == ([PICTURE], [])
    assert (message.deleted, group.actions) == (True, ["deleteMessage"])
    shown = await group.command("/newcomers pictures off")
    assert "pictures judged per day: none" in shown.text
