"""The agent: what it is told about its circumstances, and what it costs to make one."""

from collections.abc import AsyncIterator

import pytest
from pydantic_ai import _display

from core.db.database import Database
from core.errors import UnknownProvider
from core.messages import Incoming, Speaker
from services.chat.agent import create_agent
from services.llm.request import ModelChoice, RequestSpec
from tests.support.chat_harness import BOB, GROUP, ChatHarness, chat_harness, instructions, message
from tests.support.fake_llm.server import LLMServer, tool_call
from tests.support.llm_harness import provider


@pytest.fixture
async def bench(file: Database, first: LLMServer) -> AsyncIterator[ChatHarness]:
    """A chat with one provider."""
    async with chat_harness(file, provider("first", first.url)) as bench:
        yield bench


def test_agent_has_no_model_of_its_own() -> None:
    """A bot whose providers are all down starts: each turn brings its model."""
    assert create_agent().model is None


@pytest.mark.parametrize(
    ("incoming", "told", "untold"),
    [
        (message(), ["This is a private chat with Ann.", "The user's language setting is en."], ["group"]),
        (message(speaker=BOB), ["This is a private chat with Bob.", "language setting is ru-RU."], ["Ann"]),
        (message(speaker=Speaker(9, "{x}")), ["This is a private chat with {x}."], ["language setting"]),
        (message(key=GROUP), ["This is a group chat. Each message begins with the name"], ["private"]),
        (message(key=GROUP, chat_title="Tea {0}"), ['This is a group chat called "Tea {0}". Each'], ["private"]),
    ],
)
async def test_circumstances(
    bench: ChatHarness, first: LLMServer, incoming: Incoming, told: list[str], untold: list[str]
) -> None:
    """The date, whom it talks to, in which language; a name is a name, whatever is in it."""
    await bench.say(incoming)
    given = instructions(first.requests[-1])
    assert given.startswith("You are Understudy")
    assert "Today is Friday, 2027-01-15 (UTC)." in given
    for words in told:
        assert words in given
    for words in untold:
        assert words not in given


async def test_made_anew_for_each_turn(bench: ChatHarness, first: LLMServer) -> None:
    """A conversation that goes on tomorrow is told tomorrow's date, and only that; so is a step of a tool loop."""
    reply = await bench.say()
    bench.clock.shift(24 * 3600)
    first.script(tool_call("current_time", {}))
    await bench.say()
    for request in first.requests[1:]:
        assert "2027-01-16" in instructions(request)
        assert "2027-01-15" not in instructions(request)
        assert [each["role"] for each in request.json["messages"]].count("system") == 1
    stored = await bench.row(reply)
    assert "Understudy" not in stored.prompt + (stored.messages or "")


async def test_no_advertisement_in_the_middle_of_a_chat(
    bench: ChatHarness,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The library writes one to the terminal at the first run, unless it is told not to."""
    for variable in ("PYTEST_VERSION", "CI", "PYDANTIC_AI_NO_BANNER"):
        monkeypatch.delenv(variable, raising=False)
    # What the library takes for somebody who reads, where there is no terminal.
    monkeypatch.setenv("AI_AGENT", "1")
    monkeypatch.setattr(_display, "_banner_displayed", False)
    await bench.say()
    assert "observability" not in capsys.readouterr().err
    assert not _display._banner_displayed


async def test_a_choice_that_is_not_configured(bench: ChatHarness) -> None:
    """It is told to whoever asks for such a model."""
    with pytest.raises(UnknownProvider):
        bench.models.create_routed_model(RequestSpec("chat", choice=ModelChoice("gone")))
    chosen = RequestSpec("chat", choice=ModelChoice("first", "first-large"))
    assert bench.models.create_routed_model(chosen).model_name == "understudy"
