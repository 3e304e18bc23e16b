"""Properties of the image that are testable without a container: health check and read-only file system."""

import ast
import asyncio
import json
import os
import re
import signal
import sys
from pathlib import Path

import pytest

from bot.web import healthcheck
from tests.support.bot_harness import FIRST, BotHarness
from tests.support.processes.redis_server import free_port

ROOT = Path(__file__).parents[2]


async def checked(**environment: str) -> tuple[int | None, str]:
    """Run the health check as the Dockerfile does. Returns its exit code and output."""
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    (command,) = re.findall(r"^HEALTHCHECK .*CMD (\[.*\])$", dockerfile, re.MULTILINE)
    python, *arguments = json.loads(command)
    assert python == "python"
    process = await asyncio.create_subprocess_exec(
        sys.executable, *arguments,
        cwd=ROOT, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await asyncio.wait_for(process.communicate(), 30)
    assert err == b""
    return process.returncode, out.decode().strip()


async def test_healthcheck_distinguishes_alive_from_dead(empty_stage: BotHarness) -> None:
    stage = empty_stage
    port = str(free_port())
    await stage.start(WEB_PORT=port)
    # A proxy of the environment must not be used for loopback.
    alive = await checked(WEB_PORT=port, WEB_HOST="0.0.0.0", http_proxy="http://127.0.0.1:1")
    assert alive == (0, "/healthz answers 200")
    await stage.stop()
    assert await checked(WEB_PORT=port) == (1, "/healthz does not answer: ConnectionRefusedError")


async def test_healthcheck_without_web_port_succeeds() -> None:
    code, said = await checked()
    assert code == 0
    assert said.startswith("WEB_PORT is not set")


async def test_healthcheck_fails_on_a_blocked_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """The port accepts connections, but no answer comes."""
    monkeypatch.setattr(healthcheck, "TIMEOUT_S", 0.2)
    writers: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(lambda _reader, writer: writers.append(writer), "127.0.0.1", 0)
    async with server:
        environment = {"WEB_PORT": str(server.sockets[0].getsockname()[1])}
        assert await asyncio.to_thread(healthcheck.main, environment) == 1
    for writer in writers:
        writer.close()


def test_healthcheck_imports_only_the_standard_library() -> None:
    """It runs every 30 seconds."""
    for path in (ROOT / "bot/__init__.py", ROOT / "bot/web/__init__.py", ROOT / "bot/web/healthcheck.py"):
        nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
        nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        names |= {str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)}
        assert {name.partition(".")[0] for name in names} <= sys.stdlib_module_names


async def test_daemon_writes_to_data_dir_and_tmp_only(empty_stage: BotHarness, tmp_path: Path) -> None:
    """Working directory and home are read-only."""
    stage = empty_stage
    places = {name: tmp_path / name for name in ("cwd", "home", "data", "passing")}
    for place in places.values():
        place.mkdir()
    for name in ("cwd", "home"):
        places[name].chmod(0o555)
    port = str(free_port())
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bot", "telegram",
        cwd=places["cwd"],
        env={
            **stage.environment, "PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1",
            "HOME": str(places["home"]), "TMPDIR": str(places["passing"]), "DATA_DIR": str(places["data"]),
            "WEB_PORT": port,
        },
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        question = stage.says("Is anybody out there?")
        assert (await stage.answer(after=question.id, timeout=40)).text == FIRST
        assert (await checked(WEB_PORT=port))[0] == 0
        process.send_signal(signal.SIGTERM)
        _, logged = await asyncio.wait_for(process.communicate(), 15)
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()
    assert process.returncode == 0, logged.decode()[-2000:]
    # Root may write anywhere, so success alone proves nothing.
    assert [list(places[name].iterdir()) for name in ("cwd", "home", "passing")] == [[], [], []]
    assert sorted(path.name for path in places["data"].iterdir()) == [
        "inbox.db", "inbox.lock", "sends.journal", "understudy.db"
    ]  # fmt: skip
