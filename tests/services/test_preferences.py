"""What chats chose."""

import asyncio

import pytest

from core.db.database import Database
from services.preferences import ChatPreferences, PreferenceStore
from tests.support.clock import ManualClock


@pytest.fixture
def preferences(database: Database, clock: ManualClock) -> PreferenceStore:
    """The choices, on each kind of database."""
    return PreferenceStore(database, clock)


async def test_a_chat_that_chose_nothing(preferences: PreferenceStore) -> None:
    """None everywhere, so that the caller's defaults hold."""
    assert await preferences.get("telegram:1") == ChatPreferences(None, None, None)


async def test_choices_stand_side_by_side(preferences: PreferenceStore) -> None:
    """Each is set and cleared by itself, for one chat."""
    await preferences.set_footers("telegram:1", shown=True)
    await preferences.set_model("telegram:1", "ollama", "llama3.2")
    await preferences.set_model("telegram:1", "openai", "gpt-5-mini")
    assert await preferences.get("telegram:1") == ChatPreferences("openai", "gpt-5-mini", footers=True)
    await preferences.clear_model("telegram:1")
    assert await preferences.get("telegram:1") == ChatPreferences(None, None, footers=True)
    await preferences.set_footers("telegram:1", shown=False)
    assert (await preferences.get("telegram:1")).footers is False
    assert await preferences.get("telegram:2") == ChatPreferences()


async def test_another_replica_sees_it_at_once(
    preferences: PreferenceStore, replica: Database, clock: ManualClock
) -> None:
    """Also when it had read the old choice a moment ago."""
    other = PreferenceStore(replica, clock)
    await other.get("telegram:1")
    await preferences.set_model("telegram:1", "openai", "gpt-5-mini")
    assert (await other.get("telegram:1")).provider == "openai"


async def test_two_first_choices_at_once_are_both_kept(
    preferences: PreferenceStore, replica: Database, clock: ManualClock
) -> None:
    """The row that both want to make is made once."""
    other = PreferenceStore(replica, clock)
    await asyncio.gather(
        preferences.set_model("telegram:1", "openai", "gpt-5-mini"), other.set_footers("telegram:1", shown=True)
    )
    assert await preferences.get("telegram:1") == ChatPreferences("openai", "gpt-5-mini", footers=True)
