"""The daemon as a process of its own."""

import asyncio
import os
import signal
import sys
from pathlib import Path

from tests.support.bot_harness import ELSEWHERE, FIRST, LONG, RETRY, BotHarness
from tests.support.fake_llm.server import answer, gate
from tests.support.fake_telegram.server import TOKEN

ROOT = Path(__file__).parents[2]
HANDED_BACK = "The bot is restarting. This answer will continue in a moment."


async def started(stage: BotHarness, directory: Path, **settings: str) -> asyncio.subprocess.Process:
    """Run `python -m bot telegram` with a minimal environment."""
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bot", "telegram",
        # Outside the source tree, where a developer's .env may lie.
        cwd=directory,
        env={**stage.environment, **settings, "PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"]},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip


async def test_wrong_token_exits_with_one_line(empty_stage: BotHarness, tmp_path: Path) -> None:
    wrong = "42:AAF-this-is-not-the-token-of-anybody"
    process = await started(empty_stage, tmp_path, TELEGRAM_BOT_TOKEN=wrong, LOG_LEVEL="error")
    _, told = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 1
    line, *rest = told.decode().strip().splitlines()
    assert line.startswith("TELEGRAM_BOT_TOKEN: Telegram does not accept this token")
    assert not rest
    assert wrong.partition(":")[2] not in told.decode()


async def test_sigterm_in_the_middle_of_an_answer(empty_stage: BotHarness, tmp_path: Path) -> None:
    """The process ends by itself and marks the partial answer; the next one makes the answer anew."""
    stage = empty_stage
    stage.first.script(gate(asyncio.Event(), after_pieces=1, then=answer(pieces=[LONG, "And the end."])))
    stage.says("Tell me something long.")
    process = await started(stage, tmp_path, SHUTDOWN_TIMEOUT="0.5")
    message = await stage.seen(lambda message: bool(message.text), timeout=30)
    process.send_signal(signal.SIGTERM)
    _, logged = await asyncio.wait_for(process.communicate(), 10)
    assert process.returncode == 0, logged.decode()[-2000:]
    assert message.text == f"{LONG.strip()}\n\n{HANDED_BACK}"
    assert message.labels == []
    assert TOKEN not in logged.decode()
    assert "Tell me something" not in logged.decode()
    await stage.start()
    await stage.until(lambda: message.labels == [RETRY, ELSEWHERE])
    assert stage.chat().texts() == [FIRST]
