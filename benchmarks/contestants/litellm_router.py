"""LiteLLM's router against its own `acompletion`. Runs in any interpreter with LiteLLM, without this repository.

Reads one request per line and prints one line of JSON:

    {"act": "compare", "streamed": true, "repeat": 20}   CPU milliseconds a request, by alternative
    {"act": "hold", "turns": 1000, "apart_s": 0.05}      streamed requests, all held until the server ends them
"""

import argparse
import asyncio
import gc
import json
import random
import sys
import time

import litellm
from litellm import Router

MESSAGES = [{"role": "system", "content": "Answer in a few words."}, {"role": "user", "content": "Hello?"}]


def _deployment(name, url):  # noqa: ANN001, ANN202 - plain Python: LiteLLM's interpreter may be of any version
    return {"model_name": name, "litellm_params": {"model": "openai/m", "api_base": url, "api_key": "blocked"}}


class Alternatives:
    """The compared ways to make a request.

    Args:
        healthy: the base URL of a server that answers.
        refusing: the base URL of one that refuses connections.
    """

    def __init__(self, healthy, refusing):  # noqa: ANN001, ANN204 - as above
        second = _deployment("second", healthy)
        chain = [{"first": ["second"]}]
        up = Router(model_list=[_deployment("first", healthy), second], fallbacks=chain)
        down = Router(model_list=[_deployment("first", refusing), second], fallbacks=chain)
        self.asks = {
            "LiteLLM's `acompletion`": lambda **more: litellm.acompletion(
                model="openai/m", api_base=healthy, api_key="blocked", messages=MESSAGES, **more
            ),
            "LiteLLM's router, healthy": lambda **more: up.acompletion(model="first", messages=MESSAGES, **more),
            "LiteLLM's router, primary down": lambda **more: down.acompletion(model="first", messages=MESSAGES, **more),
        }

    async def ask(self, name, *, streamed):  # noqa: ANN001, ANN201 - as above
        """Make one request and read the answer to its end."""
        response = await self.asks[name](stream=streamed)
        if streamed:
            async for _ in response:
                pass

    async def compare(self, *, streamed, repeat):  # noqa: ANN001, ANN201 - as above
        """Return the CPU milliseconds of each alternative, alternating between them call by call."""
        spent = dict.fromkeys(self.asks, 0.0)
        for _ in range(repeat):
            for name in random.sample(list(self.asks), len(self.asks)):
                began = time.process_time()
                await self.ask(name, streamed=streamed)
                spent[name] += time.process_time() - began
        return {name: seconds / repeat * 1000 for name, seconds in spent.items()}

    async def hold(self, turns, apart_s):  # noqa: ANN001, ANN201 - as above
        """Start that many requests without waiting for answers in between."""

        async def run_user(number):  # noqa: ANN001, ANN202 - as above
            await asyncio.sleep(number * apart_s)
            await self.ask("LiteLLM's router, healthy", streamed=True)

        await asyncio.gather(*map(run_user, range(turns)))


async def _main():  # noqa: ANN202 - as above
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--healthy", required=True)
    parser.add_argument("--refusing", required=True)
    options = parser.parse_args()
    litellm.telemetry = False
    litellm.suppress_debug_info = True
    alternatives = Alternatives(options.healthy, options.refusing)
    for streamed in (False, True):
        await alternatives.compare(streamed=streamed, repeat=5)
    gc.collect()
    gc.freeze()
    print("{}", flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        request = json.loads(line)
        if request["act"] == "compare":
            answer = await alternatives.compare(streamed=request["streamed"], repeat=request["repeat"])
        else:
            answer = await alternatives.hold(request["turns"], request["apart_s"]) or {}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    asyncio.run(_main())
