"""What the image promises, as far as it can be tried without one: its health check, and a read-only file system."""

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
    """Run the health check as the Dockerfile has it: its exit code and what it says."""
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


async def test_the_health_check_of_a_bot_that_lives_and_of_one_that_does_not(empty_stage: BotHarness) -> None:
    stage = empty_stage
    port = str(free_port())
    await stage.start(WEB_PORT=port)
    # A proxy of the environment is for what leaves the machine.
    alive = await checked(WEB_PORT=port, WEB_HOST="0.0.0.0", http_proxy="http://127.0.0.1:1")  # noqa: S104 - an input
    assert alive == (0, "/healthz answers 200")
    await stage.stop()
    assert await checked(WEB_PORT=port) == (1, "/healthz does not answer: ConnectionRefusedError")


async def test_without_a_web_side_there_is_nobody_to_ask() -> None:
    code, said = await checked()
    assert code == 0
    assert said.startswith("WEB_PORT is not set")


async def test_an_event_loop_that_stands_still_is_not_well(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody listens, and nobody answers."""
    monkeypatch.setattr(healthcheck, "TIMEOUT_S", 0.2)
    writers: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(lambda _reader, writer: writers.append(writer), "127.0.0.1", 0)
    async with server:
        environment = {"WEB_PORT": str(server.sockets[0].getsockname()[1])}
        assert await asyncio.to_thread(healthcheck.main, environment) == 1
    for writer in writers:
        writer.close()


def test_the_health_check_imports_nothing_that_takes_long() -> None:
    """It runs every half a minute."""
    for path in (ROOT / "bot/__init__.py", ROOT / "bot/web/__init__.py", ROOT / "bot/web/healthcheck.py"):
        nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
        nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        names |= {str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)}
        assert {name.partition(".")[0] for name in names} <= sys.stdlib_module_names


async def test_the_daemon_writes_nowhere_but_where_it_is_told_to(empty_stage: BotHarness, tmp_path: Path) -> None:
    """Its working directory and its home are read-only; DATA_DIR and the directory for what passes are not."""
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
    # Root may write anywhere, so it is not enough that nothing failed.
    assert [list(places[name].iterdir()) for name in ("cwd", "home", "passing")] == [[], [], []]
    assert sorted(path.name for path in places["data"].iterdir()) == ["inbox.db", "inbox.lock", "understudy.db"]
