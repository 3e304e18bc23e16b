"""Measures CPU time of the routed model, healthy and with its primary down, against pydantic-ai's and LiteLLM's."""

import argparse
import asyncio
import logging
import tempfile
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path

import structlog
from pydantic_ai.messages import ModelMessage, ModelResponse
from pydantic_ai.models import ModelRequestParameters
from pydantic_ai.models.fallback import FallbackModel
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.models.wrapper import WrapperModel
from pydantic_ai.providers.openai import OpenAIProvider
from pydantic_ai.settings import ModelSettings

from benchmarks.measuring import Rounds, Work, compare, machine, print_table
from benchmarks.processes import Contestant, contestant, llm_process
from benchmarks.replica import Replica, listened, plain, provider, streamed
from bot.event_loop import run
from tests.support.fake_llm.server import refusing_url
from tests.support.processes.redis_server import RedisServer

BARE = "the agent on a bare model"
OWN = "the agent on the bot's model, not routed"
OWN_COLLECTED = "the agent on the bot's model, collected from a stream, not routed"
ROUTED, ROUTED_DOWN = "routed, healthy", "routed, primary in cooldown"
ROUTED_HELD = "routed, healthy, text held for 0.3 s as in a chat"
HELD_S = 0.3
FALLBACK, FALLBACK_DOWN = "pydantic-ai's `FallbackModel`, healthy", "pydantic-ai's `FallbackModel`, primary down"
LITELLM_BARE = "LiteLLM's `acompletion`"
LITELLM, LITELLM_DOWN = "LiteLLM's router, healthy", "LiteLLM's router, primary down"
WAYS = {"plain": plain, "streamed": streamed}
CALL_S = 30.0
"""Time limit of a call; a longer one is an error."""


async def measure_pydantic_ai(
    redis_url: str, healthy: str, refusing: str, rounds: int, repeat: int
) -> Mapping[str, Rounds]:
    """Measure the alternatives on pydantic-ai, in this process."""
    up = [provider("first", healthy), provider("second", healthy)]
    down = [provider("first", refusing), provider("second", healthy)]
    async with Replica(redis_url, up) as well, Replica(redis_url, down) as ill:
        await ill.fallback.report_provider_failure("first", TimeoutError("down"), "bench")
        bare, dead = library_model(healthy), library_model(refusing)
        own = well.builder.models[up[0], "m"]
        stock, stock_down = FallbackModel(bare, library_model(healthy)), FallbackModel(dead, library_model(healthy))
        collected = Collected(own)
        models = {
            BARE: lambda: bare,
            OWN: lambda: own,
            OWN_COLLECTED: lambda: collected,
            ROUTED: lambda: well.model,
            ROUTED_DOWN: lambda: ill.model,
            FALLBACK: lambda: stock,
            FALLBACK_DOWN: lambda: stock_down,
        }
        measured: dict[str, Rounds] = {}
        for way, ask in WAYS.items():
            works: dict[str, Work] = {
                name: lambda ask=ask, model=model: asyncio.wait_for(ask(model()), CALL_S)
                for name, model in models.items()
                if way == "plain" or name != OWN_COLLECTED
            }
            if way == "streamed":
                works[ROUTED_HELD] = lambda: asyncio.wait_for(listened(well.listened_model(HELD_S)), CALL_S)
            measured[way] = await compare(works, rounds=rounds, repeat=repeat)
        return measured


class Collected(WrapperModel):
    """A model whose plain requests are collected streams, as those of a routed model are."""

    async def request(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
    ) -> ModelResponse:
        """Read a stream to its end."""
        async with self.wrapped.request_stream(messages, model_settings, model_request_parameters) as stream:
            async for _ in stream:
                pass
            return stream.get()


def library_model(url: str) -> OpenAIChatModel:
    """Return a model as in pydantic-ai's documentation, for comparison with a program without the bot."""
    return OpenAIChatModel("m", provider=OpenAIProvider(base_url=url, api_key="blocked"))


async def measure_litellm(rival: Contestant, rounds: int, repeat: int) -> Mapping[str, Rounds]:
    """Measure LiteLLM in its own process and interpreter."""
    measured: dict[str, Rounds] = {}
    for way in WAYS:
        turns = [await rival.run(act="compare", streamed=way == "streamed", repeat=repeat) for _ in range(rounds)]
        measured[way] = Rounds({name: [turn[name] for turn in turns] for name in turns[0]})
    return measured


def to_rows(way: str, measured: Rounds, bare: str, pairs: Mapping[str, str]) -> list[list[str]]:
    """Return table rows: each alternative against the bare model, and some against a line of their own."""
    shown: list[list[str]] = []
    for name in measured.figures:
        to_bare = measured.ratio(name, bare).text() if name != bare else "1"
        to_paired = measured.ratio(name, pairs[name]).text() if name in pairs else ""
        shown.append([way, name, f"{measured.spread(name).median:.2f} ms", to_bare, to_paired])
    return shown


async def main(rounds: int, repeat: int, pause: str, litellm: str | None) -> None:
    """Run all measurements on one Redis and one LLM server."""
    print(f"{machine()}; {rounds} rounds of {repeat} requests each, in turn; pieces {pause} s apart")
    async with AsyncExitStack() as stack:
        redis = RedisServer(Path(stack.enter_context(tempfile.TemporaryDirectory())))
        await redis.start()
        stack.push_async_callback(redis.stop)
        llm = await stack.enter_async_context(llm_process("--pieces", "40", "--pause", pause))
        refusing = stack.enter_context(refusing_url())
        measured = await measure_pydantic_ai(redis.url, llm.url, refusing, rounds, repeat)
        theirs: Mapping[str, Rounds] = {}
        if litellm is not None:
            options = ("--healthy", llm.url, "--refusing", refusing)
            rival = await stack.enter_async_context(contestant("litellm_router", *options, python=litellm))
            # It pauses before each retry, so a round takes long although it costs little CPU.
            theirs = await measure_litellm(rival, rounds, max(1, repeat // 4))
        else:
            print("LiteLLM's column is left out: no interpreter that has it was given (--litellm /path/to/python)")
    table: list[list[str]] = []
    for way in WAYS:
        unrouted = OWN_COLLECTED if way == "plain" else OWN
        pairs = {ROUTED: unrouted, ROUTED_DOWN: ROUTED, FALLBACK_DOWN: FALLBACK}
        table += to_rows(way, measured[way], BARE, pairs)
        if way in theirs:
            table += to_rows(way, theirs[way], LITELLM_BARE, {LITELLM_DOWN: LITELLM})
    print_table(["", "", "CPU a request", "to its bare model", "to the same not routed, or healthy"], table)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--repeat", type=int, default=12)
    parser.add_argument("--pause", default="0.002", help="seconds between two pieces of an answer")
    parser.add_argument("--litellm", help="an interpreter that has LiteLLM installed")
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    run(main(options.rounds, options.repeat, options.pause, options.litellm))
