"""An answer of a model with a search of its own: its stream, its sources, and a conversation that goes on elsewhere."""

import json
from typing import Any

import pytest

from core.config.providers import ProviderKind
from core.db.database import Database
from services.files.sandbox import Sandbox
from services.web import PageReader, WebTools
from tests.support.chat_harness import chat_harness
from tests.support.fake_llm.behaviours import Act
from tests.support.fake_llm.exchange import Exchange
from tests.support.fake_llm.providers import provider_at
from tests.support.fake_llm.server import LLMServer, status
from tests.support.llm_harness import provider

pytestmark = pytest.mark.integration

RESULTS = [
    {
        "type": "web_search_result",
        "url": f"https://tides.test/{number}",
        "title": f"Page {number}",
        "encrypted_content": "abc",
        "page_age": None,
    }
    for number in (1, 2)
]


def events() -> list[dict[str, Any]]:
    """The events of Anthropic's stream, as its documentation shows them."""
    search = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {}}
    found = {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": RESULTS}
    usage = {"input_tokens": 10, "output_tokens": 5}
    return [
        {"type": "message_start", "message": {
            "id": "msg_1", "type": "message", "role": "assistant", "model": "claude-test", "content": [],
            "stop_reason": None, "stop_sequence": None, "usage": usage}},
        {"type": "content_block_start", "index": 0, "content_block": search},
        {"type": "content_block_delta", "index": 0,
         "delta": {"type": "input_json_delta", "partial_json": '{"query": "tides"}'}},
        {"type": "content_block_stop", "index": 0},
        {"type": "content_block_start", "index": 1, "content_block": found},
        {"type": "content_block_stop", "index": 1},
        {"type": "content_block_start", "index": 2, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 2, "delta": {"type": "text_delta", "text": "The moon pulls them."}},
        {"type": "content_block_stop", "index": 2},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None},
         "usage": {"output_tokens": 20, "server_tool_use": {"web_search_requests": 1}}},
        {"type": "message_stop"},
    ]  # fmt: skip


async def stream(exchange: Exchange) -> None:
    """Answers with these events."""
    body = "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events())
    await exchange.body(body.encode(), content_type="text/event-stream")


async def test_an_answer_with_a_native_search(file: Database, first: LLMServer, second: LLMServer) -> None:
    native = provider_at(first, ProviderKind.ANTHROPIC, retries=0)
    toolset = WebTools(PageReader(Sandbox())).toolset()
    async with chat_harness(file, native, provider("second", second.url), toolsets=[toolset]) as harness:
        first.script(Act(stream))
        reply = await harness.say("What pulls the tides?")
        assert reply.text == "The moon pulls them."
        assert reply.footer == "Sources:\n1. Page 1: https://tides.test/1\n2. Page 2: https://tides.test/2"
        # The next question, to the same provider and, when that fails, to another kind.
        await harness.say("And why?")
        assert "srvtoolu_1" in json.dumps(first.requests[-1].json["messages"])
        first.script(status(503))
        reply = await harness.say("And where?")
        assert reply.provider == "second"
        assert "The moon pulls them." in json.dumps(second.requests[-1].json["messages"])
