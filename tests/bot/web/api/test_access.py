"""Access to the endpoint: tokens, models, rates, budgets, consent, and requests that no provider is asked."""

import asyncio
import gzip
import io
import json
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import openai
import pytest
from aiohttp import web
from structlog.testing import capture_logs

from bot.web.server import HttpRoute, WebTiming
from services.api.tokens import FRESH_S, TokenExists, TokenLimits, TokenStore, UnknownToken
from tests.support.api_harness import OTHER, TOKEN, WEB_TOKEN, ApiHarness, endpoint
from tests.support.clock import ManualClock
from tests.support.fake_llm.server import LLMServer, answer, gate
from tests.support.llm_harness import RealSleeps

pytestmark = pytest.mark.integration

HELLO: Any = [{"role": "user", "content": "Hello?"}]


async def post(
    api: ApiHarness, body: bytes, path: str = "/v1/chat/completions", **headers: str
) -> tuple[int, dict[str, Any], dict[str, str]]:
    """Send a body as it is; returns status, JSON and headers of the response."""
    sent = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json", **headers}
    async with (
        aiohttp.ClientSession(auto_decompress=False) as session,
        session.post(f"http://127.0.0.1:{api.port}{path}", data=io.BytesIO(body), headers=sent) as response,
    ):
        return response.status, await response.json(content_type=None), dict(response.headers)


def chat(**fields: object) -> bytes:
    """Return a request with these fields changed."""
    return json.dumps({"model": "auto", "messages": HELLO, **fields}).encode()


@pytest.mark.parametrize(
    ("shown", "status"),
    [
        (f"Bearer {TOKEN}", 200),
        (f"bearer {OTHER}", 200),
        (f"Bearer {WEB_TOKEN}", 401),  # opens the operator's pages and nothing here
        (f"Bearer {TOKEN}x", 401),
        (f"Bearer {TOKEN[:-1]}", 401),
        (f"Basic {TOKEN}", 401),
        (TOKEN, 401),
        ("Bearer", 401),
        ("Bearer \xff\xfe", 401),
        ("", 401),
        (f"Bearer {TOKEN} {TOKEN}", 401),
    ],
)
async def test_only_a_token_of_the_endpoint_opens_it(
    first: LLMServer, tmp_path: Path, *, shown: str, status: int
) -> None:
    async with endpoint(tmp_path, {"a": first.url}) as api:
        reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
        head = f"GET /v1/models HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: {shown}\r\n\r\n"
        writer.write(head.encode("latin-1"))
        received = await reader.read()
        writer.close()
    assert received.startswith(f"HTTP/1.1 {status} ".encode())
    if status == 401:
        assert b"invalid_api_key" in received
        assert b"WWW-Authenticate: Bearer" in received


async def test_a_token_opens_nothing_but_the_endpoint(first: LLMServer, tmp_path: Path) -> None:
    async def operators(_request: web.Request) -> web.Response:
        return web.Response(text="private")

    async with endpoint(tmp_path, {"a": first.url}, routes=(HttpRoute("GET", "/llm/status", operators),)) as api:
        assert (await api.web.get("/llm/status", token=TOKEN)).status == 401
        assert (await api.web.get("/llm/status", token=WEB_TOKEN)).text == "private"
        for path in ("/v1/../llm/status", "/v1/models/../../llm/status", "//llm/status"):
            assert "private" not in (await api.web.get(path, token=TOKEN)).text


async def test_tokens_are_made_limited_and_revoked_at_run_time(first: LLMServer, tmp_path: Path) -> None:
    clock = RealSleeps()
    async with endpoint(tmp_path, {"a": first.url}, clock=clock) as api:
        store = api.token_store()
        made = await store.create("notebook", TokenLimits(models=("a/n",)), 1)
        with pytest.raises(TokenExists):
            await store.create("notebook", TokenLimits(), 1)
        with pytest.raises(TokenExists):
            await store.create("editor", TokenLimits(), 1)
        await store.change("editor", TokenLimits(models=("b/*",)), 1)
        clock.shift(FRESH_S)
        assert names(await api.web.get("/v1/models", token=made)) == ["auto", "a/n"]
        assert names(await api.web.get("/v1/models", token=TOKEN)) == ["auto"]
        assert [token.name for token in await store.all()] == ["editor", "notebook"]
        await store.revoke("notebook")
        with pytest.raises(UnknownToken):
            await store.revoke("notebook")
        clock.shift(FRESH_S)
        assert (await api.web.get("/v1/models", token=made)).status == 401
        database = b"".join(path.read_bytes() for path in tmp_path.rglob("*.db*"))  # noqa: ASYNC240 - small files
    assert made.encode() not in database
    assert TOKEN.encode() not in database


