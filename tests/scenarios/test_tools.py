"""Tool calls within an answer."""

import asyncio

from aiohttp import web
from aiohttp.test_utils import TestServer

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


async def test_long_tool_work_is_shown_while_the_user_waits(empty_stage: BotHarness) -> None:
    """In the message that becomes the answer, in the user's language."""
    stage = empty_stage
    searched, found = asyncio.Event(), asyncio.Event()

    async def search(request: web.Request) -> web.Response:
        searched.set()
        await found.wait()
        return web.json_response({"results": [{"title": "Leap year", "url": "https://a.example/", "content": "366"}]})

    server = TestServer(web.Application())
    server.app.router.add_get("/search", search)
    async with server:
        await stage.start(WEB_SEARCH_URL=str(server.make_url("/")).rstrip("/"))
        stage.first.script(tool_call("web_search", {"query": "leap years"}), answer("A day more."))
        question = stage.says("What is a leap year?", language="ru")
        await asyncio.wait_for(searched.wait(), 8)
        working = await stage.seen(lambda m: m.text == "Ищу в интернете: leap years", after=question.id)
        assert working.labels == ["Остановить"]
        found.set()
        done = await stage.answer(after=question.id)
    assert done.id == working.id
    assert done.text.startswith("A day more.")
