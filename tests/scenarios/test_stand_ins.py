"""The line under an answer that left the operator's own machines because a local provider failed."""

import pytest

from tests.support.bot_harness import ELSEWHERE, FIRST, GROUP, SECOND, BotHarness
from tests.support.fake_llm.server import answer, status

LINE = "a is unavailable right now, so b answered: an external provider, not the operator’s own machines."
RUSSIAN = "a сейчас недоступен, поэтому ответил b: это внешний провайдер, а не сервер владельца бота."


def told(text: str) -> str:
    """Return the second provider's answer with the line."""
    return f"{SECOND}\n\n{text}"


@pytest.fixture
async def failing(empty_stage: BotHarness) -> BotHarness:
    """The first provider is local and down, the second is remote."""
    empty_stage.first.default = status(401)
    await empty_stage.start(B_REMOTE="true")
    return empty_stage


async def test_first_remote_answer_of_an_outage_says_so(failing: BotHarness) -> None:
    """Once per chat, in the language of its reader."""
    assert (await failing.asks("Are you there?")).text == told(LINE)
    assert (await failing.asks("And now?")).text == SECOND
    assert (await failing.asks("Ты здесь?", 8, language="ru")).text == told(RUSSIAN)
    assert (await failing.asks("А теперь?", 8, language="ru")).text == SECOND


async def test_each_outage_says_so_once(empty_stage: BotHarness) -> None:
    """Failed probes prolong an outage; an answer of the local provider ends it."""
    stage = empty_stage
    await stage.start(B_REMOTE="true", PROVIDER_COOLDOWN="0.3", A_RETRIES="0")
    for _ in range(2):
        stage.first.default = status(503)
        assert (await stage.asks("Are you there?")).text == told(LINE)
        await stage.quiet(0.35)
        asked = len(stage.first.requests)
        assert (await stage.asks("And now?")).text == SECOND
        assert len(stage.first.requests) > asked
        await stage.quiet(0.35)
        stage.first.default = answer(FIRST)
        assert (await stage.asks("Back again?")).text == FIRST


async def test_remote_answer_without_a_local_failure_says_nothing(empty_stage: BotHarness) -> None:
    """Neither a remote provider that leads or fails, nor a local one that stands in, nor the user's own choice."""
    stage = empty_stage
    await stage.start(A_REMOTE="true")
    assert (await stage.asks("Who leads?")).text == FIRST
    assert (await stage.asks("Who else?")).text == FIRST
    stage.first.default = status(401)
    assert (await stage.asks("And who stands in?")).text == SECOND


async def test_chosen_remote_provider_says_nothing(empty_stage: BotHarness) -> None:
    """Retry elsewhere is the user's own decision, also while the local provider is down."""
    stage = empty_stage
    await stage.start(B_REMOTE="true")
    message = await stage.asks("Are you there?")
    stage.first.default = status(401)
    stage.presses(message, ELSEWHERE)
    await stage.until(lambda: "b" in message.labels)
    stage.presses(message, "b")
    assert (await stage.answer(after=message.id)).text == SECOND
    assert (await stage.asks("And now?")).text == told(LINE)


async def test_groups_read_the_line_too(failing: BotHarness) -> None:
    failing.says("/ask Are you there?", chat_id=GROUP)
    assert (await failing.answer(GROUP)).text == told(LINE)
