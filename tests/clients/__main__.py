"""Clients that are not in the lock file, run against the endpoint over an LLM server on loopback.

OpenAI's JavaScript client, LiteLLM's client and the command `llm`, while the first provider refuses connections.
Each is left out where its program is not given. Fails where one saw anything unexpected.

    npm ci --prefix tests/clients
    python3 -m venv /tmp/clients && /tmp/clients/bin/pip install llm litellm
    .venv/bin/python -m tests.clients --node node --litellm /tmp/clients/bin/python --llm /tmp/clients/bin/llm
"""

import argparse
import asyncio
import json
import logging
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import structlog

from tests.support.api_harness import TOKEN, endpoint
from tests.support.fake_llm.addresses import refusing_url
from tests.support.fake_llm.exchange import Exchange
from tests.support.fake_llm.server import Act, LLMServer, answer, tool_call

HERE = Path(__file__).parent
TEXT, TOOL_TEXT = "Good day to you", "The tool has answered"
PATIENCE_S = 120.0

JAVASCRIPT = {
    "plain": ["b/m", TEXT, "stop", 18],
    "streamed": [TEXT, "stop", 18],
    "tools": TOOL_TEXT,
    "streamed_tools": TOOL_TEXT,
    "models": True,
    "embeddings": [3, 5],
    "transcription": "Hello from the recording",
    "unknown_model": [404, "model_not_found"],
    "two_answers": [400, "unsupported_parameter"],
    "wrong_token": [401, "invalid_api_key"],
}
LITELLM = {
    "plain": [TEXT, "stop", 18],
    "streamed": TEXT,
    "tools": TOOL_TEXT,
    "unknown_model": [404],
    "wrong_token": [401],
}
LLM = {"plain": TEXT, "streamed": TEXT, "conversation": TEXT, "tools": TOOL_TEXT, "wrong_token": True}
LLM_MODELS = """
- model_id: understudy
  model_name: auto
  api_base: {url}
  api_key_name: understudy
  supports_tools: true
"""


async def _answer(exchange: Exchange) -> None:
    """Call the first tool of a request that has tools and no result of one yet; else answer."""
    asked = exchange.request.json
    tools = asked.get("tools") or []
    if any(message["role"] == "tool" for message in asked["messages"]):
        await answer(TOOL_TEXT).play(exchange)
    elif tools:
        await tool_call(tools[0]["function"]["name"], {"zone": "UTC"} if _has_zone(tools[0]) else {}).play(exchange)
    else:
        await answer(TEXT).play(exchange)


def _has_zone(tool: Mapping[str, Any]) -> bool:
    return "zone" in tool["function"].get("parameters", {}).get("properties", {})


async def _run(command: Sequence[str], variables: Mapping[str, str]) -> tuple[int, str]:
    """Run a program; returns its exit status and what it printed. Its faults are visible."""
    inherited = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    environment = {**inherited, "LITELLM_LOCAL_MODEL_COST_MAP": "True", **variables}
    process = await asyncio.create_subprocess_exec(
        *command, env=environment, cwd=HERE, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await asyncio.wait_for(process.communicate(), PATIENCE_S)
    return process.returncode or 0, out.decode()


async def _run_script(command: Sequence[str], url: str) -> Mapping[str, object]:
    status, printed = await _run(command, {"OPENAI_BASE_URL": url, "OPENAI_API_KEY": TOKEN})
    return {} if status else json.loads(printed.splitlines()[-1])


async def _run_llm(program: str, url: str) -> Mapping[str, object]:
    with tempfile.TemporaryDirectory() as directory:
        (Path(directory) / "extra-openai-models.yaml").write_text(LLM_MODELS.format(url=url))

        async def ask(*arguments: str, token: str = TOKEN) -> tuple[int, str]:
            command = [program, "prompt", "--model", "understudy", "--key", token, *arguments]
            status, printed = await _run(command, {"LLM_USER_PATH": directory})
            return status, printed.strip()

        return {
            "plain": (await ask("Hello?", "--no-stream"))[1],
            "streamed": (await ask("Hello?"))[1],
            "conversation": (await ask("And again?", "--continue"))[1],
            "tools": (await ask("Hello?", "--tool", "llm_version"))[1],
            "wrong_token": (await ask("Hello?", token="wrong-token-0123456789"))[0] != 0,
        }


def _report(client: str, expected: Mapping[str, object], seen: Mapping[str, object]) -> bool:
    """Print what a client saw; returns whether all of it was expected."""
    wrong = {name: seen.get(name) for name in expected if seen.get(name) != expected[name]}
    print(f"{client}: {len(expected) - len(wrong)} of {len(expected)} as expected: {', '.join(expected)}")
    for name, value in wrong.items():
        print(f"    {name}: expected {expected[name]!r}, saw {value!r}")
    return not wrong


async def _try_clients(options: argparse.Namespace) -> bool:
    results: list[bool] = []
    variables: Any = {"EMBEDDING_PROVIDERS": '{"b": ["e"]}', "VOICE_PROVIDERS": '{"b": ["w"]}'}
    with tempfile.TemporaryDirectory() as directory, refusing_url() as refused:
        async with LLMServer() as server:
            server.default = Act(_answer)
            async with endpoint(Path(directory), {"a": refused, "b": server.url}, **variables) as api:
                if options.node:
                    seen = await _run_script([options.node, str(HERE / "openai.mjs")], api.url)
                    results.append(_report("OpenAI's JavaScript client", JAVASCRIPT, seen))
                if options.litellm:
                    seen = await _run_script([options.litellm, str(HERE / "litellm_client.py")], api.url)
                    results.append(_report("LiteLLM's client", LITELLM, seen))
                if options.llm:
                    results.append(_report("llm", LLM, await _run_llm(options.llm, api.url)))
    return all(results) and bool(results)


def main() -> int:
    """Run the clients."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--node", metavar="PROGRAM", help="node, for the JavaScript client")
    parser.add_argument("--litellm", metavar="PYTHON", help="an interpreter with litellm")
    parser.add_argument("--llm", metavar="PROGRAM", help="the command llm")
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    return 0 if asyncio.run(_try_clients(parser.parse_args())) else 1


if __name__ == "__main__":
    sys.exit(main())
