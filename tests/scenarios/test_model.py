"""`/model`: choosing provider and model."""

import json

import pytest

from tests.support.bot_harness import ADMIN, FIRST, GROUP, PERSON, SECOND, BotHarness
from tests.support.fake_llm.server import status
from tests.support.fake_telegram.chats import Message

BOB = 8


async def picker(stage: BotHarness, chat_id: int = PERSON, **more: int) -> Message:
    """Open the picker."""
    stage.says("/model", chat_id, **more)
    return await stage.reply(chat_id)


async def test_model_from_the_live_catalog_is_used(empty_stage: BotHarness) -> None:
    stage = empty_stage
    await stage.start(A_LIVE_MODELS="true")
    message = await picker(stage)
    assert message.text == "Which model should answer?\nCurrent: automatic (the first available provider)"
    assert message.labels == ["Automatic", "a", "b", "Show who answered"]
    stage.presses(message, "a")
    await stage.until(lambda: message.labels == ["m", "m2", "Back"])
    stage.presses(message, "m2")
    await stage.until(lambda: not message.labels)
    assert message.text == "m2 (a) will answer from now on. If it fails, another model takes over."
    await stage.asks("Are you there?")
    assert stage.first.requests[-1].model == "m2"
    assert (await picker(stage)).text == "Which model should answer?\nCurrent: a · m2"


async def test_model_choice_comes_first_and_falls_back(stage: BotHarness) -> None:
    message = await picker(stage)
    stage.presses(message, "b")
    await stage.until(lambda: "n" in message.labels)
    stage.presses(message, "n")
    await stage.until(lambda: not message.labels)
    assert (await stage.asks("Are you there?")).text == SECOND
    stage.second.default = status(503)
    assert (await stage.asks("And now?")).text == FIRST
    assert stage.first.requests[-1].model == "m"


async def test_model_choice_can_be_reset(stage: BotHarness) -> None:
    message = await picker(stage)
    stage.presses(message, "b")
    await stage.until(lambda: "n" in message.labels)
    stage.presses(message, "n")
    await stage.until(lambda: not message.labels)
    message = await picker(stage)
    stage.presses(message, "Automatic")
    await stage.until(lambda: not message.labels)
    assert message.text == "Set to automatic: the first available provider answers."
    assert (await stage.asks("Are you there?")).text == FIRST


async def test_model_picker_goes_back(stage: BotHarness) -> None:
    message = await picker(stage)
    stage.presses(message, "b")
    await stage.until(lambda: "Back" in message.labels)
    stage.presses(message, "Back")
    await stage.until(lambda: message.labels == ["Automatic", "a", "b", "Show who answered"])


async def test_model_picker_without_catalog_offers_configured_models(stage: BotHarness) -> None:
    await stage.first.stop()
    message = await picker(stage)
    stage.presses(message, "a")
    await stage.until(lambda: message.labels == ["m", "Back"])


async def test_model_picker_offers_live_models_to_admins_only(stage: BotHarness) -> None:
    """By default; everyone picks among the listed ones, and a forged button is refused."""
    message = await picker(stage)
    stage.presses(message, "a")
    await stage.until(lambda: message.labels == ["m", "Back"])
    of_admin = await picker(stage, ADMIN)
    stage.presses(of_admin, "a", ADMIN)
    await stage.until(lambda: of_admin.labels == ["m", "m2", "Back"])
    query = stage.presses(of_admin, "m2", PERSON)
    assert await stage.toast(query) == "This list is out of date. Please open /model again."
    stage.presses(of_admin, "m2", ADMIN)
    await stage.until(lambda: not of_admin.labels)


async def test_model_picker_offers_live_models_to_nobody_where_they_are_off(empty_stage: BotHarness) -> None:
    stage = empty_stage
    await stage.start(A_LIVE_MODELS="false")
    message = await picker(stage, ADMIN)
    stage.presses(message, "a", ADMIN)
    await stage.until(lambda: message.labels == ["m", "Back"])
    assert not stage.first.other_requests[1:]


async def test_model_picker_rejects_a_stale_entry(empty_stage: BotHarness) -> None:
    stage = empty_stage
    await stage.start(A_LIVE_MODELS="true")
    message = await picker(stage)
    stage.presses(message, "a")
    await stage.until(lambda: "m2" in message.labels)
    stage.first.models.remove("m2")
    stage.services.llm.catalog._cached.clear()  # a minute later
    query = stage.presses(message, "m2")
    assert await stage.toast(query) == "This list is out of date. Please open /model again."


