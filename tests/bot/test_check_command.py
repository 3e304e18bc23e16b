"""`python -m bot check` by its command line: each common mistake is one line, and nothing is created."""

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from bot.__main__ import main
from tests.support.fake_llm import server as llm
from tests.support.fake_llm.server import LLMServer
from tests.support.processes.redis_server import RedisServer

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
KEY = "kx-9f3ab27c51d04e68-Zz"
NO_TOOLS = {"error": {"message": "m does not support tools", "type": "api_error"}}


class Checked:
    """Exit code and output of a check."""

    def __init__(self, code: int | None, out: str, err: str) -> None:
        self.code = code
        self.out = out
        self.err = err
        assert "Traceback" not in out + err

    def line(self, begin: str) -> str:
        """Return the only line that begins so."""
        (found,) = [line for line in (self.out + self.err).splitlines() if line.startswith(begin)]
        return found


Check = Callable[[str], Awaitable[Checked]]


def names_in(directory: Path) -> list[str]:
    """Return the names of the files in a directory."""
    return [path.name for path in directory.iterdir()]


async def check_as_process(directory: Path, env_file: str) -> Checked:
    """Run the check as a process in a directory with this `.env` and a minimal environment."""
    (directory / ".env").write_text(env_file)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bot", "check",
        cwd=directory,
        env={"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"]},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await asyncio.wait_for(process.communicate(), 60)
    return Checked(process.returncode, out.decode(), err.decode())


@pytest.fixture
def check(clean_process: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Check:
    """Run the command line in this process, in an empty folder with the given `.env`."""

    async def run(env_file: str) -> Checked:
        await asyncio.to_thread((tmp_path / ".env").write_text, env_file)
        # In a thread, since the command has an event loop of its own.
        code = await asyncio.to_thread(main, ["check"])
        captured = capsys.readouterr()
        return Checked(code, captured.out, captured.err)

    return run


def lab(server: LLMServer, **variables: str) -> str:
    """Return a `.env` with the provider `lab` at the server."""
    given = {"AVAILABLE_PROVIDERS": '{"lab": ["m"]}', "LAB_BASE_URL": server.url, **variables}
    return "\n".join(f"{name}={value}" for name, value in given.items())


async def test_check_passes_and_creates_nothing(tmp_path: Path) -> None:
    async with LLMServer() as server:
        found = await check_as_process(tmp_path, lab(server))
    assert found.code == 0, found.out + found.err
    assert found.line("provider lab").endswith("stream, tools, system message")
    assert found.line("database").endswith("understudy.db, not created yet")
    assert names_in(tmp_path) == [".env"]


@pytest.mark.parametrize(
    ("env_file", "begins", "told"),
    [
        ("AVAILABLE_PROVIDERS={}", "warning: AVAILABLE_PROVIDERS: lists no provider", "for example"),
        ("AVAILABLE_PROVIDERS={\n}\n", "AVAILABLE_PROVIDERS: is JSON over several lines", "on one line"),
        ("OLLAMA_BASE_URL=http://h/v1/chat/completions", "OLLAMA_BASE_URL: must not end in", "for example"),
        ("DATABASE_URL=postgresql://u:p@ss@h/d", "DATABASE_URL: must have its user name and password", "(@ as %40)"),
        ("OPENIA_API_KEY=x", "warning: OPENIA_API_KEY is ignored", "did you mean OPENAI_API_KEY?"),
        ("WEB_TOKEN=short", "WEB_TOKEN: must be 16 characters or more", "for example"),
        ("TIMEZONE=Nowhere", "TIMEZONE: is not the name of a time zone", "for example TIMEZONE=Europe/Berlin"),
    ],
)
async def test_check_reports_a_mistake_in_one_line_and_exits_with_1(
    check: Check, env_file: str, begins: str, told: str
) -> None:
    found = await check(env_file)
    assert found.code == 1
    assert told in found.line(begins)


async def test_check_names_the_missing_version_of_a_base_url(check: Check) -> None:
    """The model list and the answers are below /v1 only."""
    async with LLMServer() as server:
        server.models_behaviour = server.default = llm.status(404, {"detail": "Not Found"})
        found = await check(lab(server, LAB_BASE_URL=server.root))
    assert found.code == 1
    assert f"LAB_BASE_URL has no /v1 at its end, try LAB_BASE_URL={server.root}/v1" in found.line("provider lab")


@pytest.mark.parametrize("code", [404, 405, 501, 403])
async def test_check_accepts_a_server_without_a_model_list(check: Check, code: int) -> None:
    """Azure-like servers, and keys without the right to list models."""
    async with LLMServer() as server:
        server.models_behaviour = llm.status(code, {"error": {"message": "not here"}})
        found = await check(lab(server))
    assert found.code == 0
    assert "no model list" in found.line("provider lab")
    assert "m answered in" in found.line("provider lab")


async def test_check_reports_what_a_model_refuses(check: Check) -> None:
    """With the server's words, and the model works all the same."""
    async with LLMServer() as server:
        server.script(llm.status(400, NO_TOOLS))
        found = await check(lab(server))
    assert found.code == 0
    assert "stream, no tools, system message" in found.line("provider lab")
    assert "m is asked without tools: HTTP 400 (api_error): m does not support tools" in found.line("warning: lab")


async def test_check_fails_with_the_servers_words_where_only_the_list_works(check: Check) -> None:
    """A model that does not load is listed all the same; the key in a field of the answer is masked."""
    words = "model requires more system memory (5.6 GiB) than is available (3.1 GiB)"
    async with LLMServer(api_key=KEY) as server:
        server.default = llm.status(500, {"error": {"message": words, "code": KEY}})
        found = await check(lab(server, LAB_API_KEY=KEY))
    assert found.code == 1
    assert words in found.line("provider lab")
    assert KEY not in found.out + found.err


async def test_check_tests_the_first_listed_model_that_the_server_has(check: Check) -> None:
    async with LLMServer(models=["small:latest"]) as server:
        found = await check(lab(server, AVAILABLE_PROVIDERS='{"lab": ["big", "small"]}'))
        assert [request.model for request in server.requests] == ["small"]
    assert found.code == 0
    assert found.line("warning: lab") == "warning: lab does not list the model big"


@pytest.mark.parametrize(
    ("url", "told"),
    [
        (lambda port: f"redis://:wrong-word@127.0.0.1:{port}/0", "it does not accept the user name or password"),
        (lambda port: f"redis://127.0.0.1:{port}/0", "it wants a password, as in redis://"),
        (lambda port: f"rediss://:secret-word@127.0.0.1:{port}/0", "begin the URL with redis://"),
    ],
)
async def test_check_reports_redis_in_one_plain_line(
    check: Check, redis_server: RedisServer, url: Callable[[int], str], told: str
) -> None:
    await redis_server.configure("requirepass", "secret-word")
    async with LLMServer() as server:
        found = await check(lab(server, REDIS_URL=url(redis_server.port)))
    assert found.code == 1
    line = found.line("redis ")
    assert "FAILED" in line
    assert told in line
    assert "-word" not in found.out


async def test_check_reports_a_web_port_in_use(check: Check) -> None:
    """By another program, that is."""
    async with LLMServer() as server:
        found = await check(lab(server, WEB_PORT=str(server.port)))
    assert found.code == 1
    assert f"WEB_PORT: port {server.port} of 127.0.0.1 is in use by another process" in found.line("web")
