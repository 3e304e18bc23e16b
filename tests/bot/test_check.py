"""`python -m bot check`: a line per configured part, and the exit code."""

import json
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from structlog.testing import capture_logs

from bot import check
from core.config.settings import Settings
from tests.support import raw_mcp_server
from tests.support.fake_llm import server as llm
from tests.support.fake_llm.server import LLMServer, refusing_url
from tests.support.fake_telegram.server import TOKEN, TelegramServer
from tests.support.processes.redis_server import RedisServer, free_port
from tests.support.settings import settings_for

KEY = "sk-loopback-0123456789"


class CheckOutput:
    """Exit code, table and warnings of a check."""

    def __init__(self, code: int, output: str) -> None:
        self.code = code
        self.output = output
        self.warnings = [line.removeprefix("warning: ") for line in output.splitlines() if line.startswith("warning: ")]
        rows = [re.split(r" {2,}", line, maxsplit=2) for line in output.splitlines()[: -len(self.warnings) or None]]
        self.rows = {name: (verdict, detail) for name, verdict, detail in rows}


@pytest.fixture
def run_check(capsys: pytest.CaptureFixture[str]) -> "CheckRunner":
    """Run a check."""
    return CheckRunner(capsys)


class CheckRunner:
    """Runs a check and parses its output."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    async def __call__(self, settings: Settings) -> CheckOutput:
        with capture_logs():
            code = await check.run(settings)
        captured = self._capsys.readouterr()
        return CheckOutput(code, captured.out)


@pytest.fixture
async def server() -> AsyncIterator[LLMServer]:
    """A provider that requires a key and has two models."""
    async with LLMServer(api_key=KEY) as started:
        yield started


@pytest.fixture
async def telegram() -> AsyncIterator[TelegramServer]:
    """A Bot API server."""
    async with TelegramServer() as started:
        yield started


async def test_check_passes_when_every_part_answers(
    tmp_path: Path, run_check: CheckRunner, server: LLMServer, telegram: TelegramServer, redis_server: RedisServer
) -> None:
    report = await run_check(
        settings_for(
            tmp_path / "data",
            {"a": server.url},
            A_API_KEY=KEY,
            REDIS_URL=redis_server.url,
            TELEGRAM_BOT_TOKEN=TOKEN,
            TELEGRAM_API_BASE_URL=telegram.url,
            WEB_PORT=str(port := free_port()),
        )
    )
    assert report.code == 0
    assert list(report.rows) == ["provider a", "redis", "database", "telegram", "web"]
    assert {verdict for verdict, _ in report.rows.values()} == {"ok"}
    assert report.rows["provider a"][1].startswith("2 models in ")
    assert report.rows["telegram"] == ("ok", "@understudy_bot")
    assert report.rows["provider a"][1].endswith(": stream, tools, system message")
    assert report.rows["database"][1] == f"{tmp_path / 'data' / 'understudy.db'}, not created yet"
    assert not (tmp_path / "data").exists()
    assert report.rows["web"][1] == f"127.0.0.1:{port} is free"
    assert report.warnings == []


async def test_check_passes_without_redis_and_telegram(
    tmp_path: Path, run_check: CheckRunner, server: LLMServer
) -> None:
    """A provider without its key is listed as not set, without a warning."""
    report = await run_check(settings_for(tmp_path, {"openai": server.url, "a": server.url}, A_API_KEY=KEY))
    assert report.code == 0
    assert report.rows["provider openai"] == ("not set", "OPENAI_API_KEY is not set")
    assert report.rows["redis"] == ("ok", "embedded, REDIS_URL is not set")
    assert report.rows["telegram"][0] == "not set"
    assert report.warnings == []


async def test_check_passes_with_one_working_provider(
    tmp_path: Path, run_check: CheckRunner, server: LLMServer
) -> None:
    """The others are listed with their reasons."""
    with refusing_url() as url:
        report = await run_check(settings_for(tmp_path, {"a": url, "b": server.url, "c": server.url}, C_API_KEY=KEY))
    assert report.code == 0
    assert report.rows["provider a"] == ("FAILED", "connection refused")
    assert report.rows["provider b"] == ("FAILED", "HTTP 401: it wants an API key (Incorrect API key provided.)")
    assert report.rows["provider c"][0] == "ok"


async def test_check_asks_the_providers_of_what_is_not_chat(
    tmp_path: Path, run_check: CheckRunner, server: LLMServer
) -> None:
    """One that fails there stops nothing else; a model without a price is said to count as free."""
    with refusing_url() as url:
        report = await run_check(
            settings_for(
                tmp_path, {"a": server.url, "b": url}, A_API_KEY=KEY, BUDGET_DAY="1", B_REMOTE="true", B_API_KEY=KEY,
                AVAILABLE_PROVIDERS='{"a": ["m"]}', VOICE_PROVIDERS='{"a": ["w"], "groq": ["w"]}',
                IMAGE_PROVIDERS='{"b": ["draw"]}',
            )
        )  # fmt: skip
    assert report.code == 0
    assert report.rows["transcription a"][0] == "ok"
    assert report.rows["transcription groq"] == ("not set", "GROQ_API_KEY is not set")
    assert report.rows["pictures b"] == ("FAILED", "connection refused")
    assert any(warning.startswith("b: draw has no known price") for warning in report.warnings)


async def test_check_asks_tool_servers_and_the_search(
    tmp_path: Path, run_check: CheckRunner, server: LLMServer
) -> None:
    """Tools, missing ones and faults are printed, but no key; a server that fails stops no other check."""

    async def search(request: web.Request) -> web.Response:
        assert (request.path, request.query["format"]) == ("/search", "json")
        return web.json_response({"results": []})

    app = web.Application()
    app.router.add_get("/search", search)
    raw = {"command": sys.executable, "args": [raw_mcp_server.__file__, str(tmp_path / "lines")]}
    servers = {
        "notes": {**raw, "allowedTools": ["append_line", "resource", "gone"]},
        "strange": {**raw, "args": [*raw["args"], "strange", "--token", "a-secret-of-the-server"]},
        "broken": {"command": "/nonexistent/a-secret-of-the-server"},
    }
    async with TestServer(app) as searx:
        settings = settings_for(
            tmp_path, {"a": server.url}, A_API_KEY=KEY, MCP_SERVERS=json.dumps({"mcpServers": servers}),
            WEB_SEARCH_URL=str(searx.make_url("")).rstrip("/"),
        )  # fmt: skip
        report = await run_check(settings)
    assert report.code == 0
    verdict, detail = report.rows["tools notes"]
    assert verdict == "ok"
    assert detail.endswith("those of allowedTools: append_line (asks), resource")
    assert report.rows["tools strange"][1].endswith("all are allowed: fine (asks)")
    assert report.rows["tools broken"] == ("FAILED", "its command or its folder was not found")
    assert report.rows["web search"][0] == "ok"
    assert "notes does not offer the tool gone of allowedTools" in report.warnings
    assert "strange: the tool doubling is left out: its schema is too large" in report.warnings
    assert "a-secret-of-the-server" not in report.output
    settings = settings_for(tmp_path, {"a": server.url}, A_API_KEY=KEY, WEB_SEARCH_URL=server.url)
    verdict, detail = (await run_check(settings)).rows["web search"]
    assert (verdict, detail[:5]) == ("FAILED", "HTTP ")


async def test_check_fails_without_a_working_provider(
    tmp_path: Path, run_check: CheckRunner, server: LLMServer
) -> None:
    """Also when none is configured."""
    with refusing_url() as url:
        assert (await run_check(settings_for(tmp_path, {"a": url}))).code == 1
    report = await run_check(settings_for(tmp_path, {"openai": server.url}))
    assert report.code == 1
    assert report.warnings == ["not a single provider answers"]


async def test_check_warns_of_unlisted_models(tmp_path: Path, run_check: CheckRunner) -> None:
    """A typo in a model's name shows here."""
    listed = ["m:latest", "n-20270115", "nn"]  # Ollama's writing, a dated name behind an alias, another model
    async with LLMServer(models=listed) as server:
        found = await run_check(settings_for(tmp_path, {"a": server.url}))
        server.models = ["mm", "n"]
        lacking = await run_check(settings_for(tmp_path, {"a": server.url}))
    assert found.warnings == []
    assert (lacking.code, lacking.warnings) == (0, ["a does not list the model m"])


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ({"status": 401, "description": "Unauthorized"}, "HTTP 401: the token of TELEGRAM_BOT_TOKEN is not accepted"),
        ({"status": 502, "description": "Bad Gateway"}, "HTTP 502: Bad Gateway"),
    ],
)
async def test_check_fails_when_telegram_rejects(
    tmp_path: Path, run_check: CheckRunner, telegram: TelegramServer, fault: dict[str, object], reason: str
) -> None:
    telegram.fail("getMe", **fault)
    async with LLMServer() as server:
        report = await run_check(
            settings_for(tmp_path, {"a": server.url}, TELEGRAM_BOT_TOKEN=TOKEN, TELEGRAM_API_BASE_URL=telegram.url)
        )
        other = await run_check(
            settings_for(
                tmp_path, {"a": server.url}, TELEGRAM_BOT_TOKEN=TOKEN, TELEGRAM_API_BASE_URL=f"{telegram.url}/bot"
            )
        )
    assert (report.code, other.code) == (1, 1)
    assert report.rows["telegram"] == ("FAILED", reason)
    assert other.rows["telegram"] == ("FAILED", "HTTP 404: not an answer of a Bot API server")