def names(page: Any) -> list[str]:
    """Return the ids in a list of models."""
    return [entry["id"] for entry in page.json["data"]]


async def test_models_are_listed_and_retrieved(first: LLMServer, second: LLMServer, tmp_path: Path) -> None:
    async with endpoint(tmp_path, {"a": first.url, "b": second.url}) as api:
        assert [model.id async for model in api.client.models.list()] == ["auto", "a/m", "a/n", "b/m", "b/n"]
        assert (await api.client.models.retrieve("b/n")).owned_by == "b"
        with pytest.raises(openai.NotFoundError) as caught:
            await api.client.models.retrieve("c/m")
        options = (await api.web.get("/models/chat")).json
    assert caught.value.code == "model_not_found"
    assert options[0] == {
        "backend_id": "a", "provider": "openai_compatible", "model": "m", "label": "a (openai_compatible) · m",
    }  # fmt: skip


@pytest.mark.parametrize("model", ["gpt-9", "a/zzz", "c/m", "", "a/", "/m", "a/m\r\nX: y", "b/m"])
async def test_a_model_that_a_token_may_not_ask_is_a_404(first: LLMServer, tmp_path: Path, *, model: str) -> None:
    async with endpoint(tmp_path, {"a": first.url, "b": first.url}) as api:
        store = TokenStore(
            api.services.infra.database, api.services.infra.clock, {"editor": TOKEN}, api.services.llm.budgets
        )
        await store.change("editor", TokenLimits(models=("a/*",)), 1)
        with pytest.raises(openai.NotFoundError) as caught:
            await api.client.chat.completions.create(model=model, messages=HELLO)
    assert caught.value.code == "model_not_found"
    assert not first.requests


async def test_failover_stays_within_the_models_of_a_token(first: LLMServer, second: LLMServer, tmp_path: Path) -> None:
    first.default, second.default = answer("First"), answer("Second")
    async with endpoint(tmp_path, {"a": first.url, "b": second.url}) as api:
        store = TokenStore(
            api.services.infra.database, api.services.infra.clock, {"editor": TOKEN}, api.services.llm.budgets
        )
        await store.change("editor", TokenLimits(models=("b/n",)), 1)
        assert (await api.client.chat.completions.create(model="auto", messages=HELLO)).model == "b/n"
        await second.stop()
        with pytest.raises(openai.InternalServerError):
            await api.client.chat.completions.create(model="auto", messages=HELLO)
    assert not first.requests


async def test_a_rate_is_a_429_that_says_when_to_come_back(first: LLMServer, tmp_path: Path) -> None:
    clock = ManualClock()
    async with endpoint(tmp_path, {"a": first.url}, clock=clock, LIMIT_MESSAGES_PER_MINUTE="2") as api:
        create = api.client.chat.completions.create
        for _ in range(2):
            await create(model="auto", messages=HELLO)
        with pytest.raises(openai.RateLimitError) as caught:
            await create(model="auto", messages=HELLO)
        assert caught.value.code == "rate_limit_exceeded"
        assert 1 <= int(caught.value.response.headers["retry-after"]) <= 60
        assert caught.value.response.headers["x-should-retry"] == "true"
        async with api.client_with(OTHER) as other:
            await other.chat.completions.create(model="auto", messages=HELLO)
        clock.shift(61)
        await create(model="auto", messages=HELLO)


async def test_a_budget_of_a_token_is_a_429_until_midnight(first: LLMServer, tmp_path: Path) -> None:
    prices = {"A_PRICES": '{"m": [900000, 0]}'}
    async with endpoint(tmp_path, {"a": first.url}, TIMEZONE="UTC", **prices) as api:
        store = TokenStore(
            api.services.infra.database, api.services.infra.clock, {"editor": TOKEN}, api.services.llm.budgets
        )
        await store.change("editor", TokenLimits(budget_day_usd=9.0), 1)
        # Side by side: their costs are reserved, so that they cannot overdraw the budget together.
        create = partial(api.client.chat.completions.create, model="auto", messages=HELLO)
        answers = await asyncio.gather(*(create() for _ in range(5)), return_exceptions=True)
        assert sum(isinstance(each, openai.RateLimitError) for each in answers) == 4
        with pytest.raises(openai.RateLimitError) as caught:
            await create()
        totals = api.services.operators.totals
        used = await totals.of_speaker("api:editor", totals.today)
    assert caught.value.code == "insufficient_quota"
    assert 1 <= int(caught.value.response.headers["retry-after"]) <= 24 * 3600
    assert caught.value.response.headers["x-should-retry"] == "false"
    assert (used.requests, used.answers) == (1, 1)
    assert used.cost_usd > 5


