"""Languages that people and groups chose: stored, in force at once, followed by other replicas."""

import pytest

from core.db.database import Database
from core.messages import ChatRef, UserRef
from services.preferences import Languages
from tests.support.clock import ManualClock

pytestmark = pytest.mark.integration

ANN, BOB, GROUP = UserRef("telegram:7"), UserRef("telegram:8"), ChatRef("telegram:-100")


async def test_choice_holds_at_once_and_after_a_restart(file: Database, clock: ManualClock) -> None:
    languages = Languages(file, clock)
    await languages.load()
    assert languages.of(ANN) is None
    await languages.choose(ANN, "ru")
    assert (languages.of(ANN), languages.of(BOB)) == ("ru", None)
    restarted = Languages(file, clock)
    await restarted.load()
    assert restarted.of(ANN) == "ru"
    await restarted.choose(ANN, None)
    assert restarted.of(ANN) is None


async def test_language_of_a_group_stands_before_that_of_a_person(file: Database, clock: ManualClock) -> None:
    languages = Languages(file, clock)
    await languages.choose(GROUP, "en")
    await languages.choose(ANN, "ru")
    assert languages.of(ANN, GROUP) == "en"
    assert languages.of(ANN) == "ru"
    await languages.choose(GROUP, None)
    assert languages.of(ANN, GROUP) == "ru"


async def test_load_follows_changes_of_another_replica(file: Database, clock: ManualClock) -> None:
    here, there = Languages(file, clock), Languages(file, clock)
    await here.load()
    await there.choose(ANN, "ru")
    await here.load()
    assert here.of(ANN) == "ru"
    await clock.advance(3600)
    await there.choose(BOB, "en")
    await there.choose(ANN, None)
    await here.load()
    assert (here.of(ANN), here.of(BOB)) == (None, "en")


async def test_forget_drops_a_choice_from_memory(file: Database, clock: ManualClock) -> None:
    languages = Languages(file, clock)
    await languages.choose(ANN, "ru")
    languages.forget(ANN)
    assert languages.of(ANN) is None


async def test_run_ends_where_there_is_one_process(file: Database, clock: ManualClock) -> None:
    await Languages(file, clock).run()
