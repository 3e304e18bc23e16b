"""What the model does on the way to an answer."""

from tests.support.bot_harness import SECOND, BotHarness
from tests.support.fake_llm.server import answer, status, tool_call


async def test_a_note_is_kept_and_recalled(stage: BotHarness) -> None:
    """However many steps it takes, the person sees one answer."""
    stage.first.script(tool_call("remember", {"note": "Ann likes tea."}), answer("I will remember that."))
    assert (await stage.asks("I like tea.")).text == "I will remember that."
    stage.first.script(tool_call("recall", {}), answer("Tea."))
    assert (await stage.asks("What do I like?")).text == "Tea."
    assert "Ann likes tea." in str(stage.first.requests[-1].json["messages"][-1])
    assert len(stage.chat().answers()) == 2


async def test_another_provider_goes_on_in_the_middle_of_a_tool_loop(stage: BotHarness) -> None:
    """Each step is a request of its own, so the second step may be somebody else's."""
    stage.first.script(tool_call("current_time", {"time_zone": "Europe/Berlin"}), status(503), status(503))
    assert (await stage.asks("What time is it in Berlin?")).text == SECOND
    roles = [message["role"] for message in stage.second.requests[-1].json["messages"]]
    assert roles[-3:] == ["user", "assistant", "tool"]


async def test_a_model_that_never_stops_using_tools(stage: BotHarness) -> None:
    stage.first.default = tool_call("current_time", {"time_zone": "UTC"})
    message = await stage.asks("What time is it?")
    assert message.text.startswith("This request needs more steps than one answer may take")
    assert len(stage.first.requests) <= 8
