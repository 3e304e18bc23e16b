"""Notes: scopes, limits, deletion."""

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


def test_scope_covers_all_topics_of_a_chat() -> None:
    """The same number on another surface is another chat."""
    assert ConversationKey(Surface.TELEGRAM, 7, 3).chat_ref == PRIVATE == "telegram:7"
    assert ConversationKey(Surface.CONSOLE, 7).chat_ref != PRIVATE


async def test_recall_returns_notes_of_one_user_and_chat_in_order(notes: Notes) -> None:
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
        ("\x00", []),  # databases reject it
        ("x" * MAX_LENGTH, ["x" * MAX_LENGTH]),  # fits
        ("x" * (MAX_LENGTH + 1), ["x" * (MAX_LENGTH - 1) + "…"]),  # cut
        ("\U0001f600" * MAX_LENGTH, ["\U0001f600" * MAX_LENGTH]),  # characters, not bytes
    ],
)
async def test_remember_normalises_and_bounds_the_text(notes: Notes, said: str, kept: list[str]) -> None:
    await notes.remember(7, PRIVATE, said)
    assert await notes.recall(7, PRIVATE) == kept


async def test_remember_moves_an_existing_note_to_the_end(notes: Notes) -> None:
    for text in ("a", "b", "a"):
        await notes.remember(7, PRIVATE, text)
    assert await notes.recall(7, PRIVATE) == ["b", "a"]


async def test_remember_drops_the_oldest_beyond_the_limit(notes: Notes) -> None:
    """Per user and chat."""
    await notes.remember(8, PRIVATE, "of another")
    for number in range(MAX_NOTES + 3):
        await notes.remember(7, PRIVATE, str(number))
    assert await notes.recall(7, PRIVATE) == [str(number) for number in range(3, MAX_NOTES + 3)]
    assert await notes.recall(8, PRIVATE) == ["of another"]


async def test_forget_deletes_one_note_or_all(notes: Notes) -> None:
    """Returns the number; other chats and users keep theirs."""
    for text in ("a", "b", "c"):
        await notes.remember(7, PRIVATE, text)
    await notes.remember(7, GROUP, "a")
    assert await notes.forget(7, PRIVATE, "a") == 1
    assert await notes.forget(7, PRIVATE, "a") == 0
    assert await notes.forget(7, PRIVATE) == 2
    assert await notes.recall(7, PRIVATE) == []
    assert await notes.recall(7, GROUP) == ["a"]


async def test_concurrent_replicas_lose_no_note(notes: Notes, replica: Database, clock: ManualClock) -> None:
    other = Notes(replica, clock)
    await asyncio.gather(*(which.remember(7, PRIVATE, f"{n}") for n, which in enumerate([notes, other] * 10)))
    assert sorted(await other.recall(7, PRIVATE), key=int) == [str(n) for n in range(20)]
