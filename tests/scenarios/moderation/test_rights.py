"""Rights are asked when used: appointed, dismissed and former admins, failing look-ups, commands not typed."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.support.bot_harness import BotHarness
from tests.support.fake_telegram.chats import Message
from tests.support.moderated_group import (
    ADMIN,
    ANONYMOUS,
    BAN,
    CONFIRM,
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
ADMINS_ONLY = "Only admins of this group can do this."
UNKNOWN = (
    "In a group, only admins can do this. Telegram does not say whether you are one, so nothing was done: "
    "please try again."
)
AUTHOR_UNKNOWN = "Telegram does not say whether the author is an admin, so nothing was done. Please try again."
EXEMPT = "Admins and the group’s own channel are not moderated."


@asynccontextmanager
async def unknown_members(group: ModeratedGroup) -> AsyncIterator[None]:
    """Telegram answers no question about a single member of the group meanwhile."""
    fault = group.harness.telegram.fail(
        "getChatMember", float("inf"), status=400, description="Bad Request: CHAT_ADMIN_REQUIRED", chat_id=group.id
    )
    try:
        yield
    finally:
        fault.end()


async def moderated_scam(group: ModeratedGroup, confidence: int = 97, **more: int) -> Message:
    group.harness.first.script(verdict("job_scam", confidence, "Earn from $500 a day"))
    return await group.moderate(JOB_SCAM, **more)


@pytest.mark.parametrize("button", [UNDO, CONFIRM, BAN])
async def test_a_dismissed_admin_presses_nothing_the_second_after(group: ModeratedGroup, button: str) -> None:
    """The cached list still has them."""
    await moderated_scam(group)
    card = await group.card()
    group.chat.admin_ids.discard(ADMIN)
    before = list(group.actions)
    assert await group.press(card, button) == ADMINS_ONLY
    assert (await group.command("/moderation off")).text == ADMINS_ONLY
    assert (await group.command("/spam", reply_to=card)).text == ADMINS_ONLY
    assert group.actions == before
    assert NEWCOMER in group.chat.muted


async def test_an_appointed_admin_acts_at_once(group: ModeratedGroup) -> None:
    await moderated_scam(group)
    card = await group.card()
    assert await group.press(card, UNDO, MEMBER) == ADMINS_ONLY
    group.chat.admin_ids.add(MEMBER)
    assert await group.press(card, UNDO, MEMBER) == "Done."
    assert (await group.command("/moderation budget 7", MEMBER)).text != ADMINS_ONLY


@pytest.mark.parametrize("confidence", [97, 85])
async def test_an_author_who_has_become_admin_is_not_sanctioned(group: ModeratedGroup, confidence: int) -> None:
    """The cached list does not have them yet; the card says why nothing was done."""
    await group.moderate("Good evening, when does the meeting begin?", MEMBER)
    group.chat.admin_ids.add(NEWCOMER)
    message = await moderated_scam(group, confidence)
    card = await group.card()
    assert group.actions == []
    assert not message.deleted
    assert NEWCOMER not in group.chat.muted
    assert "admin" in card.text
    pressed = group.harness.presses(card, BAN, ADMIN)
    assert await group.harness.toast(pressed) == EXEMPT
    assert group.harness.telegram.callback_answers[pressed]["show_alert"] == "true"
    assert (await group.command("/spam", reply_to=message)).text == EXEMPT
    assert (await group.command("/warn", reply_to=message)).text == EXEMPT
    assert group.actions == []


async def test_a_dismissed_admin_is_judged_by_command_at_once(group: ModeratedGroup) -> None:
    group.chat.admin_ids.add(OTHER_NEWCOMER)
    message = await group.moderate("I was an admin a minute ago.", OTHER_NEWCOMER)
    group.chat.admin_ids.discard(OTHER_NEWCOMER)
    assert (await group.command("/spam", reply_to=message)).text == "Deleted and learned as spam."
    assert message.deleted


async def test_while_the_lookup_fails_nothing_is_done_and_that_is_said(group: ModeratedGroup) -> None:
    await moderated_scam(group)
    card = await group.card()
    message = await group.moderate("See you all at the meeting.", MEMBER)
    before = list(group.actions)
    async with unknown_members(group):
        for button in (UNDO, CONFIRM, BAN):
            assert await group.press(card, button) == UNKNOWN
        for command in ("/spam", "/warn", "/moderation off", "/rules ban casino"):
            assert (await group.command(command, reply_to=message)).text == UNKNOWN
        # A new scam: found, shown on a card, and neither deleted nor punished.
        group.harness.first.script(SCAM)
        scam = await group.moderate(f"{JOB_SCAM}!", OTHER_NEWCOMER)
        second = await group.card(2)
        assert "could not" in second.text
        assert group.actions == before
        assert not scam.deleted
    assert await group.press(card, UNDO) == "Done."


async def test_orders_against_an_author_whose_standing_is_unknown(group: ModeratedGroup) -> None:
    """The admin acts in the group's name, who need not be asked for."""
    message = await group.moderate("See you all at the meeting.", MEMBER)
    async with unknown_members(group):
        for command in ("/spam", "/warn"):
            sender = {"id": group.id, "type": "supergroup", "title": "The Group"}
            sent = group.send(command, ANONYMOUS, reply_to=message, extra={"sender_chat": sender})
            reply = await group.harness.seen(lambda each, sent=sent: each.reply_to == sent.id, group.id, after=sent.id)
            assert reply.text == AUTHOR_UNKNOWN
    assert group.actions == []


