"""Each row of the outcome table as a program sees it, plain and streamed: status, code, and whether to repeat."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.api_harness import ApiHarness, endpoint
from tests.support.fake_llm import server as llm
from tests.support.fake_llm.server import NO_SUCH_HOST_URL, Behaviour, LLMServer, refusing_url
from tests.support.llm_harness import RealSleeps
from tests.support.web_client import Page

pytestmark = pytest.mark.integration

HELLO: Any = [{"role": "user", "content": "Hello?"}]
LONGEST_COOLDOWN_S = 3601
QUICK = {"RETRIES": "0", "TIMEOUT": "20", "FIRST_TOKEN_TIMEOUT": "20"}

Told = tuple[int, str | None, str, int | None]
"""Status, code, `x-should-retry` and `Retry-After`, where every provider does the same."""

LATER, PAST_PATIENCE = (503, "all_providers_failed", "false", 300), (503, "all_providers_failed", "false", 1800)


def soon(seconds: int) -> Told:
    return 503, "all_providers_failed", "true", seconds


MOVES_ON: list[tuple[str, Callable[[], Behaviour], Told]] = [
    *((str(code), lambda code=code: llm.status(code), LATER) for code in (408, 500, 502, 503, 504, 520, 529)),
    ("an error page of a proxy", lambda: llm.html_page(502), LATER),
    ("reset before any byte", llm.reset, LATER),
    ("closed before any byte", llm.closed_without_answer, LATER),
    ("503 that says when", lambda: llm.status(503, headers={"retry-after": "9"}), LATER),
    ("429", lambda: llm.status(429), LATER),
    ("429 for a short time", lambda: llm.status(429, headers={"retry-after": "42"}), soon(42)),
    ("429 for a day", lambda: llm.status(429, headers={"retry-after": "86400"}), (*LATER[:3], 3600)),
    *((str(code), lambda code=code: llm.status(code), PAST_PATIENCE) for code in (401, 402, 403, 404)),
    ("no such model", llm.model_unknown, PAST_PATIENCE),
    ("the quota is used up", llm.quota_exceeded, PAST_PATIENCE),
    ("an empty body", llm.empty_body, LATER),
    ("an empty stream", llm.empty_stream, LATER),
    ("an answer without content", llm.empty_answer, LATER),
    ("an error page with 200", llm.html_page, LATER),
    ("an error object with 200", llm.error_object_in_200, LATER),
    ("an error before the first piece", llm.error_in_stream, LATER),
    ("no choices", llm.no_choices, LATER),
    ("only thinking", llm.thinking_only, LATER),
    ("only white space", llm.whitespace_only, LATER),
    ("an unreadable first piece", llm.garbage_in_stream, LATER),
    ("400", lambda: llm.status(400), (400, None, "false", None)),
    ("413", lambda: llm.status(413), (400, None, "false", None)),
    ("422", lambda: llm.status(422), (400, None, "false", None)),
    ("a page with 400", lambda: llm.html_page(400), (400, None, "false", None)),
]


async def ask(api: ApiHarness, *, streamed: bool, **fields: object) -> Page:
    """Send one request."""
    body = {"model": "auto", "messages": HELLO, "stream": streamed, **fields}
    return await api.web.get("/v1/chat/completions", method="POST", data=json.dumps(body).encode())


def check_error(page: Page, told: Told) -> None:
    """Check that a page is an error in OpenAI's shape."""
    status, code, should_retry, retry_after = told
    error = page.json["error"]
    assert (page.status, error["code"]) == (status, code), page.text
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    headers = {name.lower(): value for name, value in page.headers.items()}
    assert headers["x-should-retry"] == should_retry
    assert headers["x-request-id"]
    found = headers.get("retry-after")
    assert (found is None) is (retry_after is None)
    if found is not None and retry_after is not None:
        assert abs(int(found) - retry_after) <= 1


