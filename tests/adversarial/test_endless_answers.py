"""Twenty answers without end at once: memory stays bounded, and others are answered meanwhile."""

import asyncio
import json
import zlib
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from tests.adversarial.attack import ATTACKER, Attack
from tests.support.bot_harness import told
from tests.support.fake_llm.behaviours import Act
from tests.support.fake_llm.exchange import Exchange
from tests.support.fake_llm.server import LLMServer
from tests.support.fake_llm.wire import Wire
from tests.support.processes.fork_server import ForkServer

pytestmark = pytest.mark.timeout(240)

AT_ONCE = 20
BOMB_BYTES = 200_000_000
"""Bytes of an answer, after decompression."""
PIECE = "\N{PERFORMING ARTS}" * 2500
"""Text that takes four bytes a character, in the process too."""
MOST_KIB = 450 * 1024


def compress(opening: bytes, event: bytes) -> Iterator[bytes]:
    """Yields 200 MB of events in 200 kB of gzip."""
    packer = zlib.compressobj(1, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    yield packer.compress(opening)
    for _ in range(BOMB_BYTES // len(event)):
        if piece := packer.compress(event):
            yield piece
    yield packer.flush()


async def compressed(exchange: Exchange) -> None:
    await exchange.head(content_type="text/event-stream", headers={"content-encoding": "gzip"})
    for piece in compress(exchange.wire.opening(), exchange.wire.text("x" * 1_000_000)):
        await exchange.chunk(piece)
    await exchange.end()


async def one_line(exchange: Exchange) -> None:
    """Sends an event whose line does not end."""
    await exchange.start_stream()
    await exchange.chunk(exchange.wire.opening() + b"data: ")
    for _ in range(BOMB_BYTES // len(PIECE)):
        await exchange.chunk(PIECE.encode())


def without_end(encode: Callable[[Wire], bytes]) -> Callable[[Exchange], Awaitable[None]]:
    """Returns a behaviour that sends one event for ever."""

    async def play(exchange: Exchange) -> None:
        await exchange.start_stream()
        await exchange.chunk(exchange.wire.opening())
        event = encode(exchange.wire)
        for _ in range(BOMB_BYTES // len(PIECE)):
            await exchange.chunk(event)

    return play


KINDS = {
    "compressed": compressed,
    "line": one_line,
    "text": without_end(lambda wire: wire.text(PIECE)),
    "thinking": without_end(lambda wire: wire.thinking(PIECE)),
    "arguments": without_end(lambda wire: wire.tool_call("current_time", PIECE)),
}


class EndlessProvider:
    """Answers the names of the kinds once as many as attack have asked, so that all are in flight together."""

    def __init__(self, llm: LLMServer, asked: int) -> None:
        self._everyone = asyncio.Barrier(asked)
        self.are_all_asked = asyncio.Event()
        self._usual = llm.default
        llm.default = Act(self._play)

    async def _play(self, exchange: Exchange) -> None:
        kind = KINDS.get(told(exchange.request)[-1][1].partition(" ")[0])
        if kind is None:
            await self._usual.play(exchange)
            return
        await exchange.wait(self._everyone.wait())
        self.are_all_asked.set()
        await kind(exchange)


async def test_endless_answers_leave_memory_and_others_alone(fork_server: ForkServer, tmp_path: Path) -> None:
    """Four of each kind: every attacker gets an end, bystanders are answered, and the peak of memory is bounded."""
    async with (
        LLMServer(models=("m",)) as endless,
        Attack(
            fork_server,
            tmp_path,
            AVAILABLE_PROVIDERS=json.dumps({"endless": ["m"], "a": ["m"]}),
            ENDLESS_BASE_URL=endless.url,
            ENDLESS_API_KEY="sk-loopback-9876543210",
        ) as attack,
    ):
        endless.default = attack.fleet.llm.default
        await attack.start()
        provider = EndlessProvider(endless, AT_ONCE)
        names = [f"{kind} {number}" for number in range(AT_ONCE // len(KINDS)) for kind in KINDS]
        for number, name in enumerate(names):
            attack.telegram.user_says(name, ATTACKER + number)
        await asyncio.wait_for(provider.are_all_asked.wait(), 60)
        await attack.watch(10)

        def is_answered(person: int) -> bool:
            return any("Retry" in message.labels for message in attack.telegram.chat(person).answers())

        await attack.telegram.wait_for(lambda: all(is_answered(ATTACKER + number) for number in range(AT_ONCE)), 60)
        assert attack.daemon.peak_memory_kib < MOST_KIB, f"{attack.daemon.peak_memory_kib} KiB"
        attack.assert_healthy()
