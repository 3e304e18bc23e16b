"""`python -m bot serve` as a process: the endpoint without Telegram."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import openai
import pytest

from tests.support.fake_llm.server import LLMServer, answer
from tests.support.processes.redis_server import free_port
from tests.support.settings import variables_for

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
TOKEN = "editor-token-0123456789"


async def start(directory: Path, **variables: str) -> asyncio.subprocess.Process:
    """Start the endpoint with these variables alone."""
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bot", "serve", cwd=directory,
        env={**variables, "PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"]},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


async def test_serve_answers_until_it_is_terminated(first: LLMServer, tmp_path: Path) -> None:
    first.default = answer("Good day")
    port = free_port()
    variables = variables_for(tmp_path, {"a": first.url}, WEB_PORT=str(port), API_TOKENS=f"editor={TOKEN}")
    process = await start(tmp_path, **variables)
    client = openai.AsyncOpenAI(api_key=TOKEN, base_url=f"http://127.0.0.1:{port}/v1", max_retries=40, timeout=20)
    try:
        found = await client.chat.completions.create(model="auto", messages=[{"role": "user", "content": "Hello?"}])
        assert found.choices[0].message.content == "Good day"
        process.send_signal(signal.SIGTERM)
        out, err = await asyncio.wait_for(process.communicate(), 20)
    finally:
        await client.close()
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0
    text = (out + err).decode()
    assert "Traceback" not in text
    for private in (TOKEN, "Hello?", "Good day"):
        assert private not in text


@pytest.mark.parametrize(
    ("variables", "line"),
    [
        ({}, "WEB_PORT: is not set"),
        ({"WEB_PORT": "1", "API_TOKENS": "editor=short"}, "API_TOKENS: "),
        ({"WEB_PORT": "1", "API_TOKENS": "editor"}, "API_TOKENS: must be name=token"),
        ({"AVAILABLE_PROVIDERS": '{"openai": ["m"]}'}, "AVAILABLE_PROVIDERS: has no usable provider"),
    ],
)
async def test_serve_names_a_mistake_in_one_line(tmp_path: Path, *, variables: dict[str, str], line: str) -> None:
    given = {"AVAILABLE_PROVIDERS": '{"demo": ["demo"]}', "DATA_DIR": str(tmp_path), **variables}
    process = await start(tmp_path, **given)
    out, err = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 1
    assert any(each.startswith(line) for each in err.decode().splitlines()), err.decode()
    assert "Traceback" not in (out + err).decode()
