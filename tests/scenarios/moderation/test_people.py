"""What admins and members do about it: buttons under a card, commands, reports."""

import pytest

from services.moderation.domain.rule_set import RuleSet
from services.moderation.domain.settings import Mode
from tests.support.bot_harness import BotHarness
from tests.support.fake_llm.server import answer
from tests.support.fake_telegram.chats import Message
from tests.support.moderated_group import (
    ADMIN,
    BAN,
    CONFIRM,
    FOREIGN,
    JOB,
    MEMBER,
    NEWCOMER,
    OTHER,
    UNDO,
    ModeratedGroup,
    verdict,
)

pytestmark = pytest.mark.asyncio(loop_scope="session")

SCAM = verdict("job_scam", 97, "Earn from $500 a day")
INSULT = verdict("toxic", 92, "complete idiots")


async def caught(group: ModeratedGroup) -> Message:
    """A newcomer's scam was found; its card."""
    group.stage.first.script(SCAM)
    await group.look(JOB)
    return await group.card()


async def test_what_a_card_says(group: ModeratedGroup) -> None:
    """What was done, why, by whom judged, and what it was about; the stranger's words are hidden behind a spoiler."""
    card = await caught(group)
    for words in (
        "deleted the message, muted the author for 24 hours",
        "job scam, 97% confidence (a · m)",
        f"({NEWCOMER})",
        JOB,
    ):
        assert words in card.text
    assert card.labels == [UNDO, CONFIRM, BAN]
    hidden = ["".join(card.text)[entity["offset"] :][: entity["length"]] for entity in card.entities]
    assert hidden == ["Earn from $500 a day", JOB]
    assert {entity["type"] for entity in card.entities} == {"spoiler"}


async def test_undo_works_once_and_gives_the_voice_back(group: ModeratedGroup) -> None:
    card = await caught(group)
    assert await group.presses(card, UNDO) == "Done."
    assert NEWCOMER not in group.chat.muted
    await group.shows(card, "Undone by Ann.")
    assert card.labels == []
    deeds = list(group.deeds)
    # The buttons are gone; who pressed before that saw it gets the second press told.
    card.markup = {"inline_keyboard": [[{"text": UNDO, "callback_data": f"inc:undo:{_incident(group)}"}]]}
    assert await group.presses(card, UNDO) == "This has already been handled."
    assert group.deeds == deeds


def _incident(group: ModeratedGroup) -> int:
    found = [each for each in group.stage.events("moderation.incident") if each["group_id"] == group.id]
    return found[-1]["incident"]


@pytest.mark.parametrize("by", [MEMBER, NEWCOMER])
@pytest.mark.parametrize("button", [UNDO, CONFIRM, BAN])
async def test_buttons_are_for_admins(group: ModeratedGroup, by: int, button: str) -> None:
    card = await caught(group)
    before, deeds = card.text, list(group.deeds)
    assert await group.presses(card, button, by) == "Only admins of this group can do this."
    assert (card.text, group.deeds) == (before, deeds)


async def test_ban_works_once(group: ModeratedGroup) -> None:
    card = await caught(group)
    assert await group.presses(card, BAN) == "Done."
    await group.shows(card, "Banned by Ann.")
    assert group.chat.banned == {NEWCOMER}
    assert card.labels == [UNDO, CONFIRM]
    # An undo takes the ban back too.
    assert await group.presses(card, UNDO) == "Done."
    assert not group.chat.banned


async def test_a_channel_is_banned_as_a_channel(group: ModeratedGroup) -> None:
    group.stage.first.script(SCAM)
    message = group.says_as_chat(JOB, FOREIGN)
    await group.handled(message)
    await group.presses(await group.card(), BAN)
    assert group.deeds == ["deleteMessage", "banChatSenderChat"]
    assert group.chat.banned == {FOREIGN}


async def test_confirming_what_was_only_shown_deletes_it(group: ModeratedGroup) -> None:
    group.stage.first.script(verdict("job_scam", 65, "Earn from $500 a day"))
    message = await group.look(JOB)
    card = await group.card()
    assert not message.deleted
    assert await group.presses(card, CONFIRM) == "Done."
    assert message.deleted
    await group.shows(card, "Done: deleted the message.")
    assert (NEWCOMER in group.chat.muted) is False


async def test_what_was_undone_is_let_through_from_then_on(group: ModeratedGroup) -> None:
    """The next who writes the same is not punished for it, though the verdict is known."""
    await group.presses(await caught(group), UNDO)
    again = await group.look(JOB, OTHER)
    assert not again.deleted
    assert OTHER not in group.chat.muted
    assert len(group.cards) == 1


async def test_three_insults_in_thirty_days(group: ModeratedGroup) -> None:
    """Two warnings, then a day of silence; nothing is deleted."""
    for number in range(3):
        assert MEMBER not in group.chat.muted
        group.stage.first.script(INSULT)
        # A made-up word in mixed letters is what has a judge look at an established member.
        message = await group.look(f"You are all complete idiots, vеry much sо {number}.", MEMBER)
        assert not message.deleted
    assert [text for text in group.chat.texts() if text.startswith("User 6002, ")] == [
        "User 6002, please follow the rules of this group. This is warning 1 of 3 in 30 days.",
        "User 6002, please follow the rules of this group. This is warning 2 of 3 in 30 days.",
        "User 6002, this was warning 3 in 30 days. You can write again in 24 hours.",
    ]
    assert set(group.chat.muted) == {MEMBER}
    # Undone, the warning is gone and the voice is back.
    await group.presses(await group.card(3), UNDO)
    assert MEMBER not in group.chat.muted