async def test_prompts_leave_the_machine_only_with_consent(first: LLMServer, second: LLMServer, tmp_path: Path) -> None:
    remote = {"A_REMOTE": "true", "B_REMOTE": "false", "REMOTE_CONSENT": "ask"}
    async with endpoint(tmp_path, {"a": first.url, "b": second.url}, **remote) as api:
        create = api.client.chat.completions.create
        assert (await create(model="auto", messages=HELLO)).model == "b/m"
        assert [model.id async for model in api.client.models.list()] == ["auto", "b/m", "b/n"]
        await second.stop()
        with pytest.raises(openai.PermissionDeniedError) as caught:
            await create(model="a/m", messages=HELLO)
        assert caught.value.code == "consent_needed"
        assert not first.requests
        await api.services.chat.preferences.set_remote_consent("api:editor", granted=True)
        assert (await create(model="auto", messages=HELLO)).model == "a/m"


async def test_requests_of_one_token_beyond_its_places_wait_their_turn(first: LLMServer, tmp_path: Path) -> None:
    held = asyncio.Event()
    first.default = gate(held)
    async with endpoint(tmp_path, {"a": first.url}, LIMIT_RUNNING_PER_USER="2") as api:
        create = api.client.chat.completions.create
        asking = [asyncio.create_task(create(model="auto", messages=HELLO)) for _ in range(5)]
        await first.arrival(2)
        async with api.client_with(OTHER) as other:
            another = asyncio.create_task(other.chat.completions.create(model="auto", messages=HELLO))
            # Another token does not wait behind the first one's requests.
            await first.arrival(3)
            await asyncio.sleep(0.1)
            assert len(first.requests) == 3
            held.set()
            await asyncio.gather(another, *asking)
    assert len(first.requests) == 6


