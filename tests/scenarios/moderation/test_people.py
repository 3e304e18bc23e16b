"""Decisions of people: buttons under a card, admin commands, members' reports."""

import pytest

from services.moderation.domain.settings import Mode, RuleSet
from tests.support.bot_harness import BotHarness
from tests.support.fake_llm.server import answer
from tests.support.fake_telegram.chats import Message
from tests.support.moderated_group import (
    ADMIN,
    BAN,
    CONFIRM,
    FOREIGN,
    JOB_SCAM,
    MEMBER,
    NEWCOMER,
    OTHER_NEWCOMER,
    UNDO,
    ModeratedGroup,
    verdict,
)

pytestmark = pytest.mark.asyncio(loop_scope="session")

SCAM = verdict("job_scam", 97, "Earn from $500 a day")
INSULT = verdict("toxic", 92, "complete idiots")


async def send_scam_and_get_card(group: ModeratedGroup) -> Message:
    """Sends a newcomer's scam and returns its card."""
    group.harness.first.script(SCAM)
    await group.moderate(JOB_SCAM)
    return await group.card()


async def test_card_shows_action_reason_author_and_message(group: ModeratedGroup) -> None:
    """The author's text is hidden under spoilers."""
    card = await send_scam_and_get_card(group)
    for part in (
        "deleted the message, muted the author for 24 hours",
        "job scam, 97% confidence (a · m)",
        f"({NEWCOMER})",
        JOB_SCAM,
    ):
        assert part in card.text
    assert card.labels == [UNDO, CONFIRM, BAN]
    hidden = ["".join(card.text)[entity["offset"] :][: entity["length"]] for entity in card.entities]
    assert hidden == ["Earn from $500 a day", JOB_SCAM]
    assert {entity["type"] for entity in card.entities} == {"spoiler"}


async def test_undo_unmutes_and_works_once(group: ModeratedGroup) -> None:
    card = await send_scam_and_get_card(group)
    assert await group.press(card, UNDO) == "Done."
    assert NEWCOMER not in group.chat.muted
    await group.wait_card_text(card, "Undone by Ann.")
    assert card.labels == []
    before = list(group.actions)
    # A second admin may press before the edited keyboard arrives.
    card.markup = {"inline_keyboard": [[{"text": UNDO, "callback_data": f"inc:undo:{_latest_incident_id(group)}"}]]}
    assert await group.press(card, UNDO) == "This has already been handled."
    assert group.actions == before


def _latest_incident_id(group: ModeratedGroup) -> int:
    found = [each for each in group.harness.events("moderation.incident") if each["group_id"] == group.id]
    return found[-1]["incident"]


@pytest.mark.parametrize("by", [MEMBER, NEWCOMER])
@pytest.mark.parametrize("button", [UNDO, CONFIRM, BAN])
async def test_card_buttons_reject_members(group: ModeratedGroup, by: int, button: str) -> None:
    card = await send_scam_and_get_card(group)
    text, actions = card.text, list(group.actions)
    assert await group.press(card, button, by) == "Only admins of this group can do this."
    assert (card.text, group.actions) == (text, actions)


async def test_ban_removes_its_button_and_can_be_undone(group: ModeratedGroup) -> None:
    card = await send_scam_and_get_card(group)
    assert await group.press(card, BAN) == "Done."
    await group.wait_card_text(card, "Banned by Ann.")
    assert group.chat.banned == {NEWCOMER}
    assert card.labels == [UNDO, CONFIRM]
    # Undo lifts the ban too.
    assert await group.press(card, UNDO) == "Done."
    assert not group.chat.banned


async def test_ban_of_a_channel_bans_the_sender_chat(group: ModeratedGroup) -> None:
    group.harness.first.script(SCAM)
    message = group.send_as_chat(JOB_SCAM, FOREIGN)
    await group.wait_handled(message)
    await group.press(await group.card(), BAN)
    assert group.actions == ["deleteMessage", "banChatSenderChat"]
    assert group.chat.banned == {FOREIGN}


