"""A tool that acts, in daemons killed by SIGKILL: asked about, decided after a restart, carried out once."""

import asyncio
import contextlib
import json
import sqlite3
import sys
from pathlib import Path

import pytest

from tests.support import raw_mcp_server
from tests.support.fake_llm.server import answer, gate, tool_call
from tests.support.fake_telegram.chats import Message
from tests.support.processes.fleet import Fleet
from tests.support.processes.fork_server import ForkServer

GROUP = -100
TEA, MILK = {"line": "Buy some tea."}, {"line": "Buy some milk."}
RESULT = f"appended {TEA['line']}"
ALLOW_TEA, ALLOW_MILK = "Allow once 1", "Allow once 2"


def newest(fleet: Fleet, text: str) -> Message | None:
    """Return the newest message of the bot that contains a text and has its final buttons."""
    found = [each for each in fleet.telegram.chat(GROUP).answers() if text in each.text and "Retry" in each.labels]
    return found[-1] if found else None


async def toast(fleet: Fleet, message: Message, button: str, user_id: int) -> str:
    """Press a button and return the text of the toast."""
    query = fleet.telegram.presses(message, button, user_id)
    answered = await fleet.telegram.wait_for(lambda: fleet.telegram.callback_answers.get(query), 40)
    return str(answered.get("text", ""))


@pytest.mark.timeout(240)
async def test_permission_survives_kills(fork_server: ForkServer, tmp_path: Path) -> None:
    lines = tmp_path / "lines"
    command = {"command": sys.executable, "args": [raw_mcp_server.__file__, str(lines)]}
    servers = json.dumps({"mcpServers": {"notes": command}})
    async with Fleet(fork_server, tmp_path, MCP_SERVERS=servers) as fleet:
        daemon = await fleet.start()
        await daemon.wait_for_event("mcp.connected", timeout_s=60)
        fleet.llm.script(
            tool_call("notes_append_line", TEA),
            tool_call("notes_append_line", MILK),
            answer("I would like to note it."),
        )
        fleet.telegram.user_says("@understudy_bot note that I need tea and milk", GROUP, user_id=7)
        asked = await fleet.telegram.wait_for(lambda: newest(fleet, "I would like to note it."), 30)
        assert asked.labels[:3] == [ALLOW_TEA, "Always for me 1", "Deny 1"]
        assert f"Allow this? 1. notes: append_line {json.dumps(TEA)}" in asked.text
        assert not lines.exists()

        # Killed while the questions are open; the one about milk becomes a day old.
        await fleet.kill(daemon)
        with contextlib.closing(sqlite3.connect(tmp_path / "understudy.db", timeout=10)) as file, file:
            aged = file.execute(
                "UPDATE tool_calls SET created_at = datetime(created_at, '-25 hours') WHERE arguments LIKE '%milk%'"
            )
            assert aged.rowcount == 1
        daemon = await fleet.start()
        await daemon.wait_for_event("mcp.connected", timeout_s=60)
        # A process that was killed before it noted the end of its answer sends the last text again, buttons at last.
        await fleet.telegram.wait_for(lambda: ALLOW_TEA in asked.labels, 40)
        assert await toast(fleet, asked, ALLOW_TEA, user_id=8) == "Only the person who asked can decide this."
        # Killed in the middle of the answer that follows the call.
        fleet.llm.script(gate(asyncio.Event(), after_pieces=0, then=answer("Never shown.")))
        assert await toast(fleet, asked, ALLOW_TEA, user_id=7) == "Allowed."
        await fleet.telegram.wait_for(lambda: any(RESULT in str(each.json) for each in fleet.llm.requests), 30)
        assert lines.read_text() == f"{TEA['line']}\n"
        await fleet.kill(daemon)

        fleet.llm.default = answer("It is noted.")
        daemon = await fleet.start()
        done = await fleet.telegram.wait_for(lambda: newest(fleet, "It is noted."), 60)
        assert sum(RESULT in str(each.json) for each in fleet.llm.requests) >= 2
        assert lines.read_text() == f"{TEA['line']}\n"
        # The question about milk is stale.
        assert ALLOW_TEA not in asked.labels
        gone = "This can no longer be decided. Please ask again."
        assert await toast(fleet, asked, ALLOW_MILK, user_id=7) == gone
        await fleet.telegram.wait_for(lambda: ALLOW_MILK not in asked.labels, 40)
        assert lines.read_text() == f"{TEA['line']}\n"
        assert "Buy some" not in "".join(each.log for each in fleet.daemons)
        assert done.id > asked.id
