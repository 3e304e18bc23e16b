"""REMOTE_CONSENT=ask: no message leaves the operator's own machines before its chat has agreed."""

import pytest

from core.db.database import FILE_NAME
from tests.support.bot_harness import ADMIN, FIRST, GROUP, SECOND, BotHarness, told
from tests.support.documents import pdf
from tests.support.fake_llm.server import answer, status
from tests.support.sqlite_file import locked_file

AGREE, DECLINE = "Allow", "Keep local"


@pytest.fixture
async def asking(empty_stage: BotHarness) -> BotHarness:
    """The first provider is local and down, the second is remote."""
    empty_stage.first.default = status(401)
    await empty_stage.start(REMOTE_CONSENT="ask", B_REMOTE="true")
    # The start-up probe requested a model list and sent no message.
    await empty_stage.until(lambda: empty_stage.second.other_requests)
    return empty_stage


async def test_consent_granted_answers_the_waiting_message(asking: BotHarness) -> None:
    """Only the question is sent first, and not one byte reaches the remote provider."""
    connections = asking.second.connections
    asking.says("What is the capital of Peru?")
    question = await asking.seen(lambda message: AGREE in message.labels)
    assert question.labels == [AGREE, DECLINE]
    assert asking.second.connections == connections
    assert not asking.second.requests

    asking.presses(question, AGREE)
    answered = await asking.answer()

    assert SECOND in answered.text
    assert told(asking.second.requests[0]) == [("user", "What is the capital of Peru?")]
    # The next message needs no question.
    assert SECOND in (await asking.asks("And of Chile?")).text


async def test_no_byte_of_a_document_leaves_before_consent(asking: BotHarness) -> None:
    """This holds for documents that a child reads, and for long texts that the model reads by part."""
    connections = asking.second.connections
    asking.says("Sum it up.", document=pdf("Costs rise"), file_name="report.pdf", media_type="application/pdf")
    question = await asking.seen(lambda message: AGREE in message.labels)
    asking.presses(question, DECLINE)
    await asking.until(lambda: "stay on the operator’s own machines" in question.text)
    asking.says("", document=b"word " * 60_000, file_name="long.txt")
    question = await asking.seen(lambda message: AGREE in message.labels)
    await asking.quiet()
    assert asking.second.connections == connections
    assert not asking.second.requests

    asking.presses(question, AGREE)
    assert SECOND in (await asking.answer()).text
    assert "word word" in told(asking.second.requests[0])[-1][1]
    assert "Costs rise" not in str(asking.second.requests[0].json)


async def test_consent_granted_twice_answers_once(asking: BotHarness) -> None:
    """One message, one answer."""
    asking.says("What is the capital of Peru?")
    question = await asking.seen(lambda message: AGREE in message.labels)
    gone = asking.telegram.hold("editMessageText", 2)
    asking.presses(question, AGREE)
    asking.presses(question, AGREE)
    await asking.until(lambda: len(asking.events("consent.decided")) == 2)
    gone.end()
    await asking.answer()
    await asking.quiet()
    assert len(asking.second.requests) == 1


async def test_consent_withheld_keeps_messages_local(asking: BotHarness) -> None:
    """Nothing leaves the machine by a choice, a force or a retry; the next message asks again."""
    asking.says("Keep this between us, please.")
    question = await asking.seen(lambda message: AGREE in message.labels)
    asking.presses(question, DECLINE)
    await asking.until(lambda: "stay on the operator’s own machines" in question.text)
    asking.says("/provider force b", chat_id=ADMIN, user_id=ADMIN)
    await asking.reply(ADMIN)

    asking.says("And this as well, please.")
    await asking.seen(lambda message: AGREE in message.labels)

    assert not asking.second.requests


async def test_local_provider_answers_without_consent(asking: BotHarness) -> None:
    """No question while a local provider answers."""
    asking.first.default = answer(FIRST)

    assert FIRST in (await asking.asks("Who is there?")).text
    assert not asking.second.requests


async def test_group_admins_decide(asking: BotHarness) -> None:
    """A member's press changes nothing."""
    asking.telegram.chat(GROUP).admin_ids = {ADMIN}
    asking.says("@understudy_bot who discovered radium?", chat_id=GROUP, chat_type="supergroup", user_id=5)
    question = await asking.seen(lambda message: AGREE in message.labels, GROUP)

    assert "admins" in await asking.toast(asking.presses(question, AGREE, user_id=5))
    assert not asking.second.requests

    asking.presses(question, AGREE, user_id=ADMIN)
    assert SECOND in (await asking.answer(GROUP)).text


async def test_privacy_revokes_consent(asking: BotHarness) -> None:
    """`/privacy` shows and changes the setting."""
    asking.says("What is the capital of Peru?")
    asking.presses(await asking.seen(lambda message: AGREE in message.labels), AGREE)
    await asking.answer()

    asking.says("/privacy")
    standing = await asking.reply()
    assert "external providers: b" in standing.text
    asking.presses(standing, DECLINE)
    await asking.until(lambda: "stay on the operator’s own machines" in standing.text)
    served = len(asking.second.requests)

    asking.says("And the capital of Chile?")
    await asking.seen(lambda message: AGREE in message.labels)
    assert len(asking.second.requests) == served


async def test_database_failure_counts_as_no_consent(asking: BotHarness) -> None:
    """A message does not leave because the preference cannot be read."""
    asking.says("What is the capital of Peru?")
    asking.presses(await asking.seen(lambda message: AGREE in message.labels), AGREE)
    await asking.answer()
    served = len(asking.second.requests)
    async with locked_file(asking.directory / FILE_NAME) as other:
        other.execute("ALTER TABLE preferences RENAME TO out_of_reach")

    asking.says("And the capital of Chile?")
    await asking.reply()
    assert len(asking.second.requests) == served
