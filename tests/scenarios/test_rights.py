"""Commands and buttons of the chat: typed by their author, pressed by who asked."""

import pytest

from tests.support.bot_harness import ADMIN, ELSEWHERE, FIRST, GROUP, PERSON, RETRY, BotHarness
from tests.support.fake_llm.server import answer

FORWARDED = {"forward_origin": {"type": "hidden_user", "date": 1, "sender_user_name": "Someone"}}
INLINE = {"via_bot": {"id": 77, "is_bot": True, "first_name": "Inline", "username": "inline_bot"}}
UNKNOWN = "Unknown command. /help lists the commands."
OWNER_ONLY = "Only the person who asked can retry this answer."
STRANGER = 8


async def test_a_forwarded_command_is_content(stage: BotHarness) -> None:
    """It is answered like any forwarded text, and changes nothing."""
    await stage.asks("Remember this")
    assert (await stage.asks("/new", extra=FORWARDED)).text == FIRST
    assert (await stage.asks("/provider force b", ADMIN, extra=FORWARDED)).text == FIRST
    assert "forced" not in (await stage.asks("And now?")).text
    assert len(stage.second.requests) == 0
    # The conversation went on: the model has the earlier messages.
    assert "Remember this" in str(stage.first.requests[-1].json)


async def test_messages_through_inline_bots_and_of_bots_are_not_answered(stage: BotHarness) -> None:
    stage.says("/help", extra=INLINE)
    stage.says("Hello", extra=INLINE)
    stage.says("/help", GROUP, user_id=99, extra={"from": {"id": 99, "is_bot": True, "first_name": "Other"}})
    await stage.quiet()
    assert not stage.chat().answers()
    assert not stage.chat(GROUP).answers()
    assert not stage.first.requests


@pytest.mark.parametrize("command", ["/provider", "/provider force b", "/dead"])
async def test_operator_commands_do_not_exist_for_others(stage: BotHarness, command: str) -> None:
    """Also in a caption; the answer is that to a command that does not exist."""
    photo = [{"file_id": "f", "file_unique_id": "u", "width": 1, "height": 1}]
    for text, extra in ((command, {}), ("/nonsense", {}), ("", {"photo": photo, "caption": command})):
        sent = stage.says(text, extra=extra)
        assert (await stage.reply(after=sent.id)).text == UNKNOWN
    sent = stage.says("", ADMIN, extra={"photo": photo, "caption": "/provider"})
    assert (await stage.reply(ADMIN, after=sent.id)).text != UNKNOWN


async def test_retry_in_a_group_is_for_who_asked(stage: BotHarness) -> None:
    stage.chat(GROUP).admin_ids = {STRANGER}
    question = stage.says("/ask What do you think?", GROUP, user_id=PERSON)
    message = await stage.answer(GROUP, after=question.id)
    for button in (RETRY, ELSEWHERE):
        query = stage.presses(message, button, STRANGER)
        assert await stage.toast(query) == OWNER_ONLY
    assert message.labels == [RETRY, ELSEWHERE]
    assert len(stage.first.requests) == 1
    stage.first.script(answer("A second thought."))
    stage.presses(message, RETRY, PERSON)
    assert (await stage.answer(GROUP, after=message.id)).text == "A second thought."


async def test_retry_of_a_question_in_the_name_of_the_group_is_for_its_admins(stage: BotHarness) -> None:
    """The person behind it is unknown. The answer counts to the group's name, as the first one did."""
    stage.chat(GROUP).admin_ids = {ADMIN}
    anonymous = {
        "sender_chat": {"id": GROUP, "type": "supergroup", "title": "The Group"},
        "from": {"id": 1087968824, "is_bot": True, "first_name": "Group"},
    }
    question = stage.says("/ask What do you think?", GROUP, user_id=1087968824, extra=anonymous)
    message = await stage.answer(GROUP, after=question.id)
    assert await stage.toast(stage.presses(message, RETRY, STRANGER)) == OWNER_ONLY
    fault = stage.telegram.fail("getChatMember", status=403, description="Forbidden", chat_id=GROUP)
    refused = await stage.toast(stage.presses(message, RETRY, ADMIN))
    assert "Telegram does not say whether you are one" in refused
    fault.end()
    stage.first.script(answer("A second thought."))
    stage.presses(message, RETRY, ADMIN)
    assert (await stage.answer(GROUP, after=message.id)).text == "A second thought."