@pytest.mark.parametrize("button", ["Automatic", "a"])
async def test_model_choice_in_a_group_is_for_admins(stage: BotHarness, button: str) -> None:
    stage.chat(GROUP).admin_ids.add(BOB)
    message = await picker(stage, GROUP, user_id=PERSON)
    query = stage.presses(message, button, PERSON)
    assert await stage.toast(query) == "In a group, only admins can choose the model."
    assert stage.telegram.callback_answers[query]["show_alert"]
    assert message.labels == ["Automatic", "a", "b", "Show who answered"]
    stage.presses(message, button, BOB)
    await stage.until(lambda: message.labels != ["Automatic", "a", "b", "Show who answered"])


async def test_model_choice_of_a_group_holds_for_all_members(stage: BotHarness) -> None:
    stage.chat(GROUP).admin_ids.add(BOB)
    message = await picker(stage, GROUP, user_id=BOB)
    stage.presses(message, "b", BOB)
    await stage.until(lambda: "n" in message.labels)
    stage.presses(message, "n", BOB)
    await stage.until(lambda: not message.labels)
    assert (await stage.asks("/ask Are you there?", GROUP, user_id=PERSON)).text == SECOND
    assert (await stage.asks("And here?", BOB)).text == FIRST


async def test_model_choice_is_refused_when_admins_are_unknown(stage: BotHarness) -> None:
    stage.telegram.fail("getChatMember", status=400, description="Bad Request: CHAT_ADMIN_REQUIRED")
    stage.chat(GROUP).admin_ids.add(BOB)
    message = await picker(stage, GROUP, user_id=BOB)
    query = stage.presses(message, "a", BOB)
    assert "only admins" in await stage.toast(query)


async def test_admin_status_is_read_from_an_undecodable_response(stage: BotHarness) -> None:
    """The response lacks a field that the library requires."""
    member = {"status": "administrator", "user": {"id": BOB, "is_bot": False, "first_name": "Bob"}}
    stage.telegram.garble("getChatMember", body=json.dumps({"ok": True, "result": member}))
    message = await picker(stage, GROUP, user_id=BOB)
    stage.presses(message, "a", BOB)
    await stage.until(lambda: message.labels == ["m", "Back"])


async def test_footers_can_be_switched_on_and_off(stage: BotHarness) -> None:
    assert (await stage.asks("Are you there?")).text == FIRST
    message = await picker(stage)
    query = stage.presses(message, "Show who answered")
    assert await stage.toast(query) == "Each answer now shows who gave it."
    await stage.until(lambda: message.labels[-1] == "Hide who answered")
    assert (await stage.asks("And now?")).text == f"{FIRST}\n\nanswered by a"
    stage.presses(message, "Hide who answered")
    await stage.until(lambda: message.labels[-1] == "Show who answered")
    assert (await stage.asks("And then?")).text == FIRST


async def test_footers_in_a_group_are_for_admins(stage: BotHarness) -> None:
    message = await picker(stage, GROUP, user_id=BOB)
    query = stage.presses(message, "Show who answered", BOB)
    assert await stage.toast(query) == "In a group, only admins can choose the model."
    assert message.labels[-1] == "Show who answered"


async def test_first_listed_model_that_the_server_has_is_the_default(empty_stage: BotHarness) -> None:
    """The first configured one is not in the server's list, and is not asked for."""
    stage = empty_stage
    await stage.start(AVAILABLE_PROVIDERS='{"a": ["gone", "m2"], "b": ["n"]}')
    await stage.until(lambda: stage.events("provider.models_passed_over"))
    assert (await stage.asks("Are you there?")).text == FIRST
    assert [request.json["model"] for request in stage.first.requests] == ["m2"]


async def test_first_listed_model_is_the_default_without_a_list(empty_stage: BotHarness) -> None:
    stage = empty_stage
    stage.first.models_behaviour = status(404)
    await stage.start(AVAILABLE_PROVIDERS='{"a": ["own", "m2"], "b": ["n"]}')
    await stage.until(lambda: stage.events("provider.no_model_list"))
    assert (await stage.asks("Are you there?")).text == FIRST
    assert [request.json["model"] for request in stage.first.requests] == ["own"]