async def test_confirm_deletes_a_message_that_was_only_shown(group: ModeratedGroup) -> None:
    group.harness.first.script(verdict("job_scam", 65, "Earn from $500 a day"))
    message = await group.moderate(JOB_SCAM)
    card = await group.card()
    assert not message.deleted
    assert await group.press(card, CONFIRM) == "Done."
    assert message.deleted
    await group.wait_card_text(card, "Done: deleted the message.")
    assert (NEWCOMER in group.chat.muted) is False


async def test_undone_text_is_known_ham_for_other_authors(group: ModeratedGroup) -> None:
    """It wins over the cached spam verdict."""
    await group.press(await send_scam_and_get_card(group), UNDO)
    again = await group.moderate(JOB_SCAM, OTHER_NEWCOMER)
    assert not again.deleted
    assert OTHER_NEWCOMER not in group.chat.muted
    assert len(group.cards) == 1


async def test_third_warning_in_thirty_days_mutes(group: ModeratedGroup) -> None:
    """Two warnings, then a mute for 24 hours; no message is deleted."""
    for number in range(3):
        assert MEMBER not in group.chat.muted
        group.harness.first.script(INSULT)
        # Mixed scripts cause an established member's message to be sent to the judge.
        message = await group.moderate(f"You are all complete idiots, vеrу muсh so {number}.", MEMBER)
        assert not message.deleted
    assert [text for text in group.chat.texts() if text.startswith("User 6002, ")] == [
        "User 6002, please follow the rules of this group. This is warning 1 of 3 in 30 days.",
        "User 6002, please follow the rules of this group. This is warning 2 of 3 in 30 days.",
        "User 6002, this was warning 3 in 30 days. You can write again in 24 hours.",
    ]
    assert set(group.chat.muted) == {MEMBER}
    # Undo removes the warning and the mute.
    await group.press(await group.card(3), UNDO)
    assert MEMBER not in group.chat.muted


async def test_spam_command_deletes_and_learns(group: ModeratedGroup) -> None:
    """No model is asked."""
    message = await group.moderate("See you all at the meeting, it is only 20 euros.", MEMBER)
    assert (await group.command("/spam", reply_to=message)).text == "Deleted and learned as spam."
    assert message.deleted
    card = await group.card()
    assert "marked as spam by" in card.text
    assert "Confirmed by" in card.text
    assert not group.harness.first.requests


async def test_ham_command_in_reply_to_a_card_undoes_the_incident(group: ModeratedGroup) -> None:
    card = await send_scam_and_get_card(group)
    assert (await group.command("/ham", reply_to=card)).text == "Learned as not spam."
    await group.wait_card_text(card, "Undone by")
    assert NEWCOMER not in group.chat.muted


async def test_warn_command_is_idempotent_per_message_and_unwarn_takes_it_back(group: ModeratedGroup) -> None:
    message = await group.moderate("See you all tomorrow at the meeting.", MEMBER)
    # The second warning about the same message does not count.
    for part in ("warning 1 of 3", "warning 1 of 3"):
        group.send("/warn", ADMIN, reply_to=message)
        answered = await group.harness.seen(lambda shown, part=part: part in shown.text, group.id)
        assert answered.reply_to == message.id
    assert (await group.command("/unwarn", reply_to=message)).text == "Warning removed, 0 left."
    assert (await group.command("/unwarn", reply_to=message)).text == "This member has no warnings."


async def test_third_warning_by_command_mutes(group: ModeratedGroup) -> None:
    warnings: list[str] = []
    for number in range(3):
        assert MEMBER not in group.chat.muted
        message = await group.moderate(f"See you all tomorrow at the meeting, at {number}.", MEMBER)
        sent = group.send("/warn", ADMIN, reply_to=message)
        warned = await group.harness.seen(lambda _: True, group.id, after=sent.id)
        warnings.append(warned.text.partition(",")[2])
    assert warnings == [
        " please follow the rules of this group. This is warning 1 of 3 in 30 days.",
        " please follow the rules of this group. This is warning 2 of 3 in 30 days.",
        " this was warning 3 in 30 days. You can write again in 24 hours.",
    ]
    assert set(group.chat.muted) == {MEMBER}


async def test_anonymous_admin_may_use_commands(group: ModeratedGroup) -> None:
    message = await group.moderate("See you all at the meeting, it is only 20 euros.", MEMBER)
    sender = {"id": group.id, "type": "supergroup", "title": "The Group"}
    await group.command("/spam", 1087968824, reply_to=message, extra={"sender_chat": sender})
    assert message.deleted