def check_answer(page: Page, model: str, text: str) -> None:
    """Check that a page is an answer of one model."""
    assert page.status == 200, page.text
    if not page.headers["Content-Type"].startswith("text/event-stream"):
        found = page.json
        assert (found["model"], found["choices"][0]["message"]["content"]) == (model, text)
        return
    assert page.text.endswith("data: [DONE]\n\n")
    chunks = [json.loads(line.removeprefix("data: ")) for line in page.text.split("\n\n")[:-2]]
    assert {chunk["model"] for chunk in chunks} == {model}
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks) == text


@pytest.mark.parametrize(("does", "told"), [row[1:] for row in MOVES_ON], ids=[row[0] for row in MOVES_ON])
async def test_fault_of_a_provider_is_hidden_by_another_and_reported_where_there_is_none(
    first: LLMServer, second: LLMServer, tmp_path: Path, *, does: Callable[[], Behaviour], told: Told
) -> None:
    clock = RealSleeps()
    variables: Any = {f"{id_}_{name}": value for id_ in "AB" for name, value in QUICK.items()}
    async with endpoint(tmp_path, {"a": first.url, "b": second.url}, clock=clock, **variables) as api:
        for streamed in (False, True):
            first.default, second.default = does(), llm.answer("From the second")
            asked = len(first.requests)
            check_answer(await ask(api, streamed=streamed, model="a/m"), "b/m", "From the second")
            assert len(first.requests) > asked
            clock.shift(LONGEST_COOLDOWN_S)
            second.default = does()
            check_error(await ask(api, streamed=streamed), told)
            clock.shift(LONGEST_COOLDOWN_S)


@pytest.mark.parametrize("streamed", [False, True])
async def test_unreachable_providers_are_reported_like_failing_ones(
    second: LLMServer, tmp_path: Path, *, streamed: bool
) -> None:
    tls = second.url.replace("http:", "https:")
    second.default = llm.answer("From the second")
    with refusing_url() as refused:
        async with endpoint(tmp_path, {"a": refused, "b": NO_SUCH_HOST_URL, "c": tls, "d": second.url}) as api:
            check_error(await ask(api, streamed=streamed), LATER)  # PROVIDER_MAX_HOPS
            check_answer(await ask(api, streamed=streamed), "d/m", "From the second")


@pytest.mark.parametrize("streamed", [False, True])
async def test_window_of_one_model_is_hidden_by_another_and_reported_where_there_is_none(
    first: LLMServer, second: LLMServer, tmp_path: Path, *, streamed: bool
) -> None:
    first.default, second.default = llm.context_exceeded(), llm.answer("From the second")
    async with endpoint(tmp_path, {"a": first.url, "b": second.url}) as api:
        check_answer(await ask(api, streamed=streamed), "b/m", "From the second")
        second.default = llm.context_exceeded()
        check_error(await ask(api, streamed=streamed), (400, "context_length_exceeded", "false", None))
        assert api.services.llm.fallback.get_provider_status().providers[0].failures == 0


@pytest.mark.parametrize("streamed", [False, True])
async def test_silent_providers_are_reported_after_their_deadlines(
    first: LLMServer, second: LLMServer, tmp_path: Path, *, streamed: bool
) -> None:
    first.default, second.default = llm.hang(), llm.hang_after_headers()
    short: Any = {"A_FIRST_TOKEN_TIMEOUT": "0.2", "B_TIMEOUT": "0.3", "B_FIRST_TOKEN_TIMEOUT": "0.3"}
    async with endpoint(tmp_path, {"a": first.url, "b": second.url}, **short) as api:
        check_error(await ask(api, streamed=streamed), LATER)
    assert [len(server.requests) for server in (first, second)] == [1, 1]


@pytest.mark.parametrize("streamed", [False, True])
async def test_loading_server_is_asked_again_after_its_short_cooldown(
    first: LLMServer, tmp_path: Path, *, streamed: bool
) -> None:
    first.default = llm.status(503, {"error": {"message": "Loading model", "code": 503}})
    async with endpoint(tmp_path, {"a": first.url}, A_TIMEOUT="0.3", clock=RealSleeps()) as api:
        check_error(await ask(api, streamed=streamed), soon(10))


