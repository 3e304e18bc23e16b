"""The console as a process: piped, and at a terminal. Few tests: each start costs a second."""

import asyncio
from pathlib import Path

from tests.support.fake_llm import server as llm
from tests.support.fake_llm.server import LLMServer, refusing_url
from tests.support.settings import variables_for
from tests.support.terminal import PATIENCE_S, Terminal, process

LOADED = """
import sys
from bot.__main__ import main
code = main()
sys.stderr.write(" ".join(sorted(name for name in sys.modules if name in {"aiogram", "prompt_toolkit"})))
sys.exit(code)
"""


async def test_piped(tmp_path: Path) -> None:
    """Into a pipe go the answer and no styles; nothing is logged, aiogram not even loaded, and the exit code is 0."""
    with refusing_url() as nobody:
        async with process(tmp_path, variables_for(tmp_path / "data", {"a": nobody}), ("-c", LOADED)) as console:
            out, err = await asyncio.wait_for(console.communicate(b"hello\n/quit\n"), PATIENCE_S)
    assert console.returncode == 0
    text = out.decode()
    assert "You wrote “hello”" in text
    assert "a: connection refused -> demo answered" in text
    assert "\x1b" not in text
    assert err == b""


async def test_whoever_reads_may_leave_first(tmp_path: Path) -> None:
    """`python -m bot | head -1` is no error of ours, and leaves no traceback."""
    with refusing_url() as nobody:
        async with process(tmp_path, variables_for(tmp_path / "data", {"a": nobody})) as console:
            await asyncio.wait_for(console.stdout.readline(), PATIENCE_S)
            console._transport.get_pipe_transport(1).close()
            console.stdin.write(b"hello\n")
            err = await asyncio.wait_for(console.stderr.read(), PATIENCE_S)
            assert await console.wait() == 0
    assert err == b""


async def test_at_a_terminal(tmp_path: Path) -> None:
    """A prompt, an answer as it streams, Ctrl-C that stops it, Ctrl-C and Ctrl-D at the prompt."""
    variables = {"TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1", "LANG": "en_GB.UTF-8"}
    async with LLMServer() as server:
        server.naming = llm.answer("A name for it")
        server.script(llm.stall(after_pieces=2), llm.answer("All of it."))
        variables |= variables_for(tmp_path / "data", {"a": server.url})
        with Terminal() as seen:
            async with process(tmp_path, variables, terminal=seen.end) as console:
                await seen.until("\n>")
                seen.press("hello\r")
                await seen.until("The audience")
                seen.press("\x03")
                await seen.until("Stopped.")
                await seen.until("\n>")
                seen.press("never sent")
                await seen.until("sent")
                seen.press("\x03")
                await seen.until("\n>")
                seen.press("and again\r")
                await seen.until("All of it.")
                await seen.until("\n>")
                seen.press("\x04")
                assert await asyncio.wait_for(console.wait(), PATIENCE_S) == 0
    assert b"\x1b[2mStopped." in seen.raw
    prompts = [request.json["messages"][-1]["content"] for request in server.requests]
    assert prompts == ["hello", "and again"]
