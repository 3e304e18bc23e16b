"""Startup and shutdown of the bot."""

import asyncio
import resource
import time

import pytest

from bot.telegram.answers.responder import LAST_EDIT_S
from core.errors import StartupError
from tests.support.bot_harness import FIRST, GROUP, LONG, PERSON, RETRY, SECOND, STOP, BotHarness, told
from tests.support.fake_llm.server import Answer, answer, gate


def held(event: asyncio.Event) -> Answer:
    """An answer whose beginning is shown and whose rest is released by the test."""
    behaviour = gate(event, after_pieces=1, then=answer(pieces=[LONG, "And the end."]))
    assert isinstance(behaviour, Answer)
    return behaviour


@pytest.mark.parametrize(("status", "description"), [(401, "Unauthorized"), (404, "Not Found")])
async def test_start_with_a_wrong_token_names_the_variable(
    empty_stage: BotHarness, status: int, description: str
) -> None:
    """One line, without the token."""
    empty_stage.telegram.fail("getMe", 100, status=status, description=description)
    with pytest.raises(
        StartupError, match=r"^TELEGRAM_BOT_TOKEN: Telegram does not accept this token.*example"
    ) as error:
        await empty_stage.start()
    assert "\n" not in str(error.value)
    assert "loopback-token" not in str(error.value)


async def test_start_waits_for_an_unreachable_telegram(empty_stage: BotHarness) -> None:
    stage = empty_stage
    await stage.telegram.stop()
    await stage.launch()
    await stage.until(lambda: stage.events("telegram.unreachable"))
    await stage.telegram.start()
    await stage.stands()
    assert (await stage.asks("Are you there?")).text == FIRST


@pytest.mark.parametrize(
    ("status", "description", "retry_after"),
    [(502, "Bad Gateway", None), (429, "Too Many Requests: retry after 1", 1)],
)
async def test_start_waits_for_a_failing_telegram(
    empty_stage: BotHarness, status: int, description: str, retry_after: int | None
) -> None:
    empty_stage.telegram.fail("getMe", 1, status=status, description=description, retry_after=retry_after)
    await empty_stage.start()
    assert (await empty_stage.asks("Are you there?")).text == FIRST


