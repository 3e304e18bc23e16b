"""The chat agent: instructions per turn, no model of its own."""

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
async def harness(file: Database, first: LLMServer) -> AsyncIterator[ChatHarness]:
    """The chat service with one provider."""
    async with chat_harness(file, provider("first", first.url)) as harness:
        yield harness


def test_create_agent_sets_no_model() -> None:
    """The bot starts while all providers are down: each turn brings its model."""
    assert create_agent().model is None


@pytest.mark.parametrize(
    ("incoming", "present", "absent"),
    [
        (message(), ["This is a private chat with Ann.", "The user's language setting is en."], ["group"]),
        (message(speaker=BOB), ["This is a private chat with Bob.", "language setting is ru-RU."], ["Ann"]),
        (message(speaker=Speaker(9, "{x}")), ['This is a private chat with "{x}".'], ["language setting"]),
        (message(key=GROUP), ["This is a group chat. Each message begins with the name"], ["private"]),
        (message(key=GROUP, chat_title="Tea {0}"), ['This is a group chat called "Tea {0}". Each'], ["private"]),
    ],
)
async def test_instructions_name_date_chat_and_language(
    harness: ChatHarness, first: LLMServer, incoming: Incoming, present: list[str], absent: list[str]
) -> None:
    """Braces in a user's or group's name are kept literally."""
    await harness.say(incoming)
    given = instructions(first.requests[-1])
    assert given.startswith("You are Understudy")
    assert "Today is Friday, 2027-01-15 (UTC)." in given
    for words in present:
        assert words in given
    for words in absent:
        assert words not in given


async def test_instructions_are_evaluated_for_each_turn(harness: ChatHarness, first: LLMServer) -> None:
    """A later turn has the current date only, as have the steps of a tool loop; instructions are not stored."""
    reply = await harness.say()
    harness.clock.shift(24 * 3600)
    first.script(tool_call("current_time", {}))
    await harness.say()
    for request in first.requests[1:]:
        assert "2027-01-16" in instructions(request)
        assert "2027-01-15" not in instructions(request)
        assert [each["role"] for each in request.json["messages"]].count("system") == 1
    stored = await harness.row(reply)
    assert "Understudy" not in stored.prompt + (stored.messages or "")


async def test_create_agent_disables_the_library_banner(
    harness: ChatHarness,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The library would print a banner to the terminal at its first run."""
    for variable in ("PYTEST_VERSION", "CI", "PYDANTIC_AI_NO_BANNER"):
        monkeypatch.delenv(variable, raising=False)
    # The library takes this for a reader where there is no terminal.
    monkeypatch.setenv("AI_AGENT", "1")
    monkeypatch.setattr(_display, "_banner_displayed", False)
    await harness.say()
    assert "observability" not in capsys.readouterr().err
    assert not _display._banner_displayed


async def test_routed_model_rejects_an_unconfigured_provider(harness: ChatHarness) -> None:
    """A configured choice creates a model."""
    with pytest.raises(UnknownProvider):
        harness.models.create_routed_model(RequestSpec("chat", choice=ModelChoice("gone")))
    chosen = RequestSpec("chat", choice=ModelChoice("first", "first-large"))
    assert harness.models.create_routed_model(chosen).model_name == "understudy"