BROKEN = [
    (b"", 400), (b"{", 400), (b"[]", 400), (b"null", 400), (b'"x"', 400), (b"\xff\xfe\x00", 400),
    (b"[" * 5000 + b"]" * 5000, 400),
    (b'{"model": "auto", "messages": ' + b'[{"a":' * 3000 + b"1" + b"}]" * 3000 + b"}", 400),
    (chat(messages=[]), 400), (chat(messages="Hello"), 400), (chat(messages=[{"role": "wizard", "content": "x"}]), 400),
    (chat(messages=[{"role": "user"}]), 400), (chat(messages=[{"role": "user", "content": []}]), 400),
    (chat(messages=[{"role": "assistant"}]), 400),
    (chat(messages=[{"role": "user", "content": None}]), 400),
    (chat(messages=[{"role": "tool", "tool_call_id": "nowhere", "content": "x"}]), 400),
    (chat(messages=[{"role": "user", "content": "\ud800"}]), 400),
    (chat(messages=[{"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}]), 400),
    (chat(n=2), 400), (chat(logprobs=True), 400),
    (chat(modalities=["text", "audio"]), 400), (chat(functions=[{}]), 400),
    (chat(temperature=3), 400), (chat(temperature="hot"), 400), (chat(temperature=float("nan")), 400),
    (chat(max_tokens=0), 400), (chat(max_tokens=True), 400), (chat(stream="yes"), 400),
    (chat(tools=[{"type": "web_search"}]), 400), (chat(tools=[{"type": "function", "function": {"name": "a b"}}]), 400),
    (chat(tools=[{"type": "function", "function": {"name": "x"}}] * 2), 400),
    (chat(tool_choice="required"), 400),
    (chat(tool_choice={"type": "function", "function": {"name": "none"}}), 400),
    (chat(response_format={"type": "xml"}), 400),
    (chat(model=None), 400), (chat(model=["auto"]), 400),
    (chat(messages={}), 400), (chat(messages=[{"role": "x" * 100_000, "content": "x"}]), 400),
    (chat(seed=2**63), 400), (chat(max_tokens=2**31), 400), (chat(stop=["x"] * 17), 400),
    (chat(logit_bias={"1": 101}), 400),
    (chat(response_format={"type": "json_schema", "json_schema": {"name": "a b"}}), 400),
]  # fmt: skip


@pytest.mark.parametrize(("body", "status"), BROKEN)
async def test_a_broken_request_is_refused_and_asks_no_provider(
    first: LLMServer, tmp_path: Path, *, body: bytes, status: int
) -> None:
    async with endpoint(tmp_path, {"a": first.url}) as api:
        code, found, headers = await post(api, body)
    assert code == status, found
    assert found["error"]["type"] == "invalid_request_error"
    assert 0 < len(found["error"]["message"]) < 500
    assert headers["x-should-retry"] == "false"
    assert not first.requests


HEAD = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {TOKEN}\r\n"
JSON_HEAD = HEAD + "Content-Type: application/json\r\n"


@pytest.mark.parametrize(
    ("head", "body", "status", "code"),
    [
        (JSON_HEAD + "Content-Encoding: gzip\r\nContent-Length: 9\r\n", b"no gzip, ", 400, None),
        (JSON_HEAD + "Content-Encoding: deflate\r\nContent-Length: 9\r\n", b"no deflat", 400, None),
        (JSON_HEAD + f"Authorization: Bearer {OTHER}\r\nContent-Length: 2\r\n", b"{}", 401, "invalid_api_key"),
        (HEAD.replace("POST /v1/chat/completions", "GET /v1"), b"", 404, "unknown_url"),
        (HEAD.replace("/chat/completions", "/models/a%2Fm%0d%0aX:y"), b"", 404, "unknown_url"),
    ],
)  # fmt: skip
async def test_tricks_with_headers_bodies_and_paths_get_errors_in_openais_shape(
    first: LLMServer, tmp_path: Path, *, head: str, body: bytes, status: int, code: str | None
) -> None:
    with capture_logs() as logs:
        async with endpoint(tmp_path, {"a": first.url}) as api:
            reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
            writer.write(head.encode() + b"\r\n" + body)
            received = await asyncio.wait_for(reader.read(), 5)
            writer.close()
    assert received.startswith(f"HTTP/1.1 {status} ".encode()), received
    error = json.loads(received.partition(b"\r\n\r\n")[2])["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["code"] == code
    assert not [line for line in logs if line["log_level"] in {"warning", "error"}]
    assert not first.requests


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:1/x.png", "https://example.org/x.png", "file:///etc/passwd", "data:image/png,x",
        "data:text/html;base64,eA==", "data:image/png;base64,", "data:image/png;base64,%%%", "", "x,y",
    ],
)  # fmt: skip
async def test_an_image_that_is_no_data_url_is_refused(first: LLMServer, tmp_path: Path, *, url: str) -> None:
    body = chat(messages=[{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}])
    async with endpoint(tmp_path, {"a": first.url}) as api:
        code, found, _ = await post(api, body)
    assert (code, found["error"]["param"]) == (400, "messages.0.content.0")
    assert not first.requests


async def test_odd_content_types_and_large_bodies_are_refused(first: LLMServer, tmp_path: Path) -> None:
    async with endpoint(tmp_path, {"a": first.url}) as api:
        form = await post(api, chat(), **{"Content-Type": "application/x-www-form-urlencoded"})
        large = await post(api, b" " * (33 << 20))
        packed = await post(api, gzip.compress(b" " * (64 << 20)), **{"Content-Encoding": "gzip"})
        good = await post(api, gzip.compress(chat()), **{"Content-Encoding": "gzip"})
        unknown = await post(api, chat(), "/v1/responses")
    assert (form[0], large[0], packed[0], good[0]) == (415, 413, 413, 200)
    assert large[1]["error"]["code"] == "request_too_large"
    assert (unknown[0], unknown[1]["error"]["code"]) == (404, "unknown_url")
    assert len(first.requests) == 1


async def test_a_body_that_does_not_arrive_ends_with_a_408(first: LLMServer, tmp_path: Path) -> None:
    async with endpoint(tmp_path, {"a": first.url}, timing=WebTiming(body_s=0.2)) as api:
        reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
        head = f"Host: x\r\nAuthorization: Bearer {TOKEN}\r\nContent-Type: application/json\r\nContent-Length: 100"
        writer.write(f"POST /v1/chat/completions HTTP/1.1\r\n{head}\r\n\r\n{{".encode())
        received = await asyncio.wait_for(reader.read(300), 5)
        writer.close()
    assert received.startswith(b"HTTP/1.1 408 ")
    assert b'"error"' in received
