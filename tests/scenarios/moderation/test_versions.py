"""Each version of a message is moderated once: edits, albums, repeated updates, repeated texts."""

import asyncio

import pytest

from tests.support.fake_llm.server import gate
from tests.support.moderated_group import JOB_SCAM, MEMBER, NEWCOMER, OTHER_NEWCOMER, ModeratedGroup, verdict

pytestmark = pytest.mark.asyncio(loop_scope="session")

SCAM = verdict("job_scam", 97, "Earn from $500 a day")
PHOTO = b"\xff\xd8\xff\xe0 a picture"
QUESTION = "Hello everybody, how do I set up the heating?"


def redeliver_last_update(group: ModeratedGroup) -> None:
    """Delivers the newest update again, with another update id."""
    telegram = group.harness.telegram
    update = next(update for update in reversed(telegram.pending) if "message" in update)
    telegram.push_update(**{key: value for key, value in update.items() if key != "update_id"})


async def test_repeated_update_is_moderated_once(group: ModeratedGroup) -> None:
    group.harness.first.script(SCAM)
    message = group.send(JOB_SCAM)
    redeliver_last_update(group)
    await group.wait_handled(message, times=2)
    assert message.deleted
    assert (len(group.harness.first.requests), group.actions) == (1, ["restrictChatMember", "deleteMessage"])
    assert len(group.cards) == 1


async def test_edit_into_an_advert_is_deleted(group: ModeratedGroup) -> None:
    """Also by an established member whose first version was not sent to a model."""
    message = await group.moderate("See you all tomorrow at the meeting.", MEMBER)
    assert not group.harness.first.requests
    group.harness.first.script(verdict("channel_promo", 93, "t.me/easy_money"))
    group.harness.telegram.user_edits(message, "Join me at t.me/easy_money")
    await group.wait_handled(message, times=2)
    assert message.deleted
    assert len(group.harness.first.requests) == 1
    assert group.actions == ["deleteMessage"]


async def test_minor_edit_is_not_sent_to_the_judge(group: ModeratedGroup) -> None:
    """Its link is not new."""
    message = await group.moderate("The manual is at https://docs.example.org/a, page 3.", MEMBER)
    group.harness.telegram.user_edits(message, "The manual is at https://docs.example.org/a, page 4.")
    await group.wait_handled(message, times=2)
    assert not group.harness.first.requests
    assert not message.deleted


async def test_edit_without_a_change_is_no_new_version(group: ModeratedGroup) -> None:
    """Telegram reports a changed link preview as an edit."""
    message = await group.moderate(QUESTION)
    group.harness.telegram.user_edits(message, QUESTION)
    assert (await group.wait_handled(message, times=2))["stage"] == "repeated"
    assert len(group.harness.first.requests) == 1


async def test_each_edit_is_judged_with_one_card_until_more_is_done(group: ModeratedGroup) -> None:
    doubtful = verdict("job_scam", 60, "pays well")
    message = await group.moderate(QUESTION)
    for number in range(3):
        group.harness.first.script(doubtful)
        group.harness.telegram.user_edits(message, f"{QUESTION} My job pays well, number {number}.")
        await group.wait_handled(message, times=number + 2)
    assert len(group.harness.first.requests) == 4
    assert len(group.cards) == 1
    assert not message.deleted
    # The fourth is spam: the deletion gets a card of its own.
    group.harness.first.script(verdict("job_scam", 97, "Write me"))
    group.harness.telegram.user_edits(message, f"{QUESTION} My job pays well. Write me!")
    await group.wait_handled(message, times=5)
    assert message.deleted
    assert len(group.cards) == 2


async def test_album_is_judged_and_deleted_as_one_message(group: ModeratedGroup) -> None:
    group.harness.first.script(SCAM)
    parts = [
        group.send(JOB_SCAM if number == 2 else "", photo=PHOTO, extra={"media_group_id": f"album {group.id}"})
        for number in range(5)
    ]
    for part in parts[:1]:
        await group.wait_handled(part)
    await group.card()
    assert [part.deleted for part in parts] == [True] * 5
    assert (len(group.harness.first.requests), group.actions) == (1, ["restrictChatMember", "deleteMessages"])
    assert len(group.cards) == 1


async def test_late_part_of_a_deleted_album_is_deleted(group: ModeratedGroup) -> None:
    group.harness.first.script(SCAM)
    album = {"media_group_id": f"album {group.id}"}
    first = group.send(JOB_SCAM, photo=PHOTO, extra=album)
    await group.wait_handled(first)
    late = group.send("", photo=PHOTO, extra=album)
    await group.wait_handled(late)
    assert (first.deleted, late.deleted) == (True, True)
    assert len(group.cards) == 1


async def test_album_without_a_caption_is_not_judged(group: ModeratedGroup) -> None:
    parts = [group.send("", photo=PHOTO, extra={"media_group_id": f"holiday {group.id}"}) for _ in range(3)]
    await group.wait_handled(parts[0])
    assert not any(part.deleted for part in parts)
    assert not group.harness.first.requests


async def test_concurrent_equal_spam_is_judged_once(group: ModeratedGroup) -> None:
    """The verdict cache has one request in flight per text."""
    slow = asyncio.Event()
    group.harness.first.script(gate(slow, then=SCAM))
    messages = [group.send(JOB_SCAM, by) for by in (NEWCOMER, OTHER_NEWCOMER, 6004)]
    await group.harness.first.arrival(1)
    slow.set()
    for message in messages:
        await group.wait_handled(message)
    assert len(group.harness.first.requests) == 1
    assert all(message.deleted for message in messages)
    assert set(group.chat.muted) == {NEWCOMER, OTHER_NEWCOMER, 6004}


async def test_ok_verdict_is_cached_per_author(group: ModeratedGroup) -> None:
    """A copy by another author may be spam although the original was not."""
    for by, requests in ((NEWCOMER, 1), (OTHER_NEWCOMER, 2), (NEWCOMER, 2)):
        await group.moderate(QUESTION, by)
        assert len(group.harness.first.requests) == requests


async def test_new_author_with_four_messages_is_still_a_newcomer(group: ModeratedGroup) -> None:
    """An established member has three meaningful messages and was first seen a week ago."""
    for number in range(4):
        await group.moderate(f"{QUESTION} I asked {number} times.")
    assert len(group.harness.first.requests) == 4
