"""A conversation of 100 turns: tokens sent, the share that a prompt cache meets, summaries and cost.

The requests of the bot are those that arrive at a loopback provider. Beside them stands a sliding window, which
leaves out the oldest turns at each message: those that `read_history` reads for the same turns from the first one on.
"""

import argparse
import asyncio
import json
import logging
import random
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import structlog
from genai_prices import calc_price
from pydantic_ai.messages import ModelMessage, ModelRequest, TextPart, UserPromptPart
from pydantic_ai.usage import RequestUsage

from benchmarks.measuring import print_table
from core.db.database import Database
from services.chat.store.history import read_history, read_sizes
from services.chat.store.turns import TurnStore
from services.llm.usage import MESSAGE_TOKENS, text_tokens
from tests.support.chat_harness import PRIVATE, chat_harness
from tests.support.fake_llm.exchange import Exchange, RecordedRequest
from tests.support.fake_llm.server import LLMServer, answer
from tests.support.llm_harness import provider

MODEL, PROVIDER = "gpt-5-mini", "openai"
"""A model whose provider caches beginnings by itself."""
CACHE_FROM, CACHE_STEP = 1024, 128
"""OpenAI caches a beginning of 1,024 tokens or more, in steps of 128."""
SUMMARY_WORDS = 350
WORDS = [f"{first}{last}" for first in ("har", "win", "let", "mar") for last in ("vest", "ter", "dow", "ket", "den")]

Sent = Sequence[tuple[str, str]]
"""Roles and texts of a request."""


@dataclass(frozen=True, slots=True)
class Figures:
    """Sums over requests.

    Args:
        unchanged: tokens of the beginnings that the request before had too.
        cached: those of them that the provider's cache holds.
    """

    requests: int = 0
    sent: int = 0
    unchanged: int = 0
    cached: int = 0
    output: int = 0

    @property
    def cost_usd(self) -> float:
        """The cost by the price library."""
        usage = RequestUsage(input_tokens=self.sent, cache_read_tokens=self.cached, output_tokens=self.output)
        return float(calc_price(usage, MODEL, provider_id=PROVIDER).total_price)


def words(count: int, chance: random.Random) -> str:
    """Return a text of that many words."""
    return " ".join(chance.choice(WORDS) for _ in range(count)).capitalize() + "."


def tokens(sent: Sent) -> int:
    """Return the estimated tokens of a request."""
    return sum(MESSAGE_TOKENS + text_tokens(text) for _, text in sent)


def add(figures: Figures, before: Sent | None, sent: Sent, output: int) -> Figures:
    """Add a request that follows another one."""
    same = 0
    for earlier, later in zip(before or (), sent, strict=False):
        if earlier != later:
            break
        same += 1
    unchanged = tokens(sent[:same])
    cached = unchanged // CACHE_STEP * CACHE_STEP if unchanged >= CACHE_FROM else 0
    return replace(
        figures,
        requests=figures.requests + 1,
        sent=figures.sent + tokens(sent),
        unchanged=figures.unchanged + unchanged,
        cached=figures.cached + cached,
        output=figures.output + output,
    )


def is_summary(request: RecordedRequest) -> bool:
    """Return whether a request asks for a summary."""
    return "memory of an assistant" in json.dumps(request.json)


def read_request(request: RecordedRequest) -> Sent:
    """Return a recorded request, with its tools in front, where providers have them."""
    found = [(each["role"], _text(each.get("content"))) for each in request.json["messages"]]
    return [("tools", json.dumps(request.json.get("tools", []))), *found]


def to_sent(history: Sequence[ModelMessage]) -> Sent:
    """Return a history as it is sent."""
    found: list[tuple[str, str]] = []
    for message in history:
        role = "user" if isinstance(message, ModelRequest) else "assistant"
        texts = [str(part.content) for part in message.parts if isinstance(part, UserPromptPart | TextPart)]
        found.append((role, "\n".join(texts)))
    return found


