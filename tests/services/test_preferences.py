"""Preferences of chats."""

import asyncio

import pytest

from core.db.database import Database
from services.preferences import ChatPreferences, PreferenceStore
from tests.support.clock import ManualClock

pytestmark = pytest.mark.integration


@pytest.fixture
def preferences(database: Database, clock: ManualClock) -> PreferenceStore:
    """The store, on each kind of database."""
    return PreferenceStore(database, clock)


async def test_get_without_preferences_returns_none_values(preferences: PreferenceStore) -> None:
    """The caller's defaults apply."""
    assert await preferences.get("telegram:1") == ChatPreferences(None, None, None)


async def test_preferences_are_set_and_cleared_independently(preferences: PreferenceStore) -> None:
    """Per chat."""
    await preferences.set_footers("telegram:1", shown=True)
    await preferences.set_model("telegram:1", "ollama", "llama3.2")
    await preferences.set_model("telegram:1", "openai", "gpt-5-mini")
    assert await preferences.get("telegram:1") == ChatPreferences("openai", "gpt-5-mini", footers=True)
    await preferences.clear_model("telegram:1")
    assert await preferences.get("telegram:1") == ChatPreferences(None, None, footers=True)
    await preferences.set_footers("telegram:1", shown=False)
    assert (await preferences.get("telegram:1")).footers is False
    assert await preferences.get("telegram:2") == ChatPreferences()


async def test_get_reads_a_change_of_another_replica(
    preferences: PreferenceStore, replica: Database, clock: ManualClock
) -> None:
    """Nothing is cached."""
    other = PreferenceStore(replica, clock)
    await other.get("telegram:1")
    await preferences.set_model("telegram:1", "openai", "gpt-5-mini")
    assert (await other.get("telegram:1")).provider == "openai"


async def test_concurrent_first_preferences_are_both_kept(
    preferences: PreferenceStore, replica: Database, clock: ManualClock
) -> None:
    """The row is created once."""
    other = PreferenceStore(replica, clock)
    await asyncio.gather(
        preferences.set_model("telegram:1", "openai", "gpt-5-mini"), other.set_footers("telegram:1", shown=True)
    )
    assert await preferences.get("telegram:1") == ChatPreferences("openai", "gpt-5-mini", footers=True)
