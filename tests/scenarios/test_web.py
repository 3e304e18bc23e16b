"""HTTP endpoints of the whole bot."""

import asyncio
from functools import partial

import aiohttp
import pytest

from bot.composition import web_server as composition
from bot.web.readiness import Readiness, ReadinessTiming
from core.errors import StartupError
from tests.support.bot_harness import FIRST, KEYS, SECOND, BotHarness
from tests.support.fake_llm.server import status
from tests.support.fake_telegram.server import TOKEN
from tests.support.processes.redis_server import RedisServer, free_port
from tests.support.web_client import WebClient

WORD = "a-long-random-word-of-the-operator"
QUESTION = "Is anybody out there tonight?"


@pytest.fixture(autouse=True)
def _often_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the caching of readiness, so that no test waits for it."""
    monkeypatch.setattr(composition, "Readiness", partial(Readiness, timing=ReadinessTiming(fresh_s=0.1)))


async def opened(stage: BotHarness, **settings: str) -> WebClient:
    """The bot with its HTTP server, and a client with the token."""
    port = free_port()
    await stage.start(WEB_PORT=str(port), WEB_TOKEN=WORD, **settings)
    return WebClient(port, WORD)


def assert_discreet(stage: BotHarness, client: WebClient) -> None:
    """No secret and no message text is in any body or in the log."""
    for body in (*client.bodies, stage.log):
        for word in (*KEYS.values(), TOKEN.partition(":")[2], WORD, QUESTION, FIRST, SECOND):
            assert word not in body


async def test_readyz_follows_redis(empty_stage: BotHarness, redis_server: RedisServer) -> None:
    """The bot keeps working and stays alive."""
    stage = empty_stage
    # A server without a password accepts any.
    client = await opened(stage, REDIS_URL=redis_server.url.replace("://", "://:a-password-of-redis@"))
    ready = await client.becomes("/readyz", 200)
    assert ready.json == {
        "ready": True,
        "parts": dict.fromkeys(("redis", "database", "providers", "telegram", "bot"), "ok"),
    }
    await redis_server.stop()
    gone = await client.becomes("/readyz", 503)
    assert gone.json["ready"] is False
    assert {name for name, said in gone.json["parts"].items() if said != "ok"} == {"redis"}
    assert (await client.get("/healthz")).status == 200
    assert (await stage.asks(QUESTION)).text == FIRST
    await redis_server.start()
    await client.becomes("/readyz", 200)
    assert "a-password-of-redis" not in "".join(client.bodies)
    assert_discreet(stage, client)


async def test_metrics_count_a_failover(empty_stage: BotHarness) -> None:
    """By provider and kind, answering provider, phase, and rejected Telegram calls."""
    stage = empty_stage
    client = await opened(stage)
    before = (await client.get("/metrics")).samples
    stage.first.default = status(500)
    stage.telegram.fail("sendMessage", 1, status=429, description="Too Many Requests: retry after 1", retry_after=1)
    assert (await stage.asks(QUESTION)).text == SECOND
    await stage.until(lambda: stage.events("turn.ended"))
    await stage.named(1)
    after = (await client.get("/metrics")).samples

    def more(name: str) -> float:
        return after.get(name, 0) - before.get(name, 0)

    assert more("understudy_provider_requests_total{model=m,provider=a,result=retried}") == 1
    assert more("understudy_provider_requests_total{model=m,provider=a,result=failed}") == 1
    # The answer, and the name of the conversation.
    assert more("understudy_provider_requests_total{model=n,provider=b,result=answered}") == 2
    assert more("understudy_provider_failures_total{outcome=hiccup,provider=a}") == 2
    assert more("understudy_provider_switches_total{cause=failure,provider=b}") == 1
    assert more("understudy_first_output_seconds_count{model=n,provider=b}") == 2
    assert more("understudy_answer_seconds_count{model=n,provider=b}") == 2
    assert more("understudy_tokens_total{direction=out,model=n,provider=b}") > 0
    assert more("understudy_turns_total{phase=complete}") == 1
    assert more("understudy_turn_seconds_count") == 1
    assert more("understudy_updates_total{kind=message}") == 1
    assert more("understudy_telegram_refusals_total{kind=flood,method=sendMessage}") == 1
    assert after["understudy_provider_cooling{provider=a}"] == 1
    assert after["understudy_provider_serving{provider=b}"] == 1
    assert after["understudy_turns_running"] == 0
    assert 0 < after["understudy_event_loop_lag_seconds"] < 5  # also where the pass is shorter than a tick of the loop
    assert after["process_resident_memory_bytes"] > 0
    assert_discreet(stage, client)


async def test_metrics_label_unlisted_models_as_other(empty_stage: BotHarness) -> None:
    """A chat may pick any model of a live catalog, so names must not become series."""
    stage = empty_stage
    client = await opened(stage, A_LIVE_MODELS="true")
    stage.says("/model")
    picker = await stage.reply()
    stage.presses(picker, "a")
    await stage.until(lambda: "m2" in picker.labels)
    stage.presses(picker, "m2")
    await stage.until(lambda: stage.chat().answers()[-1].labels == [])
    assert (await stage.asks(QUESTION)).text == FIRST
    assert stage.first.requests[-1].json["model"] == "m2"
    await stage.until(lambda: stage.events("turn.ended"))
    figures = (await client.get("/metrics")).samples
    assert figures["understudy_provider_requests_total{model=other,provider=a,result=answered}"] == 1
    assert not any("m2" in name for name in figures)


async def test_llm_status_requires_the_token(empty_stage: BotHarness) -> None:
    stage = empty_stage
    client = await opened(stage, AVAILABLE_PROVIDERS='{"a": ["m"], "b": ["n"], "openai": ["gpt-5-mini"]}')
    stage.first.default = status(503)
    await stage.asks(QUESTION)
    await stage.named(1)
    for token in ("another-word", WORD[:-1], "é"):
        refused = await client.get("/llm/status", token=token)
        assert (refused.status, refused.headers["WWW-Authenticate"]) == (401, "Bearer")
        assert "provider" not in refused.text
    assert (await client.get("/metrics", token="another-word")).status == 401
    shown = (await client.get("/llm/status")).json
    first, second, third = shown["providers"]
    assert (shown["preferred"], shown["forced"], shown["shared"]) == ("b", None, True)
    assert (first["provider"], first["state"], first["reason"]) == ("a", "cooling", "HTTP 503 (server_error)")
    assert (second["state"], second["requests"], second["models"]) == ("preferred", 2, ["n"])
    assert second["first_output_median_s"] > 0
    # Over all replicas, from the database, after writing the pending records of this one.
    assert (first["requests_today"], first["failures_today"]) == (1, 1)
    assert (second["requests_today"], second["failures_today"], second["cost_today_usd"]) == (2, 0, 0.0)
    assert (third["state"], third["reason"]) == ("not_configured", "OPENAI_API_KEY is not set")
    assert_discreet(stage, client)


async def test_guarded_paths_are_closed_without_web_token(empty_stage: BotHarness) -> None:
    """The response names the variable."""
    stage = empty_stage
    port = free_port()
    await stage.start(WEB_PORT=str(port))
    client = WebClient(port, "any-word")
    for path in ("/metrics", "/llm/status", "/nowhere"):
        closed = await client.get(path)
        assert closed.status == 403
        assert "WEB_TOKEN is not set" in closed.text
    assert (await client.get("/healthz")).json == {"alive": True}
    await client.becomes("/readyz", 200)


async def test_readyz_fails_without_telegram_or_providers(empty_stage: BotHarness) -> None:
    stage = empty_stage
    await stage.telegram.stop()
    port = free_port()
    stage.settings |= {"WEB_PORT": str(port), "WEB_TOKEN": WORD}
    await stage.launch()
    await stage.until(lambda: stage.events("web.listening"))
    client = WebClient(port, WORD)
    waiting = await client.becomes("/readyz", 503)
    assert waiting.json["parts"]["telegram"] == "connection refused"
    assert waiting.json["parts"]["bot"] == "starting"
    assert (await client.get("/healthz")).status == 200
    await stage.telegram.start()
    await stage.stands()
    await client.becomes("/readyz", 200)
    stage.first.default = stage.second.default = status(503)
    await stage.asks(QUESTION)
    none_left = await client.becomes("/readyz", 503)
    assert none_left.json["parts"] == {
        "redis": "ok",
        "database": "ok",
        "providers": "a: cooling (HTTP 503 (server_error)); b: cooling (HTTP 503 (server_error))",
        "telegram": "ok",
        "bot": "ok",
    }
    assert_discreet(stage, client)


async def test_web_port_in_use_exits_with_one_line(empty_stage: BotHarness) -> None:
    server = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        with pytest.raises(StartupError, match=rf"^WEB_PORT: port {port} .*in use") as error:
            await empty_stage.start(WEB_PORT=str(port))
    assert "\n" not in str(error.value)


async def test_shutdown_closes_open_connections(empty_stage: BotHarness) -> None:
    """In bounded time."""
    stage = empty_stage
    client = await opened(stage)
    _, idle = await asyncio.open_connection("127.0.0.1", int(client.url.rpartition(":")[2]))
    _, slow = await asyncio.open_connection("127.0.0.1", int(client.url.rpartition(":")[2]))
    slow.write(b"GET /metrics HTTP/1.1\r\nHost: x\r\n")
    await slow.drain()
    await client.get("/healthz")
    async with asyncio.timeout(5):
        assert await stage.stop() == 0
    names = [entry["event"] for event in ("bot.stopped", "web.closed") for entry in stage.events(event)]
    assert names == ["bot.stopped", "web.closed"]
    for writer in (idle, slow):
        writer.close()


async def test_web_server_reveals_nothing(empty_stage: BotHarness) -> None:
    """No version header, no access log, and no trace of a secret in a query."""
    stage = empty_stage
    client = await opened(stage)
    page = await client.get("/healthz?token=a-secret-in-a-query")
    await client.get("/llm/status?token=a-secret-in-a-query", token="another-word")
    assert "Server" not in page.headers
    assert page.headers["Cache-Control"] == "no-store"
    assert "a-secret-in-a-query" not in stage.log
    assert [entry["path"] for entry in stage.events("web.unauthorized")] == ["/llm/status"]


async def test_console_reaches_the_daemon(empty_stage: BotHarness) -> None:
    """Dead letters and moderation exist only after Telegram has answered; the figures include the answers."""
    stage = empty_stage
    client = await opened(stage)
    await client.becomes("/readyz", 200)
    assert (await stage.asks(QUESTION)).text == FIRST
    async with aiohttp.ClientSession(client.url, cookie_jar=aiohttp.CookieJar(unsafe=True)) as browser:
        await (await browser.post("/console/sign-in", data={"token": WORD})).read()
        for path, shown in (("dead", "No dead letters"), ("moderation", "No cards"), ("usage", "Requests by provider")):
            async with browser.get(f"/console/{path}") as response:
                client.bodies.append(await response.text())
            assert shown in client.bodies[-1]
    assert_discreet(stage, client)


async def test_no_web_server_without_web_port(stage: BotHarness) -> None:
    assert (await stage.asks(QUESTION)).text == FIRST
    assert not stage.events("web.listening")
