"""ALLOWED_USER_IDS and ALLOWED_CHAT_IDS."""

import pytest

from tests.support.bot_harness import ADMIN, ELSEWHERE, FIRST, GROUP, RETRY, BotHarness

FRIEND, STRANGER = 7, 8
NOT_ALLOWED = "This bot is limited to selected users and groups. Please ask its operator for access."


async def test_access_list_admits_listed_users_and_admins(empty_stage: BotHarness) -> None:
    stage = empty_stage
    await stage.start(ALLOWED_USER_IDS=str(FRIEND))
    for person in (FRIEND, ADMIN):
        assert (await stage.asks("Are you there?", person)).text == FIRST
    stage.says("Are you there?", STRANGER)
    assert (await stage.reply(STRANGER)).text == NOT_ALLOWED
    assert len(stage.first.requests) == 2


@pytest.mark.parametrize("said", ["/start", "/help", "/model", "/new", "/provider"])
async def test_access_list_rejects_commands_of_others(empty_stage: BotHarness, said: str) -> None:
    await empty_stage.start(ALLOWED_USER_IDS=str(FRIEND))
    empty_stage.says(said, STRANGER)
    assert (await empty_stage.reply(STRANGER)).text == NOT_ALLOWED


async def test_access_list_ignores_others_in_groups(empty_stage: BotHarness) -> None:
    """Listed users are answered there; the buttons under the answer do not work for others."""
    stage = empty_stage
    await stage.start(ALLOWED_USER_IDS=str(FRIEND))
    stage.says("/ask Are you there?", GROUP, user_id=STRANGER)
    message = await stage.asks("/ask Are you there?", GROUP, user_id=FRIEND)
    assert len(stage.chat(GROUP).answers()) == 1
    query = stage.presses(message, RETRY, STRANGER)
    assert await stage.toast(query) == NOT_ALLOWED
    assert message.labels == [RETRY, ELSEWHERE]
    assert len(stage.first.requests) == 1


async def test_access_list_admits_everyone_in_a_listed_group(empty_stage: BotHarness) -> None:
    """In that group only, not in private or in another group."""
    stage = empty_stage
    await stage.start(ALLOWED_CHAT_IDS=str(GROUP))
    assert (await stage.asks("/ask Are you there?", GROUP, user_id=STRANGER)).text == FIRST
    stage.says("/ask Are you there?", -101, user_id=STRANGER)
    stage.says("Are you there?", STRANGER)
    assert (await stage.reply(STRANGER)).text == NOT_ALLOWED
    assert not stage.chat(-101).answers()


async def test_without_access_list_everyone_is_admitted(stage: BotHarness) -> None:
    assert (await stage.asks("Are you there?", STRANGER)).text == FIRST
    assert (await stage.asks("/ask And here?", GROUP, user_id=STRANGER)).text == FIRST
