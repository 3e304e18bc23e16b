"""Requests of other programs and the providers of the chats: parameters that no chat sends rest no provider."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from services.llm.routing.status import ProviderState
from tests.support.api_harness import ApiHarness, endpoint
from tests.support.fake_llm import server as llm
from tests.support.fake_llm.server import Behaviour, LLMServer
from tests.support.web_client import Page

pytestmark = pytest.mark.integration

HELLO: Any = [{"role": "user", "content": "Hello?"}]
TOOL = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object", "oneOf": []}}}
CALL = {"id": "c1", "type": "function", "function": {"name": "look_up", "arguments": "{}"}}
SCHEMA = {"type": "json_schema", "json_schema": {"name": "odd", "schema": {"type": "array"}}}
PICTURE = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNkYAAAAAYAAjCB0C8AAAAASUVORK5CYII="
)

ODD: Mapping[str, Mapping[str, Any]] = {
    "sampling": {"temperature": 1.9, "top_p": 0.01},
    "biased tokens": {"logit_bias": {"50256": -100}},
    "a seed": {"seed": -(2**63)},
    "a long answer": {"max_tokens": 2_000_000},
    "a thinking effort": {"reasoning_effort": "xhigh"},
    "tools of its own": {"tools": [TOOL]},
    "a schema": {"response_format": SCHEMA},
    "any JSON": {"response_format": {"type": "json_object"}},
    "a picture": {
        "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": PICTURE}}]}],
    },
    "an answer to be continued": {"messages": [*HELLO, {"role": "assistant", "content": "Well,"}]},
    "a late system text": {"messages": [*HELLO, {"role": "system", "content": "Be brief."}]},
    "several users": {"messages": [*HELLO, *HELLO]},
    "results of tools": {
        "messages": [
            *HELLO,
            {"role": "assistant", "content": None, "tool_calls": [CALL]},
            {"role": "tool", "tool_call_id": "c1", "content": "4"},
        ],
    },
}
UNKNOWN = {"error": {"message": "parameter 7 is out of bounds", "type": "invalid_request_error"}}
REFUSED: Mapping[str, Callable[[], Behaviour]] = {
    "400": lambda: llm.status(400, UNKNOWN),
    "422": lambda: llm.status(422, UNKNOWN),
    "500": lambda: llm.status(500, {"error": {"message": "IndexError: list index out of range"}}),
    "a page": lambda: llm.html_page(403),
    "an empty answer": llm.empty_answer,
    "an unreadable stream": llm.garbage_in_stream,
    "an error in a 200": llm.error_object_in_200,
}


async def ask(api: ApiHarness, *, streamed: bool = False, **fields: object) -> Page:
    """Send one request."""
    body = {"model": "auto", "messages": HELLO, "stream": streamed, **fields}
    return await api.web.get("/v1/chat/completions", method="POST", data=json.dumps(body).encode())


def check_healthy(api: ApiHarness) -> None:
    """Check that the first provider is asked first by chats, with everything that they send."""
    first = api.services.llm.fallback.get_provider_status().providers[0]
    assert first.state in {ProviderState.HEALTHY, ProviderState.PREFERRED}
    assert (first.failures, first.limits, first.resting) == (0, (), ())


async def test_unusual_request_that_another_provider_answers_rests_nobody(
    first: LLMServer, second: LLMServer, tmp_path: Path
) -> None:
    second.default = llm.answer("From the second")
    cases = [(REFUSED["400"], fields) for fields in ODD.values()]
    cases += [(does, ODD["sampling"]) for does in REFUSED.values()]
    async with endpoint(tmp_path, {"a": first.url, "b": second.url}, A_RETRIES="0") as api:
        for number, (does, fields) in enumerate(cases):
            first.default = does()
            asked = len(first.requests)
            page = await ask(api, streamed=number % 2 == 0, **fields)
            assert (page.status, len(first.requests) > asked) == (200, True), fields
            check_healthy(api)


async def test_usual_request_that_another_provider_answers_rests_the_first(
    first: LLMServer, second: LLMServer, tmp_path: Path
) -> None:
    first.default, second.default = llm.status(400, UNKNOWN), llm.answer("From the second")
    talk = [{"role": "system", "content": "Be brief."}, *HELLO, {"role": "assistant", "content": "Yes?"}, *HELLO]
    async with endpoint(tmp_path, {"a": first.url, "b": second.url}) as api:
        assert (await ask(api, messages=talk)).status == 200
        assert api.services.llm.fallback.get_provider_status().providers[0].state is ProviderState.COOLING


@pytest.mark.parametrize(
    ("words", "fields"),
    [
        ("temperature: must be <= 1, not 1.9; invalid temperature", ODD["sampling"]),
        ("unknown field oneOf in tools", ODD["tools of its own"]),
        ("response_format.json_schema is not an object", ODD["a schema"]),
        ("Conversation roles must alternate user/assistant", ODD["several users"]),
        ("image format not supported", ODD["a picture"]),
    ],
)
async def test_refusal_of_an_unusual_part_teaches_nothing_about_chats(
    first: LLMServer, second: LLMServer, tmp_path: Path, words: str, fields: Mapping[str, Any]
) -> None:
    first.default, second.default = llm.answer("Without it"), llm.answer("With it")
    first.script(llm.status(400, {"error": {"message": words}}))
    async with endpoint(tmp_path, {"a": first.url, "b": second.url}) as api:
        assert (await ask(api, **fields)).status == 200
        check_healthy(api)


async def test_reduced_request_that_a_lone_provider_answers_teaches_nothing_about_chats(
    first: LLMServer, tmp_path: Path
) -> None:
    first.default = llm.answer("Without it")
    first.script(llm.status(400, UNKNOWN))
    async with endpoint(tmp_path, {"a": first.url}) as api:
        assert (await ask(api, **ODD["sampling"])).status == 200
        check_healthy(api)


@pytest.mark.parametrize(("words", "is_rested"), [("Why? " * 4_000, False), ("Why?", True)], ids=["long", "short"])
async def test_long_prompt_that_misses_a_deadline_rests_nobody(
    first: LLMServer, second: LLMServer, tmp_path: Path, words: str, *, is_rested: bool
) -> None:
    first.default, second.default = llm.hang(), llm.answer("From the second")
    variables: Any = {"A_FIRST_TOKEN_TIMEOUT": "0.1", "HISTORY_TOKENS": "2000"}
    async with endpoint(tmp_path, {"a": first.url, "b": second.url}, **variables) as api:
        assert (await ask(api, messages=[{"role": "user", "content": words}], temperature=0.5)).status == 200
        state = api.services.llm.fallback.get_provider_status().providers[0].state
        assert (state is ProviderState.COOLING) is is_rested


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(
    ("fields", "end"), [({"max_tokens": 1}, "length"), ({"stop": ["Yes"]}, "stop")], ids=["limit", "stop sequence"]
)
async def test_empty_answer_that_a_program_asked_for_is_passed_on(
    first: LLMServer, second: LLMServer, tmp_path: Path, fields: Mapping[str, Any], end: str, *, streamed: bool
) -> None:
    first.default, second.default = llm.Answer((), finish=end), llm.answer("From the second")
    async with endpoint(tmp_path, {"a": first.url, "b": second.url}) as api:
        page = await ask(api, streamed=streamed, **fields)
        assert page.status == 200
        if streamed:
            chunks = [json.loads(line.removeprefix("data: ")) for line in page.text.split("\n\n")[:-2]]
            found = "".join(each["choices"][0]["delta"].get("content", "") for each in chunks)
            ends = {each["choices"][0]["finish_reason"] for each in chunks} - {None}
        else:
            found, ends = page.json["choices"][0]["message"]["content"], {page.json["choices"][0]["finish_reason"]}
        assert (found, ends, len(second.requests)) == ("", {end}, 0)
        # Without that wish, or with the other end, an empty answer is none.
        assert (await ask(api, streamed=streamed)).status == 200
        assert len(second.requests) == 1
