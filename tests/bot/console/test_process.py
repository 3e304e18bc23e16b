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


async def test_piped_console_prints_answers_alone_on_stdout(tmp_path: Path) -> None:
    """No styles, no log, no import of aiogram; exit code 0."""
    with refusing_url() as url:
        async with process(tmp_path, variables_for(tmp_path / "data", {"a": url}), ("-c", LOADED)) as console:
            out, err = await asyncio.wait_for(console.communicate(b"hello\n/quit\n"), PATIENCE_S)
    assert console.returncode == 0
    answer, remarks = out.decode(), err.decode()
    assert "You wrote “hello”" in answer
    assert "->" not in answer
    assert "a: connection refused -> demo answered" in remarks
    assert not remarks.endswith(("aiogram", "prompt_toolkit"))
    assert "\x1b" not in answer + remarks


async def test_piped_console_fails_if_a_message_is_not_answered(tmp_path: Path) -> None:
    """Later messages are answered nevertheless."""
    async with LLMServer() as server:
        server.default = llm.answer("All of it.")
        server.script(llm.status(401))
        async with process(tmp_path, variables_for(tmp_path / "data", {"a": server.url})) as console:
            out, err = await asyncio.wait_for(console.communicate(b"hello\nand again\n"), PATIENCE_S)
    assert out.decode() == "All of it.\n"
    assert "a: HTTP 401" in err.decode()
    assert "/retry asks again" in err.decode()
    assert "provider.all_failed" not in err.decode(), "the remarks say it"
    assert console.returncode == 1


async def test_closed_output_ends_the_console_silently(tmp_path: Path) -> None:
    """As in `python -m bot | head -1`."""
    with refusing_url() as url:
        async with process(tmp_path, variables_for(tmp_path / "data", {"a": url})) as console:
            console._transport.get_pipe_transport(1).close()
            console.stdin.write(b"hello\n")
            err = await asyncio.wait_for(console.stderr.read(), PATIENCE_S)
            assert await console.wait() == 0
    assert b"Traceback" not in err
    assert b"BrokenPipe" not in err


async def test_terminal_console_streams_and_handles_keys(tmp_path: Path) -> None:
    """Ctrl-C stops an answer and clears the line, Ctrl-D ends the session; what is typed during an answer is kept."""
    variables = {"TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1", "LANG": "en_GB.UTF-8"}
    async with LLMServer() as server:
        server.naming = llm.answer("A name for it")
        answered = asyncio.Event()
        server.script(llm.stall(after_pieces=2), llm.gate(answered, then=llm.answer("All of it.")))
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
                terminal.press("/exi\t")
                await terminal.until("/exit")
                terminal.press("\x03")
                await terminal.until("\n>")
                terminal.press("and again\r")
                await terminal.until("asking a")
                terminal.press("typed meanwhile")
                answered.set()
                await terminal.until("All of it.")
                await terminal.until("\n>")
                await terminal.until("typed meanwhile")
                terminal.press("\x03")
                await terminal.until("\n>")
                terminal.press("\x04")
                assert await asyncio.wait_for(console.wait(), PATIENCE_S) == 0
    assert b"\x1b[2mStopped." in terminal.raw
    assert terminal.raw.index(b"All of it.") < terminal.raw.index(b"typed meanwhile"), "it stays out of the answer"
    history = tmp_path / "data" / "console.history"
    assert "and again" in history.read_text()
    assert history.stat().st_mode & 0o777 == 0o600
    prompts = [request.json["messages"][-1]["content"] for request in server.requests]
    assert prompts == ["hello", "and again"]
