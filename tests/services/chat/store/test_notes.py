"""Notes of users."""

import asyncio

import pytest

from core.db.database import Database
from core.messages import ConversationKey, Surface
from services.chat.store.notes import MAX_LENGTH, MAX_NOTES, Notes
from tests.support.clock import ManualClock

PRIVATE = ConversationKey(Surface.TELEGRAM, 7).chat_ref
GROUP = ConversationKey(Surface.TELEGRAM, -1001234567890).chat_ref


@pytest.fixture
def notes(database: Database, clock: ManualClock) -> Notes:
    """The notes, on each kind of database."""
    return Notes(database, clock)


def test_scope_is_the_chat_with_all_its_topics() -> None:
    """A note said in one topic is known in the next; another surface with the same number is another chat."""
    assert ConversationKey(Surface.TELEGRAM, 7, 3).chat_ref == PRIVATE == "telegram:7"
    assert ConversationKey(Surface.CONSOLE, 7).chat_ref != PRIVATE


async def test_recalled_in_order_where_they_were_said(notes: Notes) -> None:
    """What is said in private stays there, and one user's notes are not another's."""
    await notes.remember(7, PRIVATE, "likes tea")
    await notes.remember(7, PRIVATE, "has a cat")
    await notes.remember(7, GROUP, "plays chess")
    await notes.remember(8, GROUP, "plays go")
    assert await notes.recall(7, PRIVATE) == ["likes tea", "has a cat"]
    assert await notes.recall(7, GROUP) == ["plays chess"]
    assert await notes.recall(8, PRIVATE) == []


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("  likes\n\ttea ", ["likes tea"]),  # one line each: a note is an item of a list in the instructions
        (" \n", []),  # nothing to remember
        ("\x00", []),  # nothing that a database takes
        ("x" * MAX_LENGTH, ["x" * MAX_LENGTH]),  # just fits
        ("x" * (MAX_LENGTH + 1), ["x" * (MAX_LENGTH - 1) + "…"]),  # does not
        ("\U0001f600" * MAX_LENGTH, ["\U0001f600" * MAX_LENGTH]),  # characters, not bytes
    ],
)
async def test_what_is_kept_of_a_text(notes: Notes, said: str, kept: list[str]) -> None:
    """One line, bounded, or nothing."""
    await notes.remember(7, PRIVATE, said)
    assert await notes.recall(7, PRIVATE) == kept


async def test_the_same_note_twice_is_one(notes: Notes) -> None:
    """Said again it becomes the newest."""
    for text in ("a", "b", "a"):
        await notes.remember(7, PRIVATE, text)
    assert await notes.recall(7, PRIVATE) == ["b", "a"]


async def test_the_oldest_give_way(notes: Notes) -> None:
    """The count is bounded for each user and chat by itself."""
    await notes.remember(8, PRIVATE, "of another")
    for number in range(MAX_NOTES + 3):
        await notes.remember(7, PRIVATE, str(number))
    assert await notes.recall(7, PRIVATE) == [str(number) for number in range(3, MAX_NOTES + 3)]
    assert await notes.recall(8, PRIVATE) == ["of another"]


async def test_forget_one_or_all(notes: Notes) -> None:
    """How many went is told; other chats and users keep theirs."""
    for text in ("a", "b", "c"):
        await notes.remember(7, PRIVATE, text)
    await notes.remember(7, GROUP, "a")
    assert await notes.forget(7, PRIVATE, "a") == 1
    assert await notes.forget(7, PRIVATE, "a") == 0
    assert await notes.forget(7, PRIVATE) == 2
    assert await notes.recall(7, PRIVATE) == []
    assert await notes.recall(7, GROUP) == ["a"]


async def test_two_replicas_at_once(notes: Notes, replica: Database, clock: ManualClock) -> None:
    """Nothing said to either is lost."""
    other = Notes(replica, clock)
    await asyncio.gather(*(which.remember(7, PRIVATE, f"{n}") for n, which in enumerate([notes, other] * 10)))
    assert sorted(await other.recall(7, PRIVATE), key=int) == [str(n) for n in range(20)]