async def test_check_fails_without_printing_secrets(tmp_path: Path, run_check: CheckRunner) -> None:
    """Redis, the database and Telegram are unreachable: each has a reason."""
    port = free_port()
    secret = "hunter2-hunter2"
    async with LLMServer() as server:
        server.models_behaviour = llm.status(500, {"error": {"message": f"bad key {KEY} for {secret}"}})
        report = await run_check(
            settings_for(
                tmp_path,
                {"a": server.url},
                A_API_KEY=KEY,
                REDIS_URL=f"redis://:{secret}@127.0.0.1:{port}/0",
                DATABASE_URL=f"postgresql://ann:{secret}@127.0.0.1:{port}/bot",
                TELEGRAM_BOT_TOKEN=TOKEN,
                TELEGRAM_API_BASE_URL=f"http://127.0.0.1:{port}",
            )
        )
    assert report.code == 1
    assert {name: verdict for name, (verdict, _) in report.rows.items()} == {
        "provider a": "FAILED",
        "redis": "FAILED",
        "database": "FAILED",
        "telegram": "FAILED",
        "web": "not set",
    }
    assert report.rows["telegram"][1] == "connection refused"
    assert all(detail for _, detail in report.rows.values())
    for hidden in (KEY, secret, TOKEN):
        assert hidden not in report.output