async def test_a_former_admin_gets_no_private_cards(harness: BotHarness) -> None:
    group = await ModeratedGroup(harness).open(cards_to=ADMIN)
    private = harness.chat(ADMIN)
    await moderated_scam(group)
    await harness.until(lambda: [each for each in private.answers() if JOB_SCAM in each.text])
    card = private.answers()[-1]
    assert not group.cards
    group.chat.admin_ids.discard(ADMIN)
    group.harness.first.script(SCAM)
    await group.moderate(f"{JOB_SCAM} (new)", OTHER_NEWCOMER)
    assert "(new)" in (await group.card()).text
    assert not [each for each in private.answers() if "(new)" in each.text]
    # The buttons of the card that they have do nothing any more.
    text = card.text
    assert await harness.toast(harness.presses(card, UNDO, ADMIN)) == ADMINS_ONLY
    assert card.text == text


@pytest.mark.parametrize(
    "extra",
    [
        {"forward_origin": {"type": "hidden_user", "date": 1, "sender_user_name": "Someone"}},
        {"via_bot": {"id": 77, "is_bot": True, "first_name": "Inline", "username": "inline_bot"}},
        {"entities": [{"type": "blockquote", "offset": 0, "length": 5}]},
    ],
    ids=["forwarded", "via a bot", "quoted"],
)
async def test_a_command_that_was_not_typed_does_nothing(group: ModeratedGroup, extra: dict[str, object]) -> None:
    """Not even an admin's: another person may have written it."""
    message = await group.moderate("See you all at the meeting.", MEMBER)
    more = {"entities": extra["entities"]} if "entities" in extra else {"extra": extra}
    group.send("/spam", ADMIN, reply_to=message, **more)
    group.send("/moderation off", ADMIN, **more)
    await group.harness.quiet()
    assert not message.deleted
    assert (await group.command("/spam", reply_to=message)).text == "Deleted and learned as spam."


async def test_a_command_in_a_caption_counts(group: ModeratedGroup) -> None:
    message = await group.moderate("See you all at the meeting.", MEMBER)
    photo = [{"file_id": "f", "file_unique_id": "u", "width": 1, "height": 1}]
    group.send("", ADMIN, reply_to=message, extra={"photo": photo, "caption": "/spam"})
    await group.harness.until(lambda: message.deleted)


async def test_a_button_of_another_message_is_refused(group: ModeratedGroup) -> None:
    """A client may send any data for any message: a member must not turn a card into something else."""
    await moderated_scam(group)
    card = await group.card()
    text, markup = card.text, card.markup
    assert markup is not None
    for data in ("thrs:0", "back:1", "retry:1", "foot:1"):
        query = str(group.harness.telegram._next())
        group.harness.telegram._queries.add(query)
        group.harness.telegram.push_update(
            callback_query={
                "id": query, "from": {"id": MEMBER, "is_bot": False, "first_name": "M"}, "chat_instance": "1",
                "message": group.harness.telegram._message_object(card), "data": data,
            }
        )  # fmt: skip
        await group.harness.toast(query)
    assert (card.text, card.markup) == (text, markup)