def _text(content: Any) -> str:
    if isinstance(content, list):
        return "\n".join(part.get("text", "") for part in content)
    return content or ""


async def play(turns: int, history_tokens: int, seed: int) -> tuple[Figures, Figures, Figures]:
    """Play a conversation; return the figures of its turns, of its summaries, and of a sliding window."""
    chance, answers = random.Random(seed), random.Random(seed + 1)

    class Answers:
        async def play(self, exchange: Exchange) -> None:
            length = SUMMARY_WORDS if is_summary(exchange.request) else answers.randint(60, 220)
            await answer(words(length, answers)).play(exchange)

    server = LLMServer()
    await server.start()
    server.default = Answers()
    with tempfile.TemporaryDirectory() as directory:
        database = Database(f"sqlite:///{Path(directory) / 'understudy.db'}")
        await database.start()
        try:
            async with chat_harness(database, provider("first", server.url), history_tokens=history_tokens) as harness:
                for _ in range(turns):
                    await harness.say(words(chance.randint(10, 40), chance))
                return await compare(server, database, harness.stores.turns, await harness.rows(), history_tokens)
        finally:
            await database.close()
            await server.stop()


async def compare(
    server: LLMServer, database: Database, store: TurnStore, rows: Sequence[Any], history_tokens: int
) -> tuple[Figures, Figures, Figures]:
    """Return the figures of the requests that arrived, and of those of the window for the same turns."""
    own, summaries, window = Figures(), Figures(), Figures()
    before: Sent | None = None
    windowed: Sent | None = None
    thread = await store.current(PRIVATE)
    asked = [request for request in server.requests if not is_summary(request)]
    for request in server.requests:
        if is_summary(request):
            summaries = add(summaries, None, read_request(request), round(SUMMARY_WORDS * 1.3))
    for request, row in zip(asked, rows, strict=True):
        sent = read_request(request)
        given = (await store.answer(row.id))[1:]
        output = tokens(to_sent(given))
        own, before = add(own, before, sent, output), sent
        # The same instructions and tools, then the newest turns that fit, then the same question.
        frame = [each for each in sent if each[0] in {"tools", "system", "developer"}][:2]
        history = await database.run(
            lambda connection, row=row: read_history(
                connection, thread.id, read_sizes(connection, thread.id, before_turn=row.id), history_tokens
            )
        )
        other = [*frame, *to_sent(history), sent[-1]]
        window, windowed = add(window, windowed, other, output), other
    return own, summaries, window


async def main(turns: int, history_tokens: int, seed: int) -> None:
    """Print the figures."""
    own, summaries, window = await play(turns, history_tokens, seed)
    print(f"{turns} turns, HISTORY_TOKENS={history_tokens}, prices of {MODEL}")
    rows: list[list[str]] = []
    for name, figures, extra in (
        ("fixed start, drop to half", own, summaries),
        ("sliding window", window, Figures()),
    ):
        cost = figures.cost_usd + extra.cost_usd
        rows.append(
            [
                name,
                f"{figures.sent + extra.sent:,}",
                f"{figures.unchanged / figures.sent:.0%}",
                f"{figures.cached / figures.sent:.0%}",
                f"{extra.requests}",
                f"${cost:.4f}",
            ]
        )
    print_table(["memory", "tokens sent", "unchanged beginning", "from the cache", "summaries", "cost"], rows)
    saved = 1 - (own.cost_usd + summaries.cost_usd) / window.cost_usd
    saved_input = 1 - _input_cost(own, summaries) / _input_cost(window)
    print(f"saved by the fixed start: {saved:.0%} of the cost, {saved_input:.0%} of the cost of what is sent")


def _input_cost(*figures: Figures) -> float:
    return sum(replace(each, output=0).cost_usd for each in figures)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=100)
    parser.add_argument("--history-tokens", type=int, default=8000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    asyncio.run(main(options.turns, options.history_tokens, options.seed))