@pytest.mark.parametrize("scheme", ["redis", "redis+cluster", "redis+sentinel"])
async def test_check_reports_each_kind_of_unreachable_redis(
    tmp_path: Path, run_check: CheckRunner, server: LLMServer, scheme: str
) -> None:
    """The library raises other exceptions for each; none is a traceback or an object's repr."""
    url = f"{scheme}://127.0.0.1:{free_port()}"
    report = await run_check(settings_for(tmp_path, {"a": server.url}, A_API_KEY=KEY, REDIS_URL=url))
    assert report.code == 1
    verdict, reason = report.rows["redis"]
    assert verdict == "FAILED"
    assert reason
    assert "<" not in reason


async def test_check_fails_with_an_unusable_data_directory(tmp_path: Path, run_check: CheckRunner) -> None:
    """The line names the variable."""
    (tmp_path / "file").write_text("")
    async with LLMServer() as server:
        report = await run_check(settings_for(tmp_path / "file" / "data", {"a": server.url}))
    assert report.code == 1
    assert report.rows["database"][0] == "FAILED"
    assert report.rows["database"][1].startswith("DATA_DIR: cannot be written to")


async def test_check_aligns_columns(tmp_path: Path, run_check: CheckRunner, server: LLMServer) -> None:
    output = (await run_check(settings_for(tmp_path, {"a": server.url, "a_long_name": server.url}))).output
    lines = [line for line in output.splitlines() if not line.startswith("warning")]
    assert len({re.search(r" (ok|FAILED|not set) ", line).start() for line in lines}) == 1
    assert len({re.search(r"(ok|FAILED|not set) +", line).end() for line in lines}) == 1
