"""`check`: one line for everything that is configured, and an exit code."""

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from bot import check
from core.config.settings import Settings
from tests.support.fake_llm import server as llm
from tests.support.fake_llm.server import LLMServer, refusing_url
from tests.support.fake_telegram.server import TOKEN, TelegramServer
from tests.support.processes.redis_server import RedisServer, free_port
from tests.support.settings import settings_for

KEY = "sk-loopback-0123456789"


class Report:
    """What a check printed and returned."""

    def __init__(self, code: int, output: str) -> None:
        self.code = code
        self.output = output
        self.warnings = [line.removeprefix("warning: ") for line in output.splitlines() if line.startswith("warning: ")]
        rows = [re.split(r" {2,}", line, maxsplit=2) for line in output.splitlines()[: -len(self.warnings) or None]]
        self.rows = {name: (verdict, detail) for name, verdict, detail in rows}


@pytest.fixture
def look(capsys: pytest.CaptureFixture[str]) -> "Look":
    """Check some settings."""
    return Look(capsys)


class Look:
    """Runs a check and reads its table."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    async def __call__(self, settings: Settings) -> Report:
        with capture_logs():
            code = await check.run(settings)
        captured = self._capsys.readouterr()
        return Report(code, captured.out)


@pytest.fixture
async def server() -> AsyncIterator[LLMServer]:
    """A provider that wants a key and has two models."""
    async with LLMServer(api_key=KEY) as started:
        yield started


@pytest.fixture
async def telegram() -> AsyncIterator[TelegramServer]:
    """Telegram."""
    async with TelegramServer() as started:
        yield started


async def test_everything_answers(
    tmp_path: Path, look: Look, server: LLMServer, telegram: TelegramServer, redis_server: RedisServer
) -> None:
    """Each part has its line, and the exit code is 0."""
    report = await look(
        settings_for(
            tmp_path / "data",
            {"a": server.url},
            A_API_KEY=KEY,
            REDIS_URL=redis_server.url,
            TELEGRAM_BOT_TOKEN=TOKEN,
            TELEGRAM_API_BASE_URL=telegram.url,
        )
    )
    assert report.code == 0
    assert list(report.rows) == ["provider a", "redis", "database", "telegram"]
    assert {verdict for verdict, _ in report.rows.values()} == {"ok"}
    assert report.rows["provider a"][1].startswith("2 models in ")
    assert report.rows["telegram"] == ("ok", "@understudy_bot")
    assert report.rows["database"][1] == str(tmp_path / "data" / "understudy.db")
    assert report.warnings == []


async def test_what_is_not_configured_is_no_failure(tmp_path: Path, look: Look, server: LLMServer) -> None:
    """Without Redis and Telegram the console works; a provider without its key is left out, and said so once."""
    report = await look(settings_for(tmp_path, {"openai": server.url, "a": server.url}, A_API_KEY=KEY))
    assert report.code == 0
    assert report.rows["provider openai"] == ("not set", "OPENAI_API_KEY is not set")
    assert report.rows["redis"] == ("ok", "embedded, REDIS_URL is not set")
    assert report.rows["telegram"][0] == "not set"
    assert report.warnings == []


async def test_one_provider_that_answers_is_enough(tmp_path: Path, look: Look, server: LLMServer) -> None:
    """The others are told with their reasons; that is what the bot is for."""
    with refusing_url() as nobody:
        report = await look(settings_for(tmp_path, {"a": nobody, "b": server.url, "c": server.url}, C_API_KEY=KEY))
    assert report.code == 0
    assert report.rows["provider a"] == ("FAILED", "connection refused")
    assert report.rows["provider b"] == ("FAILED", "HTTP 401: it wants an API key")
    assert report.rows["provider c"][0] == "ok"


async def test_no_provider_that_answers_is_a_failure(tmp_path: Path, look: Look, server: LLMServer) -> None:
    """Also when none is configured at all."""
    with refusing_url() as nobody:
        assert (await look(settings_for(tmp_path, {"a": nobody}))).code == 1
    report = await look(settings_for(tmp_path, {"openai": server.url}))
    assert report.code == 1
    assert report.warnings == ["not a single provider answers"]


async def test_models_that_are_not_listed_are_warned_of(tmp_path: Path, look: Look) -> None:
    """A typo in a model's name shows here, and not in the middle of a conversation."""
    listed = ["m:latest", "n-20270115", "nn"]  # Ollama's writing, a dated name behind an alias, another model
    async with LLMServer(models=listed) as server:
        found = await look(settings_for(tmp_path, {"a": server.url}))
        server.models = ["mm", "n"]
        lacking = await look(settings_for(tmp_path, {"a": server.url}))
    assert found.warnings == []
    assert (lacking.code, lacking.warnings) == (0, ["a does not list the model m"])


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ({"status": 401, "description": "Unauthorized"}, "HTTP 401: the token of TELEGRAM_BOT_TOKEN is not accepted"),
        ({"status": 502, "description": "Bad Gateway"}, "HTTP 502: Bad Gateway"),
    ],
)
async def test_telegram_that_refuses_is_a_failure(
    tmp_path: Path, look: Look, telegram: TelegramServer, fault: dict[str, object], reason: str
) -> None:
    """With the reason of its own."""
    telegram.fail("getMe", **fault)
    async with LLMServer() as server:
        report = await look(
            settings_for(tmp_path, {"a": server.url}, TELEGRAM_BOT_TOKEN=TOKEN, TELEGRAM_API_BASE_URL=telegram.url)
        )
    assert report.code == 1
    assert report.rows["telegram"] == ("FAILED", reason)


