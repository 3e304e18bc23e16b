"""A bare `Agent.run_stream`: the bot's instructions and tools on the library's own model, with Python's defaults.

Reads one request per line, `{"turns": 40, "at_once": 20, "apart_s": 0}`, and prints a line when the turns are done.
"""

import argparse
import asyncio
import json
import sys
from typing import Any

import httpx2
from pydantic_ai import Agent
from pydantic_ai.messages import ModelMessage
from pydantic_ai.models import Model
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

from benchmarks.conversation import QUESTION, messages
from services.chat.agent import equip
from services.chat.prompts import CHARACTER


async def _turns(
    agent: Agent[Any, str],
    model: Model,
    history: list[ModelMessage],
    *,
    turns: int,
    at_once: int,
    apart_s: float = 0,
) -> None:
    left = iter(range(turns))

    async def run_user(number: int) -> None:
        await asyncio.sleep(number * apart_s)
        for _ in left:
            async with agent.run_stream(QUESTION, model=model, message_history=history) as result:
                async for _ in result.stream_text(delta=True, debounce_by=None):
                    pass

    await asyncio.gather(*map(run_user, range(at_once)))


def _client(connections: int) -> httpx2.AsyncClient | None:
    """Return a client with that many connections; None for the library's own."""
    if not connections:
        return None
    return httpx2.AsyncClient(timeout=httpx2.Timeout(600, connect=5), limits=httpx2.Limits(max_connections=connections))


async def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", required=True)
    parser.add_argument("--history", type=int, default=0, help="tokens")
    parser.add_argument("--connections", type=int, default=0, help="at once; the library's own client has 1,000")
    options = parser.parse_args()
    # Any: the tools are never called, so the dependencies are not used.
    agent: Agent[Any, str] = Agent(instructions=CHARACTER)
    equip(agent)
    provider = OpenAIProvider(base_url=options.url, api_key="blocked", http_client=_client(options.connections))
    model = OpenAIChatModel("m", provider=provider)
    history = messages(options.history)
    print("{}", flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        await _turns(agent, model, history, **json.loads(line))
        print("{}", flush=True)


if __name__ == "__main__":
    asyncio.run(_main())