@pytest.mark.parametrize("command", ["/spam", "/ham", "/warn", "/unwarn", "/moderation off"])
async def test_admin_commands_reject_members(group: ModeratedGroup, command: str) -> None:
    message = await group.moderate("See you all tomorrow at the meeting.", MEMBER)
    reply = await group.command(command, MEMBER, reply_to=message)
    assert reply.text == "Only admins of this group can do this."
    assert group.actions == []


async def test_commands_do_not_moderate_admins(group: ModeratedGroup) -> None:
    message = group.send("I am the law.", ADMIN)
    for command in ("/spam", "/warn"):
        reply = await group.command(command, reply_to=message)
        assert reply.text == "Admins and the group’s own channel are not moderated."
    assert not message.deleted


async def test_report_sends_the_message_to_the_judge(group: ModeratedGroup) -> None:
    message = await group.moderate("You are all complete idiots here.", MEMBER)
    assert not group.harness.first.requests
    group.harness.first.script(INSULT)
    assert (
        await group.command("/report", OTHER_NEWCOMER, reply_to=message)
    ).text == "Thank you, the message is being reviewed."
    await group.card()
    assert "warning 1 of 3" in "".join(group.chat.texts())


async def test_reports_by_different_members_post_a_card(group: ModeratedGroup) -> None:
    """Also if the judge finds the message ok. A member counts once; admins cannot be reported."""
    message = await group.moderate("See you all tomorrow at the meeting.", MEMBER)
    group.harness.first.default = verdict("ok", 99)
    for by in (OTHER_NEWCOMER, 6004):
        await group.command("/report", by, reply_to=message)
    assert (
        await group.command("/report", OTHER_NEWCOMER, reply_to=message)
    ).text == "You have already reported this message."
    assert group.cards == []
    await group.command("/report", 6005, reply_to=message)
    card = await group.card()
    assert "reported by 3 members" in card.text
    assert not message.deleted
    law = group.send("I am the law.", ADMIN)
    assert "not moderated" in (await group.command("/report", OTHER_NEWCOMER, reply_to=law)).text


async def test_reports_are_limited_to_ten_an_hour(harness: BotHarness) -> None:
    group = await ModeratedGroup(harness).open(rules=RuleSet())
    messages = [await group.moderate(f"See you all on day {number}.", MEMBER) for number in range(11)]
    answers = [(await group.command("/report", OTHER_NEWCOMER, reply_to=message)).text for message in messages]
    assert answers[:10] == ["Thank you, the message is being reviewed."] * 10
    assert answers[10] == "You have sent too many reports this hour. Please try again later."


async def test_command_without_a_reply_explains_its_use(group: ModeratedGroup) -> None:
    assert (await group.command("/spam")).text == "Use this command in a reply to the message."


async def test_dry_run_only_posts_a_card(harness: BotHarness) -> None:
    group = await ModeratedGroup(harness).open(Mode.DRY)
    harness.first.script(SCAM)
    message = await group.moderate(JOB_SCAM)
    card = await group.card()
    assert "Dry run: no action taken. Would have: deleted the message, muted the author for 24 hours." in card.text
    assert not message.deleted
    assert group.actions == []
    # A decision in a dry run is learned and causes no action.
    assert await group.press(card, CONFIRM) == "Done."
    assert group.actions == []


async def test_bot_answers_moderated_messages_but_not_removed_ones(group: ModeratedGroup) -> None:
    group.harness.first.script(verdict("ok", 99), answer("At eight."))
    asked = group.send("/ask When does the meeting begin tomorrow?", NEWCOMER)
    answered = await group.harness.seen(lambda message: message.reply_to == asked.id, group.id, after=asked.id)
    await group.harness.until(lambda: answered.text == "At eight.")

    group.harness.first.script(SCAM)
    spam = group.send(f"@understudy_bot {JOB_SCAM}", OTHER_NEWCOMER)
    await group.wait_handled(spam)
    await group.harness.quiet()
    assert spam.deleted
    assert [message for message in group.chat.answers() if message.reply_to == spam.id] == []