async def test_what_is_out_of_reach_is_a_failure_without_a_secret_in_it(tmp_path: Path, look: Look) -> None:
    """Redis, the database and Telegram: each with a reason, none with its token or password."""
    port = free_port()
    secret = "hunter2-hunter2"
    async with LLMServer() as server:
        server.models_behaviour = llm.status(500, {"error": {"message": f"bad key {KEY} for {secret}"}})
        report = await look(
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
    }
    assert report.rows["telegram"][1] == "connection refused"
    assert all(detail for _, detail in report.rows.values())
    for hidden in (KEY, secret, TOKEN):
        assert hidden not in report.output


@pytest.mark.parametrize("scheme", ["redis", "redis+cluster", "redis+sentinel"])
async def test_whatever_kind_of_redis_is_out_of_reach_its_line_says_so(
    tmp_path: Path, look: Look, server: LLMServer, scheme: str
) -> None:
    """The library raises something else for each; none is a traceback, none prints the library's objects."""
    url = f"{scheme}://127.0.0.1:{free_port()}"
    report = await look(settings_for(tmp_path, {"a": server.url}, A_API_KEY=KEY, REDIS_URL=url))
    assert report.code == 1
    verdict, reason = report.rows["redis"]
    assert verdict == "FAILED"
    assert reason
    assert "<" not in reason


async def test_a_data_directory_that_cannot_be_used_is_a_failure(tmp_path: Path, look: Look) -> None:
    """One line that names the variable."""
    (tmp_path / "file").write_text("")
    async with LLMServer() as server:
        report = await look(settings_for(tmp_path / "file" / "data", {"a": server.url}))
    assert report.code == 1
    assert report.rows["database"][0] == "FAILED"
    assert report.rows["database"][1].startswith("DATA_DIR: cannot be written to")


async def test_the_columns_stand_below_each_other(tmp_path: Path, look: Look, server: LLMServer) -> None:
    """Names and verdicts of different lengths."""
    output = (await look(settings_for(tmp_path, {"a": server.url, "a_long_name": server.url}))).output
    lines = [line for line in output.splitlines() if not line.startswith("warning")]
    assert len({re.search(r" (ok|FAILED|not set) ", line).start() for line in lines}) == 1
    assert len({re.search(r"(ok|FAILED|not set) +", line).end() for line in lines}) == 1
