"""The console as a process: piped, and at a terminal. Few tests, since each start takes a second."""

import asyncio
from pathlib import Path

import pytest

from tests.support.fake_llm import server as llm
from tests.support.fake_llm.server import LLMServer, refusing_url
from tests.support.settings import variables_for
from tests.support.terminal import PATIENCE_S, PseudoTerminal, process

pytestmark = pytest.mark.integration

LOADED = """
import sys
from bot.__main__ import main
code = main()
sys.stderr.write(" ".join(sorted(name for name in sys.modules if name in {"aiogram", "prompt_toolkit"})))
sys.exit(code)
"""


async def test_piped_console_prints_plain_answers(tmp_path: Path) -> None:
    """No styles, no log, no import of aiogram; exit code 0."""
    with refusing_url() as url:
        async with process(tmp_path, variables_for(tmp_path / "data", {"a": url}), ("-c", LOADED)) as console:
            out, err = await asyncio.wait_for(console.communicate(b"hello\n/quit\n"), PATIENCE_S)
    assert console.returncode == 0
    text = out.decode()
    assert "You wrote “hello”" in text
    assert "a: connection refused -> demo answered" in text
    assert "\x1b" not in text
    assert err == b""


async def test_closed_output_ends_the_console_silently(tmp_path: Path) -> None:
    """As in `python -m bot | head -1`."""
    with refusing_url() as url:
        async with process(tmp_path, variables_for(tmp_path / "data", {"a": url})) as console:
            await asyncio.wait_for(console.stdout.readline(), PATIENCE_S)
            console._transport.get_pipe_transport(1).close()
            console.stdin.write(b"hello\n")
            err = await asyncio.wait_for(console.stderr.read(), PATIENCE_S)
            assert await console.wait() == 0
    assert err == b""


async def test_terminal_console_streams_and_handles_keys(tmp_path: Path) -> None:
    """Ctrl-C stops an answer and clears the line, Ctrl-D ends the session."""
    variables = {"TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1", "LANG": "en_GB.UTF-8"}
    async with LLMServer() as server:
        server.naming = llm.answer("A name for it")
        server.script(llm.stall(after_pieces=2), llm.answer("All of it."))
        variables |= variables_for(tmp_path / "data", {"a": server.url})
        with PseudoTerminal() as terminal:
            async with process(tmp_path, variables, terminal=terminal.end) as console:
                await terminal.until("\n>")
                terminal.press("hello\r")
                await terminal.until("The audience")
                terminal.press("\x03")
                await terminal.until("Stopped.")
                await terminal.until("\n>")
                terminal.press("never sent")
                await terminal.until("sent")
                terminal.press("\x03")
                await terminal.until("\n>")
                terminal.press("and again\r")
                await terminal.until("All of it.")
                await terminal.until("\n>")
                terminal.press("\x04")
                assert await asyncio.wait_for(console.wait(), PATIENCE_S) == 0
    assert b"\x1b[2mStopped." in terminal.raw
    prompts = [request.json["messages"][-1]["content"] for request in server.requests]
    assert prompts == ["hello", "and again"]
