"""The web in a turn: the tools of each candidate, sources under the answer, and consent."""

import json
from typing import Any

import pytest
from pydantic_ai import FunctionToolset

from core.config.providers import ProviderKind
from core.db.database import Database
from services.chat.turn import TurnContext
from services.files.sandbox import Sandbox
from services.llm.request import Capability
from services.llm.routing.faults.refusals import KNOWN_WORDS
from services.web import PageReader, SearxSearch, WebTools
from tests.support.chat_harness import chat_harness, instructions, sent_messages
from tests.support.fake_llm.providers import provider_at
from tests.support.fake_llm.server import LLMServer, answer, status, tool_call
from tests.support.llm_harness import provider
from tests.support.web_pages import WebServer

FOUND = {
    "results": [{"url": f"https://tides.test/{n}", "title": f"Page {n}", "content": "about tides"} for n in range(1, 6)]
}
NO_SEARCH = "You cannot search the web."


def offered(server: LLMServer, request: int = -1) -> set[str]:
    tools = server.requests[request].json.get("tools", [])
    return {
        tool.get("name") or tool.get("type") if "function" not in tool else tool["function"]["name"] for tool in tools
    }


async def test_answer_names_the_pages_that_were_read_and_cited(
    file: Database, first: LLMServer, server: WebServer
) -> None:
    server.results = FOUND
    search = SearxSearch(server.url)
    toolset = WebTools(PageReader(Sandbox(), allow_private=True), search).toolset()
    page = f"{server.url}/page"
    async with chat_harness(file, provider("first", first.url), toolsets=[toolset]) as harness:
        first.script(
            tool_call("web_search", {"query": "tides"}),
            tool_call("fetch_page", {"url": page}),
            answer("The moon, says https://tides.test/4 too."),
        )
        reply = await harness.say("What pulls the tides?")
        assert reply.footer == f"Sources:\n1. Tides of the sea: {page}\n2. Page 4: https://tides.test/4"
        first.script(tool_call("web_search", {"query": "tides"}), answer("The moon."))
        reply = await harness.say("And again?")
        assert reply.footer is not None
        assert reply.footer.count("https://tides.test/") == 3
        assert (await harness.say("Thanks")).footer is None
    await search.aclose()


async def test_a_failed_page_ends_no_turn(file: Database, first: LLMServer) -> None:
    toolset = WebTools(PageReader(Sandbox())).toolset()
    async with chat_harness(file, provider("first", first.url), toolsets=[toolset]) as harness:
        calls = [tool_call("fetch_page", {"url": "http://127.0.0.1/"}) for _ in range(4)]
        first.script(*calls, answer("I cannot read it."))
        reply = await harness.say("Read http://127.0.0.1/")
    assert reply.text == "I cannot read it."
    assert reply.footer is None
    results = [json.loads(text) for role, text in sent_messages(first.requests[-1]) if role == "tool"]
    assert [set(result) for result in results] == [{"error"}] * 4


async def test_without_any_search_the_model_is_told(file: Database, first: LLMServer) -> None:
    toolset = WebTools(PageReader(Sandbox())).toolset()
    async with chat_harness(file, provider("first", first.url), toolsets=[toolset]) as harness:
        await harness.say()
    assert "web_search" not in offered(first)
    assert "fetch_page" in offered(first)
    assert NO_SEARCH in instructions(first.requests[-1])


async def test_chats_that_stay_local_have_no_web(file: Database, first: LLMServer) -> None:
    """A page's address and a query leave the operator's machines."""
    toolset = WebTools(PageReader(Sandbox()), SearxSearch("http://127.0.0.1:9")).toolset()
    local = provider("first", first.url, remote=False)
    async with chat_harness(file, local, toolsets=[toolset], asks_consent=True) as harness:
        await harness.say()
    assert not {"web_search", "fetch_page"} & offered(first)


def searches_natively(kind: ProviderKind, body: dict[str, Any]) -> bool:
    return {
        ProviderKind.ANTHROPIC: "web_search_20" in json.dumps(body["tools"]),
        ProviderKind.OPENROUTER: "openrouter:web_search" in json.dumps(body["tools"]),
    }[kind]


@pytest.mark.parametrize("kind", [ProviderKind.ANTHROPIC, ProviderKind.OPENROUTER])
async def test_a_model_with_its_own_search_gets_it_and_the_next_one_ours(
    file: Database, first: LLMServer, second: LLMServer, server: WebServer, kind: ProviderKind
) -> None:
    """One that refuses it is asked without it at once, and gets our tool."""
    server.results = FOUND
    search = SearxSearch(server.url)
    toolset = WebTools(PageReader(Sandbox()), search).toolset()
    native = provider_at(first, kind, retries=0)
    async with chat_harness(file, native, provider("second", second.url), toolsets=[toolset]) as harness:
        await harness.say()
        assert searches_natively(kind, first.requests[-1].json)
        first.script(status(400, {"error": {"message": "Web search is not enabled for this organization."}}))
        await harness.say()
        refused, asked = (request.json for request in first.requests[-2:])
        assert searches_natively(kind, refused)
        assert not searches_natively(kind, asked)
        assert "web_search" in json.dumps(asked["tools"])
        assert not second.requests
        first.script(status(503))
        await harness.say()
        assert "web_search" in offered(second)
    await search.aclose()


@pytest.mark.parametrize("is_backed", [True, False])
async def test_native_search_can_be_switched_off(file: Database, first: LLMServer, is_backed: bool) -> None:
    """Our search is used, or none; no provider bills a search."""
    search = SearxSearch("http://127.0.0.1:9") if is_backed else None
    toolset = WebTools(PageReader(Sandbox()), search, is_native=False).toolset()
    native = provider_at(first, ProviderKind.OPENROUTER, retries=0)
    async with chat_harness(file, native, toolsets=[toolset]) as harness:
        await harness.say()
    assert not searches_natively(ProviderKind.OPENROUTER, first.requests[-1].json)
    assert ("web_search" in offered(first)) is is_backed
    assert (NO_SEARCH in instructions(first.requests[-1])) is not is_backed
    if search is not None:
        await search.aclose()


async def test_a_search_tool_of_a_client_stays_its_own(file: Database, first: LLMServer) -> None:
    """A tool of the API's caller that has the name of ours is neither replaced nor dropped."""
    own = FunctionToolset[TurnContext]()

    @own.tool_plain(name="web_search")
    def look_up(query: str) -> str:
        """Search the caller's documents."""
        return query

    native = provider_at(first, ProviderKind.OPENROUTER, retries=0)
    async with chat_harness(file, native, toolsets=[own]) as harness:
        await harness.say()
    assert "web_search" in offered(first)
    assert not searches_natively(ProviderKind.OPENROUTER, first.requests[-1].json)
    assert NO_SEARCH not in instructions(first.requests[-1])


def test_the_refusal_of_a_search_is_a_capability() -> None:
    for words in (
        "Web search is not enabled for this organization",
        "tools.0: web_search_20250305 is not supported by this model",
        "Unsupported server tool: openrouter:web_search",
    ):
        meaning = KNOWN_WORDS.recognise((), {"error": {"message": words}}, 400)
        assert meaning is not None, words
        assert meaning.capability is Capability.WEB_SEARCH, words