async def test_start_raises_the_open_files_limit(empty_stage: BotHarness) -> None:
    """A thousand answers are as many connections; the usual limit is 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(512, hard), hard))
    try:
        await empty_stage.start()
        raised, same = resource.getrlimit(resource.RLIMIT_NOFILE)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert raised == (65_536 if hard == resource.RLIM_INFINITY else min(hard, 65_536))
    assert same == hard


async def test_start_accepts_an_incomplete_getme(empty_stage: BotHarness) -> None:
    """Bot API servers differ; mentions still work."""
    empty_stage.telegram.garble("getMe", 100, body='{"ok": true, "result": {"id": 42, "username": "understudy_bot"}}')
    await empty_stage.start()
    assert (await empty_stage.asks("@understudy_bot are you there?", -100, user_id=PERSON)).text == FIRST


async def test_sigterm_during_the_connection_exits(empty_stage: BotHarness) -> None:
    await empty_stage.telegram.stop()
    await empty_stage.launch()
    await empty_stage.until(lambda: empty_stage.events("telegram.unreachable"))
    began = time.monotonic()
    assert await empty_stage.stop() == 0
    assert time.monotonic() - began < 1


async def test_start_without_any_provider(empty_stage: BotHarness) -> None:
    """It is logged, and messages are answered once a provider is back."""
    stage = empty_stage
    await asyncio.gather(stage.first.stop(), stage.second.stop())
    await stage.start()
    await stage.until(lambda: stage.events("bot.no_provider_ready"))
    silent = {entry["provider"]: entry["reason"] for entry in stage.events("provider.unreachable")}
    assert silent == {"a": "connection refused", "b": "connection refused"}
    failed = await stage.asks("Are you there?")
    assert failed.text.startswith("All AI providers are unavailable right now")
    await stage.second.start()
    stage.presses(failed, RETRY)
    assert (await stage.answer(after=failed.id)).text == SECOND
    assert (await stage.asks("And now?")).text == SECOND


async def test_start_with_all_providers_logs_no_warning(stage: BotHarness) -> None:
    await stage.until(lambda: stage.first.other_requests and stage.second.other_requests)
    await stage.quiet(0.1)
    assert not stage.events("provider.unreachable")
    assert not stage.events("bot.no_provider_ready")


async def test_revoked_token_ends_the_daemon(stage: BotHarness) -> None:
    stage.telegram.token = "42:another-token"
    stage.says("Are you there?")
    assert stage.task is not None
    await stage.until(stage.task.done)
    assert isinstance(stage.task.exception(), StartupError)


@pytest.mark.parametrize(
    ("language", "notice"),
    [
        ("en", "The bot is restarting. This answer will continue in a moment."),
        ("ru", "Бот перезапускается. Ответ продолжится через мгновение."),
    ],
)
async def test_sigterm_in_the_middle_of_an_answer(empty_stage: BotHarness, language: str, notice: str) -> None:
    """The text so far stays, marked; the next process makes the answer anew, in the same message."""
    stage = empty_stage
    await stage.start(SHUTDOWN_TIMEOUT="0.3")
    stage.first.script(held(asyncio.Event()))
    question = stage.says("Tell me something long.", language=language)
    message = await stage.seen(lambda message: bool(message.labels))
    assert await stage.stop() == 0
    assert message.text == f"{LONG.strip()}\n\n{notice}"
    assert message.labels == []
    assert [entry["jobs"] for entry in stage.events("inbox.jobs_interrupted")] == [1]
    await stage.start()
    assert (await stage.answer(after=question.id)).id == message.id
    assert stage.chat().texts() == [FIRST]
    assert told(stage.first.requests[-1]) == [("user", "Tell me something long.")]
    await stage.asks("Go on.")
    assert told(stage.first.requests[-1])[:2] == [("user", "Tell me something long."), ("assistant", FIRST)]


async def test_restart_removes_surplus_messages(empty_stage: BotHarness) -> None:
    """The new answer needs fewer messages."""
    stage = empty_stage
    await stage.start(SHUTDOWN_TIMEOUT="0.3")
    long = " ".join(f"Sentence number {number} of a long tale." for number in range(250))
    stage.first.script(gate(asyncio.Event(), after_pieces=1, then=answer(pieces=[long, "And the end."])))
    stage.says("Tell me something long.")
    await stage.until(lambda: len(stage.chat().texts()) == 3)
    assert await stage.stop() == 0
    await stage.start()
    await stage.until(lambda: stage.chat().texts() == [FIRST])


async def test_sigterm_before_the_first_output(empty_stage: BotHarness) -> None:
    stage = empty_stage
    await stage.start(SHUTDOWN_TIMEOUT="0.2")
    stage.first.script(gate(asyncio.Event(), then=answer()))
    question = stage.says("Tell me something long.")
    await stage.first.arrival(1)
    assert await stage.stop() == 0
    assert stage.chat().texts() == ["The bot is restarting. This answer will continue in a moment."]
    await stage.start()
    await stage.answer(after=question.id)
    assert stage.chat().texts() == [FIRST]


@pytest.mark.parametrize("chat_id", [PERSON, GROUP])
async def test_waiting_messages_are_answered_by_the_next_process(empty_stage: BotHarness, chat_id: int) -> None:
    """In order, each once."""
    stage = empty_stage
    await stage.start(SHUTDOWN_TIMEOUT="0.3")
    stage.first.script(held(asyncio.Event()))
    stage.says("/ask Tell me something long.", chat_id, user_id=PERSON)
    await stage.growing(chat_id)
    for question in ("And then?", "And what then?"):
        stage.says(f"/ask {question}", chat_id, user_id=PERSON)
    await stage.until(lambda: not stage.telegram.pending)
    assert await stage.stop() == 0
    assert len(stage.chat(chat_id).answers()) == 1
    await stage.start()
    await stage.until(lambda: stage.chat(chat_id).texts() == [FIRST] * 3)
    asked = [told(request)[-1][1].removeprefix("Ann: ") for request in stage.first.requests[1:]]
    assert [question.rpartition(": ")[2] for question in asked] == [
        "Tell me something long.",
        "And then?",
        "And what then?",
    ]


async def test_shutdown_is_bounded_when_telegram_hangs(empty_stage: BotHarness) -> None:
    """The next process delivers the rest."""
    stage = empty_stage
    await stage.start(SHUTDOWN_TIMEOUT="0.3", STREAM_MODE="off")
    stage.first.script(gate(asyncio.Event(), then=answer()))
    question = stage.says("Tell me something long.")
    await stage.first.arrival(1)
    stage.says("And then?")
    await stage.until(lambda: not stage.telegram.pending)
    held_back = stage.telegram.hold("sendMessage", 100)
    began = time.monotonic()
    assert await stage.stop() == 0
    assert time.monotonic() - began < LAST_EDIT_S + 3
    held_back.end()
    await stage.start()
    await stage.answer(after=question.id)
    await stage.until(lambda: stage.chat().texts()[-2:] == [FIRST, FIRST])


async def test_shutdown_finishes_the_running_answer(empty_stage: BotHarness) -> None:
    """Later messages are left to the next process."""
    stage = empty_stage
    await stage.start(SHUTDOWN_TIMEOUT="10")
    more = asyncio.Event()
    stage.first.script(held(more))
    stage.says("Tell me something long.")
    message = await stage.growing()
    stage.says("And then?")
    await stage.until(lambda: not stage.telegram.pending)
    stopping = asyncio.create_task(stage.stop())
    await stage.until(lambda: stage.events("bot.stopping"))
    assert message.labels == [STOP]
    more.set()
    assert await stopping == 0
    assert stage.chat().texts() == [f"{LONG}And the end."]
    await stage.start()
    await stage.until(lambda: stage.chat().texts() == [f"{LONG}And the end.", FIRST])
