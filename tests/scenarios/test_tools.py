"""Tool calls within an answer."""

from tests.support.bot_harness import SECOND, BotHarness
from tests.support.fake_llm.server import answer, status, tool_call


async def test_note_tool_stores_and_recalls(stage: BotHarness) -> None:
    """The user sees one answer."""
    stage.first.script(tool_call("remember", {"note": "Ann likes tea."}), answer("I will remember that."))
    assert (await stage.asks("I like tea.")).text == "I will remember that."
    stage.first.script(tool_call("recall", {}), answer("Tea."))
    assert (await stage.asks("What do I like?")).text == "Tea."
    assert "Ann likes tea." in str(stage.first.requests[-1].json["messages"][-1])
    assert len(stage.chat().answers()) == 2


async def test_failover_within_a_tool_loop(stage: BotHarness) -> None:
    """Each step is a request of its own."""
    stage.first.script(tool_call("current_time", {"time_zone": "Europe/Berlin"}), status(503), status(503))
    assert (await stage.asks("What time is it in Berlin?")).text == SECOND
    roles = [message["role"] for message in stage.second.requests[-1].json["messages"]]
    assert roles[-3:] == ["user", "assistant", "tool"]


async def test_tool_loop_is_bounded(stage: BotHarness) -> None:
    stage.first.default = tool_call("current_time", {"time_zone": "UTC"})
    message = await stage.asks("What time is it?")
    assert message.text.startswith("This request needs more steps than one answer may take")
    assert len(stage.first.requests) <= 8
