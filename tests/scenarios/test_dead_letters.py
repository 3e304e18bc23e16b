"""Dead letters: messages that failed repeatedly, kept for the operators."""

import math
import re

import pytest

from core.errors import StorageError
from services.chat.store.turns import TurnStore
from tests.support.bot_harness import ADMIN, FIRST, GROUP, PERSON, BotHarness

pytestmark = pytest.mark.usefixtures("short_retries")

SORRY = "Something went wrong on our side. The error has been logged. Please try again."
NO_DATABASE = "The database is unavailable right now"


class Trouble:
    """Makes `/new` fail a number of times."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.times = 0
        self.error: Exception = StorageError("the database failed: out of tune")
        self.left = math.inf
        original = TurnStore.start_new

        async def start_new(threads: TurnStore, key: object) -> object:
            self.times += 1
            self.left -= 1
            if self.left >= 0:
                raise self.error
            return await original(threads, key)

        patch.setattr(TurnStore, "start_new", start_new)


@pytest.fixture
def trouble(monkeypatch: pytest.MonkeyPatch) -> Trouble:
    return Trouble(monkeypatch)


async def number_of_the_letter(stage: BotHarness) -> int:
    """Return the number of the dead letter once it is listed."""
    while True:
        stage.says("/dead", ADMIN)
        # The notice of a dead letter may come first.
        listed = await stage.seen(lambda said: said.text.startswith(("Dead letters", "There are no dead")), ADMIN)
        found = re.search(r"^(\d+)\. ", listed.text, re.MULTILINE)
        if found is not None:
            return int(found[1])


async def test_transient_failure_is_retried_silently(stage: BotHarness, trouble: Trouble) -> None:
    """The third attempt answers."""
    trouble.left = 2
    stage.says("/new")
    assert (await stage.reply()).text.startswith("Started a new conversation")
    assert len(stage.chat().texts()) == 1
    assert not stage.chat(ADMIN).texts()


async def test_repeated_failure_becomes_a_dead_letter(stage: BotHarness, trouble: Trouble) -> None:
    """The sender is told once, later messages are answered, operators are notified and can replay or drop it."""
    stage.says("/new")
    sorry = (await stage.reply()).text
    assert sorry.startswith(NO_DATABASE)
    assert (await stage.asks("Are you there?")).text == FIRST
    assert stage.chat().texts() == [sorry, FIRST]
    assert trouble.times == 3
    await stage.until(lambda: any("dead letters" in text for text in stage.chat(ADMIN).texts()))
    stage.says("/dead", ADMIN)
    listed = await stage.reply(ADMIN)
    assert "out of tune" in listed.text
    assert "telegram:7:0" in listed.text
    assert listed.labels == ["replay 1", "drop 1"]

    trouble.left = 0
    stage.presses(listed, "replay 1")
    await stage.until(lambda: stage.chat().texts()[-1].startswith("Started a new conversation"))
    await stage.until(lambda: listed.text.startswith("There are no dead letters"))
    assert not listed.labels
    audit = await stage.services.operators.audit.recent()
    assert [(entry.action, entry.actor_id) for entry in audit] == [("dead.replay", ADMIN)]


async def test_bug_becomes_a_dead_letter_at_once(stage: BotHarness, trouble: Trouble) -> None:
    """It would fail each time; the operators are notified."""
    trouble.error = KeyError("out of tune")
    stage.says("/new")
    assert (await stage.reply()).text == SORRY
    assert trouble.times == 1
    await stage.until(lambda: any("dead letters" in text for text in stage.chat(ADMIN).texts()))


async def test_failed_replay_becomes_a_dead_letter_again(stage: BotHarness, trouble: Trouble) -> None:
    trouble.error = KeyError("out of tune")
    stage.says("/new")
    await stage.reply()
    for times in (1, 2):
        stage.says(f"/dead replay {await number_of_the_letter(stage)}", ADMIN)
        await stage.until(lambda times=times: stage.chat().texts() == [SORRY] * (times + 1))
    assert trouble.times == 3
    number = await number_of_the_letter(stage)
    stage.says(f"/dead drop {number}", ADMIN)
    assert f"{number} is deleted" in (await stage.reply(ADMIN)).text
    stage.says(f"/dead drop {number}", ADMIN)
    assert f"There is no dead letter {number}" in (await stage.reply(ADMIN)).text
    stage.says(f"/dead bury {number}", ADMIN)
    assert (await stage.reply(ADMIN)).text.startswith("Usage:")


@pytest.mark.parametrize("chat_id", [PERSON, GROUP])
async def test_dead_is_unknown_to_non_operators(stage: BotHarness, chat_id: int) -> None:
    stage.says("/dead", chat_id, user_id=PERSON)
    if chat_id == PERSON:
        assert (await stage.reply()).text.startswith("Unknown command")
    else:
        await stage.quiet()
        assert not stage.chat(GROUP).texts()
