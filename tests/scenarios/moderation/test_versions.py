"""Each message and each version of it once: edits, albums, updates that come twice, texts that come again."""

import asyncio

import pytest

from tests.support.fake_llm.server import gate
from tests.support.moderated_group import JOB, MEMBER, NEWCOMER, OTHER, ModeratedGroup, verdict

pytestmark = pytest.mark.asyncio(loop_scope="session")

SCAM = verdict("job_scam", 97, "Earn from $500 a day")
PHOTO = b"\xff\xd8\xff\xe0 a picture"
QUESTION = "Hello everybody, how do I set up the heating?"


def repeats(group: ModeratedGroup) -> None:
    """Telegram hands the newest update of the group over once more, under another number."""
    telegram = group.stage.telegram
    update = next(update for update in reversed(telegram.pending) if "message" in update)
    telegram.push_update(**{key: value for key, value in update.items() if key != "update_id"})


async def test_the_same_update_twice(group: ModeratedGroup) -> None:
    """One judgement, one deletion, one card."""
    group.stage.first.script(SCAM)
    message = group.says(JOB)
    repeats(group)
    await group.handled(message, times=2)
    assert message.deleted
    assert (len(group.stage.first.requests), group.deeds) == (1, ["restrictChatMember", "deleteMessage"])
    assert len(group.cards) == 1


async def test_clean_text_edited_into_an_advert(group: ModeratedGroup) -> None:
    """Also of an established member, whose first version nobody asked a model about."""
    message = await group.look("See you all tomorrow at the meeting.", MEMBER)
    assert not group.stage.first.requests
    group.stage.first.script(verdict("channel_promo", 93, "t.me/easy_money"))
    group.stage.telegram.user_edits(message, "Join me at t.me/easy_money")
    await group.handled(message, times=2)
    assert message.deleted
    assert len(group.stage.first.requests) == 1
    assert group.deeds == ["deleteMessage"]


async def test_an_edit_that_changes_a_word_asks_nobody(group: ModeratedGroup) -> None:
    """A link that was there before is no reason either."""
    message = await group.look("The manual is at https://docs.example.org/a, page 3.", MEMBER)
    group.stage.telegram.user_edits(message, "The manual is at https://docs.example.org/a, page 4.")
    await group.handled(message, times=2)
    assert not group.stage.first.requests
    assert not message.deleted


async def test_an_edit_that_changes_nothing_is_no_new_version(group: ModeratedGroup) -> None:
    """Telegram tells of a changed preview as of an edit."""
    message = await group.look(QUESTION)
    group.stage.telegram.user_edits(message, QUESTION)
    assert (await group.handled(message, times=2))["stage"] == "repeated"
    assert len(group.stage.first.requests) == 1


async def test_three_edits_of_one_message(group: ModeratedGroup) -> None:
    """Each is judged; while nothing worse comes of it there is one card for the message."""
    doubtful = verdict("job_scam", 60, "pays well")
    message = await group.look(QUESTION)
    for number in range(3):
        group.stage.first.script(doubtful)
        group.stage.telegram.user_edits(message, f"{QUESTION} My job pays well, number {number}.")
        await group.handled(message, times=number + 2)
    assert len(group.stage.first.requests) == 4
    assert len(group.cards) == 1
    assert not message.deleted
    # The fourth is plain spam: more has to be done, and is told of.
    group.stage.first.script(verdict("job_scam", 97, "Write me"))
    group.stage.telegram.user_edits(message, f"{QUESTION} My job pays well. Write me!")
    await group.handled(message, times=5)
    assert message.deleted
    assert len(group.cards) == 2


async def test_an_album_of_five(group: ModeratedGroup) -> None:
    """One judgement about its caption, one call that deletes all of it, one card."""
    group.stage.first.script(SCAM)
    parts = [
        group.says(JOB if number == 2 else "", photo=PHOTO, extra={"media_group_id": f"album {group.id}"})
        for number in range(5)
    ]
    for part in parts[:1]:
        await group.handled(part)
    await group.card()
    assert [part.deleted for part in parts] == [True] * 5
    assert (len(group.stage.first.requests), group.deeds) == (1, ["restrictChatMember", "deleteMessages"])
    assert len(group.cards) == 1


async def test_a_part_of_an_album_that_comes_late(group: ModeratedGroup) -> None:
    """It goes the way of the rest."""
    group.stage.first.script(SCAM)
    album = {"media_group_id": f"album {group.id}"}
    first = group.says(JOB, photo=PHOTO, extra=album)
    await group.handled(first)
    late = group.says("", photo=PHOTO, extra=album)
    await group.handled(late)
    assert (first.deleted, late.deleted) == (True, True)
    assert len(group.cards) == 1


async def test_an_album_of_pictures_stays(group: ModeratedGroup) -> None:
    parts = [group.says("", photo=PHOTO, extra={"media_group_id": f"holiday {group.id}"}) for _ in range(3)]
    await group.handled(parts[0])
    assert not any(part.deleted for part in parts)
    assert not group.stage.first.requests


async def test_the_same_spam_from_several_is_judged_once(group: ModeratedGroup) -> None:
    """Also while the first judgement is being made."""
    slow = asyncio.Event()
    group.stage.first.script(gate(slow, then=SCAM))
    messages = [group.says(JOB, by) for by in (NEWCOMER, OTHER, 6004)]
    await group.stage.first.arrival(1)
    slow.set()
    for message in messages:
        await group.handled(message)
    assert len(group.stage.first.requests) == 1
    assert all(message.deleted for message in messages)
    assert set(group.chat.muted) == {NEWCOMER, OTHER, 6004}


async def test_the_same_harmless_text_of_several_is_judged_for_each(group: ModeratedGroup) -> None:
    """That somebody's joke was fine does not open the door to whoever copies it; their own repetition is known."""
    for by, requests in ((NEWCOMER, 1), (OTHER, 2), (NEWCOMER, 2)):
        await group.look(QUESTION, by)
        assert len(group.stage.first.requests) == requests


async def test_who_wrote_three_things_a_week_ago_is_established(group: ModeratedGroup) -> None:
    """Three meaningful messages alone are not enough: the week is missing."""
    for number in range(4):
        await group.look(f"{QUESTION} I asked {number} times.")
    assert len(group.stage.first.requests) == 4
