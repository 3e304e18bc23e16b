"""A tool that acts, in the whole bot with a real MCP server: the buttons, a restart in between, other people."""

import json
import sys
from pathlib import Path

import pytest

from tests.support.bot_harness import GROUP, BotHarness
from tests.support.clock import until
from tests.support.fake_llm.server import answer, tool_call

ROOT = Path(__file__).parents[2]
ALLOW = ["Allow once", "Always for me", "Deny"]


@pytest.mark.timeout(180)
async def test_permission_is_asked_and_survives_a_restart(empty_stage: BotHarness, tmp_path: Path) -> None:
    stage, lines = empty_stage, tmp_path / "lines"
    command = {"command": sys.executable, "args": ["-m", "tests.support.mcp_server", str(lines)], "cwd": str(ROOT)}
    await stage.start(MCP_SERVERS=json.dumps({"mcpServers": {"notes": command}}))
    await until(lambda: stage.events("mcp.connected"), 45)
    stage.first.script(tool_call("notes_append_line", {"line": "Buy some tea."}), answer("I would like to note it."))
    question = stage.says("@understudy_bot note that I need tea", GROUP)
    asked = await stage.answer(GROUP, after=question.id)
    assert asked.labels[:3] == ALLOW
    assert 'Allow this? notes: append_line {"line": "Buy some tea."}' in asked.text
    assert not lines.exists()

    await stage.stop()
    await stage.start()
    await until(lambda: len(stage.events("mcp.connected")) == 2, 45)
    assert await stage.toast(stage.presses(asked, "Allow once", user_id=8)) == (
        "Only the person who asked can decide this."
    )
    stage.first.script(answer("It is noted."))
    assert await stage.toast(stage.presses(asked, "Allow once")) == "Allowed."
    done = await stage.answer(GROUP, after=asked.id)
    assert done.text == "It is noted."
    assert lines.read_text() == "Buy some tea.\n"
    assert "appended" in str(stage.first.requests[-1].json["messages"][-1])
    assert "Allow once" not in stage.chat(GROUP).message(asked.id).labels