@pytest.mark.parametrize("streamed", [False, True])
async def test_refused_system_message_is_moved_and_answered_by_the_same_model(
    first: LLMServer, tmp_path: Path, *, streamed: bool
) -> None:
    refused = {"error": {"message": "System role not supported", "type": "invalid_request_error"}}
    first.default = llm.answer("Yes")
    first.script(llm.status(400, refused))
    messages = [{"role": "system", "content": "Be brief."}, *HELLO]
    async with endpoint(tmp_path, {"a": first.url}) as api:
        check_answer(await ask(api, streamed=streamed, messages=messages), "a/m", "Yes")
    assert [message["role"] for message in first.requests[1].json["messages"]] == ["user"]


@pytest.mark.parametrize("does", [llm.content_filter_rejected, llm.refusal, llm.content_filter])
@pytest.mark.parametrize("streamed", [False, True])
async def test_refusal_of_a_filter_surfaces_without_another_provider(
    first: LLMServer, second: LLMServer, tmp_path: Path, *, does: Callable[[], Behaviour], streamed: bool
) -> None:
    first.default = does()
    async with endpoint(tmp_path, {"a": first.url, "b": second.url}) as api:
        check_error(await ask(api, streamed=streamed), (400, "content_filter", "false", None))
    assert not second.requests


BREAKS = [llm.error_in_stream(1), llm.cut(1), llm.stall(1), llm.garbage_in_stream(1), llm.no_finish_reason()]


@pytest.mark.parametrize("behaviour", BREAKS, ids=["error", "cut", "stall", "unreadable", "no finish reason"])
async def test_break_after_the_first_piece_ends_a_stream_and_moves_a_plain_request_on(
    first: LLMServer, second: LLMServer, tmp_path: Path, *, behaviour: Behaviour
) -> None:
    first.default, second.default = behaviour, llm.answer("From the second")
    async with endpoint(tmp_path, {"a": first.url, "b": second.url}, A_STALL_TIMEOUT="0.2") as api:
        broken = await ask(api, streamed=True)
        assert not second.requests
        check_answer(await ask(api, streamed=False, model="a/m"), "b/m", "From the second")
    assert broken.status == 200
    *chunks, last = [json.loads(line.removeprefix("data: ")) for line in broken.text.split("\n\n")[:-1]]
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks).strip()
    assert {chunk["choices"][0]["finish_reason"] for chunk in chunks} == {None}
    assert last["error"]["code"] == "interrupted"
    assert "[DONE]" not in broken.text


@pytest.mark.parametrize("streamed", [False, True])
async def test_named_model_that_fails_cools_alone(
    first: LLMServer, second: LLMServer, tmp_path: Path, *, streamed: bool
) -> None:
    first.script(llm.model_unknown())
    first.default = llm.answer("From the default model")
    async with endpoint(tmp_path, {"a": first.url, "b": second.url}) as api:
        check_answer(await ask(api, streamed=streamed, model="a/n"), "a/m", "From the default model")
        check_answer(await ask(api, streamed=streamed), "a/m", "From the default model")
    assert not second.requests


@pytest.mark.parametrize("streamed", [False, True])
async def test_bug_of_ours_is_a_500_that_blames_no_provider(
    first: LLMServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, streamed: bool
) -> None:
    async with endpoint(tmp_path, {"a": first.url}) as api:

        async def stumble(*_: object, **__: object) -> None:
            raise KeyError("a bug")

        monkeypatch.setattr("bot.web.api.models.ModelDirectory.spec", stumble)
        page = await ask(api, streamed=streamed)
        check_error(page, (500, None, "false", None))
        assert api.services.llm.fallback.get_provider_status().providers[0].failures == 0
    assert "a bug" not in page.text
