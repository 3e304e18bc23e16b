"""Clients of other projects, the examples of `docs/endpoint.md`, and many clients at once."""

import asyncio
import io
import json
import re
import shlex
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import openai
import pytest
from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

from bot.web.server import WebTiming
from tests.support.api_harness import OTHER, TOKEN, endpoint
from tests.support.fake_llm.server import LLMServer, answer, tool_call

pytestmark = pytest.mark.integration

MESSAGES: Any = [{"role": "user", "content": "Hello?"}]
CLIENTS = 1000
PAGE = (Path(__file__).parents[4] / "docs" / "endpoint.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(sh|python)\n(.*?)```", PAGE, re.DOTALL)
SETTINGS = {
    name: value
    for language, block in BLOCKS
    if language == "sh" and not block.startswith("curl ")
    for name, _, value in (line.partition("=") for line in block.splitlines())
}
"""The settings of the page; its examples of requests are for them."""
OF_THE_PAGE = "http://127.0.0.1:8080"
EXAMPLES = [(language, block) for language, block in BLOCKS if language == "python" or block.startswith("curl ")]
SAID = [
    r'"content": "Good day to you"',
    r'(?s)"content":"Good".*"total_tokens":18.*data: \[DONE\]',
    r'"id": "openai/gpt-5-mini"',
    r"^Good day to you$",
    r'"object": "list".*"index": 1',
    r'"text": "Hello from the recording"',
    r'(?s)"side":"a","done":true.*data: \[DONE\]',
]
"""Words in the output of each example."""


async def test_the_synchronous_client_of_openai_works_unchanged(first: LLMServer, tmp_path: Path) -> None:
    first.default = answer("Good day to you")

    def ask(url: str) -> tuple[str | None, str]:
        with openai.OpenAI(api_key=TOKEN, base_url=url, max_retries=0) as client:
            plain = client.chat.completions.create(model="auto", messages=MESSAGES).choices[0].message.content
            with client.chat.completions.create(model="auto", messages=MESSAGES, stream=True) as stream:
                streamed = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
        return plain, streamed

    async with endpoint(tmp_path, {"a": first.url}) as api:
        assert await asyncio.to_thread(ask, api.url) == ("Good day to you", "Good day to you")


async def test_an_agent_of_pydantic_ai_runs_its_own_tools_over_the_endpoint(first: LLMServer, tmp_path: Path) -> None:
    first.script(tool_call("current_time", {"zone": "UTC"}), answer("It is noon"), answer("Once upon a time"))
    async with endpoint(tmp_path, {"a": first.url}) as api:
        model = OpenAIChatModel("auto", provider=OpenAIProvider(openai_client=api.client))
        agent = Agent(model, instructions="Be brief.")

        @agent.tool_plain
        def current_time(zone: str) -> str:
            """Tell the time."""
            return f"noon in {zone}"

        assert (await agent.run("What time is it?")).output == "It is noon"
        async with agent.run_stream("Tell a story") as run:
            assert await run.get_output() == "Once upon a time"
    assert "noon in UTC" in json.dumps(first.requests[1].json)
    assert "Be brief." in json.dumps(first.requests[0].json)


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize(("example", "said"), list(zip(EXAMPLES, SAID, strict=True)))
async def test_examples_of_the_page_run_as_they_stand(
    first: LLMServer, tmp_path: Path, *, example: tuple[str, str], said: str
) -> None:
    first.default = answer("Good day to you")
    (tmp_path / "note.ogg").write_bytes(b"OggS\x00\xff\r\n")
    names = {"ollama": ["llama3.2"], "openai": ["gpt-5-mini"], "lab": ["m"], "groq": ["m"]}
    providers = dict.fromkeys(names, first.url)
    variables: Any = {name: value for name, value in SETTINGS.items() if name != "WEB_PORT"}
    variables |= {"AVAILABLE_PROVIDERS": json.dumps(names), "OPENAI_API_KEY": "k", "GROQ_API_KEY": "k"}
    async with endpoint(tmp_path, providers, **variables) as api:
        language, source = example
        source = source.replace(OF_THE_PAGE, f"http://127.0.0.1:{api.port}")
        printed = await (_run_curl(source, tmp_path) if language == "sh" else asyncio.to_thread(_run_python, source))
    assert re.search(said, printed), printed


async def _run_curl(command: str, directory: Path) -> str:
    arguments = [
        *shlex.split(command.replace("\\\n", "")),
        "--silent",
        "--show-error",
        "--fail-with-body",
        "--noproxy",
        "*",
    ]
    process = await asyncio.create_subprocess_exec(*arguments, cwd=directory, stdout=asyncio.subprocess.PIPE)
    printed, _ = await process.communicate()
    assert process.returncode == 0, printed
    return printed.decode()


def _run_python(source: str) -> str:
    printed = io.StringIO()
    names: dict[str, Any] = {"print": partial(print, file=printed)}
    exec(compile(source, "docs/endpoint.md", "exec"), names)  # noqa: S102 - an example of our own page
    names["client"].close()
    return printed.getvalue()


async def test_a_thousand_clients_at_once_are_all_answered(first: LLMServer, tmp_path: Path) -> None:
    """Another token that asks in the middle of them does not wait for the last one."""
    first.default = answer("Good day", delay_s=0.01)
    loop = asyncio.get_running_loop()
    limits = {"LIMIT_RUNNING_PER_USER": "0"}
    async with (
        # Clients, endpoint and provider share one event loop here: a client sends its body late.
        endpoint(tmp_path, {"a": first.url}, timing=WebTiming(body_s=60, response_s=60), **limits) as api,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session,
    ):

        async def ask(number: int, token: str = TOKEN) -> float:
            body = {"model": "auto", "messages": MESSAGES, "stream": number % 2 == 0}
            headers = {"Authorization": f"Bearer {token}"}
            async with session.post(f"{api.url}/chat/completions", json=body, headers=headers) as response:
                text = await response.text()
            assert response.status == 200, text
            assert text.endswith("data: [DONE]\n\n") if number % 2 == 0 else "Good day" in text
            return loop.time()

        asking = [asyncio.create_task(ask(number)) for number in range(CLIENTS)]
        await first.arrival(20, timeout_s=30)
        another = await ask(0, OTHER)
        ended = await asyncio.gather(*asking)
    assert len(first.requests) == CLIENTS + 1
    assert sum(at > another for at in ended) > CLIENTS // 4