async def test_spam_by_command(group: ModeratedGroup) -> None:
    """An admin's word needs no judge, and is remembered."""
    message = await group.look("See you all at the meeting, it is only 20 euros.", MEMBER)
    assert (await group.commands("/spam", reply_to=message)).text == "Deleted and learned as spam."
    assert message.deleted
    card = await group.card()
    assert "marked as spam by" in card.text
    assert "Confirmed by" in card.text
    assert not group.stage.first.requests


async def test_ham_by_command_undoes_what_was_done(group: ModeratedGroup) -> None:
    """In reply to the card."""
    card = await caught(group)
    assert (await group.commands("/ham", reply_to=card)).text == "Learned as not spam."
    await group.shows(card, "Undone by")
    assert NEWCOMER not in group.chat.muted


async def test_warn_and_unwarn_by_command(group: ModeratedGroup) -> None:
    message = await group.look("See you all tomorrow at the meeting.", MEMBER)
    for said in ("warning 1 of 3", "warning 1 of 3"):
        # The same message is warned about once.
        group.says("/warn", ADMIN, reply_to=message)
        answered = await group.stage.seen(lambda shown, said=said: said in shown.text, group.id)
        assert answered.reply_to == message.id
    assert (await group.commands("/unwarn", reply_to=message)).text == "Warning removed, 0 left."
    assert (await group.commands("/unwarn", reply_to=message)).text == "This member has no warnings."


async def test_an_anonymous_admin_commands_too(group: ModeratedGroup) -> None:
    message = await group.look("See you all at the meeting, it is only 20 euros.", MEMBER)
    sender = {"id": group.id, "type": "supergroup", "title": "The Group"}
    await group.commands("/spam", 1087968824, reply_to=message, extra={"sender_chat": sender})
    assert message.deleted


@pytest.mark.parametrize("command", ["/spam", "/ham", "/warn", "/unwarn", "/moderation off"])
async def test_members_do_not_command(group: ModeratedGroup, command: str) -> None:
    message = await group.look("See you all tomorrow at the meeting.", MEMBER)
    said = await group.commands(command, MEMBER, reply_to=message)
    assert said.text == "Only admins of this group can do this."
    assert group.deeds == []


async def test_admins_are_not_moderated_by_command_either(group: ModeratedGroup) -> None:
    message = group.says("I am the law.", ADMIN)
    for command in ("/spam", "/warn"):
        said = await group.commands(command, reply_to=message)
        assert said.text == "Admins and the group’s own channel are not moderated."
    assert not message.deleted


async def test_a_report_has_the_message_judged(group: ModeratedGroup) -> None:
    """What nobody needed to look at before is looked at then."""
    message = await group.look("You are all complete idiots here.", MEMBER)
    assert not group.stage.first.requests
    group.stage.first.script(INSULT)
    assert (
        await group.commands("/report", OTHER, reply_to=message)
    ).text == "Thank you, the message is being reviewed."
    await group.card()
    assert "warning 1 of 3" in "".join(group.chat.texts())


async def test_enough_reports_show_it_to_the_admins(group: ModeratedGroup) -> None:
    """Whatever the judge says; one member counts once, and admins cannot be reported."""
    message = await group.look("See you all tomorrow at the meeting.", MEMBER)
    group.stage.first.default = verdict("ok", 99)
    for by in (OTHER, 6004):
        await group.commands("/report", by, reply_to=message)
    assert (await group.commands("/report", OTHER, reply_to=message)).text == "You have already reported this message."
    assert group.cards == []
    await group.commands("/report", 6005, reply_to=message)
    card = await group.card()
    assert "reported by 3 members" in card.text
    assert not message.deleted
    law = group.says("I am the law.", ADMIN)
    assert "not moderated" in (await group.commands("/report", OTHER, reply_to=law)).text


async def test_ten_reports_an_hour(calm: BotHarness) -> None:
    group = await ModeratedGroup(calm).open(rules=RuleSet())
    messages = [await group.look(f"See you all on day {number}.", MEMBER) for number in range(11)]
    answers = [(await group.commands("/report", OTHER, reply_to=message)).text for message in messages]
    assert answers[:10] == ["Thank you, the message is being reviewed."] * 10
    assert answers[10] == "You have sent too many reports this hour. Please try again later."


async def test_a_command_needs_a_message_to_speak_of(group: ModeratedGroup) -> None:
    assert (await group.commands("/spam")).text == "Use this command in a reply to the message."


async def test_dry_run_does_nothing_and_says_so(calm: BotHarness) -> None:
    group = await ModeratedGroup(calm).open(Mode.DRY)
    calm.first.script(SCAM)
    message = await group.look(JOB)
    card = await group.card()
    assert "Dry run: no action taken. Would have: deleted the message, muted the author for 24 hours." in card.text
    assert not message.deleted
    assert group.deeds == []
    # What admins say of it is learned, and nothing is done.
    assert await group.presses(card, CONFIRM) == "Done."
    assert group.deeds == []


async def test_who_is_removed_is_not_answered_and_the_rest_is(group: ModeratedGroup) -> None:
    """Conversation with the bot goes on as before."""
    group.stage.first.script(verdict("ok", 99), answer("At eight."))
    asked = group.says("/ask When does the meeting begin tomorrow?", NEWCOMER)
    answered = await group.stage.seen(lambda message: message.reply_to == asked.id, group.id, after=asked.id)
    await group.stage.until(lambda: answered.text == "At eight.")

    group.stage.first.script(SCAM)
    spam = group.says(f"@understudy_bot {JOB}", OTHER)
    await group.handled(spam)
    await group.stage.quiet()
    assert spam.deleted
    assert [message for message in group.chat.answers() if message.reply_to == spam.id] == []
