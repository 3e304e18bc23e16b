"""Preferences of chats, and languages of people and groups: stored, in force at once, followed by replicas."""

import asyncio

import pytest
from sqlalchemy import delete, text

from core.db.database import Database
from core.db.tables import LanguageRow
from core.errors import StorageError
from core.messages import ChatRef, UserRef
from services.preferences import ChatPreferences, Languages, PreferenceStore
from tests.support.clock import ManualClock

pytestmark = pytest.mark.integration

ANN, BOB, GROUP = UserRef("telegram:7"), UserRef("telegram:8"), ChatRef("telegram:-100")


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


async def test_choice_holds_at_once_and_after_a_restart(file: Database, clock: ManualClock) -> None:
    languages = Languages(file, clock)
    await languages.load()
    assert languages.chosen.get(ANN) is None
    await languages.choose(ANN, "ru")
    assert (languages.chosen.get(ANN), languages.chosen.get(BOB)) == ("ru", None)
    restarted = Languages(file, clock)
    await restarted.load()
    assert restarted.chosen.get(ANN) == "ru"
    await restarted.choose(ANN, None)
    assert restarted.chosen.get(ANN) is None


async def test_load_follows_changes_of_another_replica(file: Database, clock: ManualClock) -> None:
    here, there = Languages(file, clock), Languages(file, clock)
    await here.load()
    await there.choose(ANN, "ru")
    await here.load()
    assert here.chosen.get(ANN) == "ru"
    await clock.advance(3600)
    await there.choose(BOB, "en")
    await there.choose(ANN, None)
    await here.load()
    assert (here.chosen.get(ANN), here.chosen.get(BOB)) == (None, "en")


async def test_full_load_drops_a_choice_that_another_replica_erased(file: Database, clock: ManualClock) -> None:
    """The choices stay as they were while it is under way, and where it fails."""
    languages = Languages(file, clock)
    await languages.choose(ANN, "ru")
    await languages.choose(BOB, "en")
    await languages.load()
    await file.run(lambda connection: connection.execute(delete(LanguageRow).where(LanguageRow.owner == ANN)) and None)
    await languages.load()
    assert languages.chosen.get(ANN) == "ru"
    loading = asyncio.create_task(languages.load(is_full=True))
    await asyncio.sleep(0)
    assert languages.chosen == {ANN: "ru", BOB: "en"}
    await loading
    assert languages.chosen == {BOB: "en"}
    await file.run(lambda connection: connection.execute(text("DROP TABLE languages")) and None)
    with pytest.raises(StorageError):
        await languages.load(is_full=True)
    assert languages.chosen == {BOB: "en"}


async def test_forget_drops_a_choice_from_memory(file: Database, clock: ManualClock) -> None:
    languages = Languages(file, clock)
    await languages.choose(ANN, "ru")
    languages.forget(ANN)
    assert languages.chosen.get(ANN) is None


async def test_run_ends_where_there_is_one_process(file: Database, clock: ManualClock) -> None:
    await Languages(file, clock).run()
