"""Updates that Telegram would not send, and floods of others: none is a bug, and other people are answered."""

import json
import random

import pytest

from bot.telegram.api.updates import has_stored_numbers
from tests.support.bot_harness import FIRST, BotHarness
from tests.support.generated_updates import floods, mutate, valid_updates
from tests.support.moderated_group import ModeratedGroup

SEED, MUTATIONS = 7, 70


async def test_generated_updates_are_no_bugs(empty_stage: BotHarness) -> None:
    await empty_stage.start(LIMIT_MESSAGES_PER_MINUTE="0", STREAM_MODE="off")
    group = await ModeratedGroup(empty_stage).open()
    chance, valid = random.Random(SEED), list(valid_updates(group.id))
    mutations = [mutate(chance.choice(valid), chance) for _ in range(MUTATIONS)]
    for update in (*valid, *mutations, *floods(group.id)):
        empty_stage.telegram.push_update(**update)
    await empty_stage.until(lambda: not empty_stage.telegram.pending, 50)
    await empty_stage.quiet(0.5)
    empty_stage.says("Are you still there?", 4242)
    assert (await empty_stage.answer(4242, timeout=50)).text == FIRST
    entries = [json.loads(line) for line in empty_stage.log.splitlines() if line.startswith("{")]
    assert [entry["exception"] for entry in entries if "exception" in entry] == []
    failed = [entry for entry in entries if entry["event"] in {"inbox.job_failed", "inbox.failure_notice_failed"}]
    assert failed == []


@pytest.mark.parametrize(
    ("fields", "are_stored"),
    [
        ({"message_id": 2**63 - 1, "date": 1_800_000_000}, True),
        ({"message_id": 2**63}, False),
        ({"chat": {"id": -(2**63) - 1, "type": "private"}}, False),
        ({"from": {"id": "9" * 30, "is_bot": False}}, False),
        ({"edit_date": 10**12}, False),
        ({"until_date": -1}, False),
        ({"message_thread_id": 1e300}, False),
        # Ids of presses and of files are texts, of digits now and then.
        ({"callback_query": {"id": "9" * 30, "data": "9" * 60}}, True),
        ({"file_id": "AgADBAADr6cxG"}, True),
        ({"text": "9" * 4000}, True),
        ({"users": [{"id": 2**70}]}, False),
    ],
)
def test_numbers_that_cannot_be_stored_are_found(fields: dict[str, object], are_stored: bool) -> None:
    assert has_stored_numbers(fields) is are_stored
