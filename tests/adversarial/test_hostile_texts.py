"""While one person gets an answer that is made to cost, another is answered promptly."""

import asyncio
import time
from pathlib import Path

import pytest

from bot.telegram.answers.streamed_message import MOST_MESSAGES
from tests.support.bot_harness import told
from tests.support.clock import until
from tests.support.fake_llm.behaviours import Act, answer
from tests.support.fake_llm.exchange import Exchange
from tests.support.processes.fleet import Fleet
from tests.support.processes.fork_server import ForkServer

ATTACKER, BYSTANDER = 7, 8
PROMPT_S = 3.0
TEXTS = {
    "math": "$$\n" * 5000,
    "dollars": "$" * 30_000,
    "fences": "```\n" * 8000,
    "empty-links": "[](x)" * 4000,
    "long": "A sentence of an answer that does not end. " * 20_000,
    "brackets": "[" * 10_000 + "](x)" * 2000,
    "quotes": "> " * 8000 + "deep",
    "lists": "- " * 8000,
    "emphasis": "*a **b " * 4000,
    "table": "|a" * 1000 + "\n" + "|-" * 1000 + "\n" + "a\n" * 4000,
    "formula": "$" + "\\underline" * 60 + "x$ " + "\\[" * 5000,
    "combining": "e" + "\u0301" * 20_000,
    "one line": "x" * 500_000,
}


async def ask(fleet: Fleet, person: int, text: str, *, within_s: float) -> float:
    """Asks in a private chat, and returns how long the final answer took."""
    known = {message.id for message in fleet.telegram.chat(person).answers()}
    began = time.monotonic()
    fleet.telegram.user_says(text, person)

    def is_answered() -> bool:
        messages = fleet.telegram.chat(person).answers()
        return any("Retry" in message.labels and message.id not in known for message in messages)

    await until(is_answered, within_s)
    return time.monotonic() - began


@pytest.mark.timeout(300)
@pytest.mark.parametrize("mode", ["edit", "off"])
async def test_others_are_answered_while_hostile_texts_are_rendered(
    fork_server: ForkServer, tmp_path: Path, mode: str
) -> None:
    """Each text arrives in four messages or in one and a file, and the bystander waits less than 3 s each time."""

    async def play(exchange: Exchange) -> None:
        said = told(exchange.request)[-1][1]
        text = TEXTS.get(said, "It is four.")
        size = max(1, len(text) // 40)
        pieces = [text[start : start + size] for start in range(0, len(text), size)]
        # Without streamed messages everything is rendered at the end.
        await answer(pieces=pieces, pause_s=0.03 if mode == "edit" else 0).play(exchange)

    # Both are exempt from the limits of a person, which would slow the attack down.
    async with Fleet(fork_server, tmp_path, STREAM_MODE=mode, ADMIN_IDS=f"{ATTACKER},{BYSTANDER}") as fleet:
        fleet.llm.default = Act(play)
        await fleet.start()
        await ask(fleet, BYSTANDER, "Two and two?", within_s=20)
        slowest = 0.0
        for name in TEXTS:
            attack = asyncio.create_task(ask(fleet, ATTACKER, name, within_s=60))
            while not attack.done():
                slowest = max(slowest, await ask(fleet, BYSTANDER, "Two and two?", within_s=20))
            await attack
            # The pages that a file replaces are deleted once the file is there.
            await until(lambda: len(fleet.telegram.chat(ATTACKER).answers()) <= MOST_MESSAGES, 5)
            for message in fleet.telegram.chat(ATTACKER).answers():
                message.deleted = True
        assert slowest < PROMPT_S
