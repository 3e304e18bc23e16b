"""Failover from the user's point of view."""

import time

import pytest

from tests.support.bot_harness import ELSEWHERE, FIRST, RETRY, SECOND, BotHarness, told
from tests.support.fake_llm.server import (
    NO_SUCH_HOST_URL,
    Behaviour,
    answer,
    cut,
    empty_answer,
    empty_stream,
    error_object_in_200,
    hang,
    hang_after_headers,
    html_page,
    no_choices,
    refusing_url,
    reset,
    status,
    thinking_only,
)

DEADLINE_S = 3.0
"""The first provider has half a second until its first output; the rest is room for a slow machine."""

FAULTS = {
    "fails": status(500),
    "is overloaded": status(503),
    "has no capacity left": status(429, headers={"Retry-After": "30"}),
    "does not know the key": status(401),
    "hangs": hang(),
    "hangs after its headers": hang_after_headers(),
    "ends its stream empty": empty_stream(),
    "answers nothing": empty_answer(),
    "answers without a choice": no_choices(),
    "only thinks": thinking_only(),
    "answers with an error": error_object_in_200(),
    "answers with a web page": html_page(),
    "resets the connection": reset(),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
async def test_failover_to_the_second_provider(empty_stage: BotHarness, fault: Behaviour) -> None:
    """In time and without a trace for the user; the first is not asked again."""
    stage = empty_stage
    stage.first.default = fault
    await stage.start(A_FIRST_TOKEN_TIMEOUT="0.5")
    began = time.monotonic()
    message = await stage.asks("Are you there?")
    assert time.monotonic() - began < DEADLINE_S
    assert (message.text, message.labels) == (SECOND, [RETRY, ELSEWHERE])
    asked = len(stage.first.requests)
    for question in ("And now?", "Still?"):
        assert (await stage.asks(question)).text == SECOND
    assert len(stage.first.requests) == asked
    assert len(stage.second.requests) == 3


async def test_failover_on_refused_connection(empty_stage: BotHarness) -> None:
    with refusing_url() as url:
        await empty_stage.start(A_BASE_URL=url)
        assert (await empty_stage.asks("Are you there?")).text == SECOND
        assert (await empty_stage.asks("And now?")).text == SECOND
    assert len(empty_stage.events("provider.failed")) == 1


async def test_failover_on_unresolvable_host(empty_stage: BotHarness) -> None:
    await empty_stage.start(A_BASE_URL=NO_SUCH_HOST_URL)
    assert (await empty_stage.asks("Are you there?")).text == SECOND


async def test_single_500_is_retried_on_the_same_provider(stage: BotHarness) -> None:
    stage.first.script(status(500))
    assert (await stage.asks("Are you there?")).text == FIRST
    assert not stage.second.requests


async def test_first_provider_returns_after_its_cooldown(empty_stage: BotHarness) -> None:
    stage = empty_stage
    await stage.start(PROVIDER_COOLDOWN="0.5")
    stage.first.script(status(500), status(500))
    assert (await stage.asks("Are you there?")).text == SECOND
    await stage.quiet(0.5)
    assert (await stage.asks("And now?")).text == FIRST
    assert (await stage.asks("Still?")).text == FIRST


async def test_failover_keeps_the_history(stage: BotHarness) -> None:
    await stage.asks("My name is Ann.")
    stage.first.default = status(503)
    await stage.asks("What is my name?")
    assert told(stage.second.requests[-1]) == [
        ("user", "My name is Ann."),
        ("assistant", FIRST),
        ("user", "What is my name?"),
    ]


async def test_interrupted_answer_is_kept_without_failover(stage: BotHarness) -> None:
    """Half an answer with a whole one appended would be worse than half an answer."""
    stage.first.script(cut(after_pieces=3))
    message = await stage.asks("Are you there?")
    kept, _, mark = message.text.partition("\n\n")
    assert (kept, mark) == ("The audience hears", "The answer was interrupted.")
    assert message.labels == [RETRY, ELSEWHERE]
    assert not stage.second.requests
    assert (await stage.asks("And now?")).text == SECOND, "it cools down all the same"
    assert told(stage.second.requests[-1])[:2] == [("user", "Are you there?"), ("assistant", kept)]


async def test_all_providers_failed_sends_one_line(stage: BotHarness) -> None:
    """Retry asks the same message again once a provider is back."""
    stage.first.default = stage.second.default = status(503)
    question = stage.says("What is the answer?")
    failed = await stage.answer()
    assert failed.text == "All AI providers are unavailable right now. Please try again in a minute."
    assert failed.labels == [RETRY, ELSEWHERE]
    assert [message.text for message in stage.chat().answers()] == [failed.text]
    reasons = stage.events("turn.unanswered") or stage.events("provider.failed")
    assert {entry["provider"] for entry in reasons} == {"a", "b"}
    stage.second.default = answer(SECOND)
    stage.presses(failed, RETRY)
    assert (await stage.answer(after=failed.id)).text == SECOND
    assert told(stage.second.requests[-1]) == [("user", question.text)]
    assert not failed.buttons
    assert len(stage.chat().answers()) == 2
