"""An LLM server for benchmarks, a process of its own: `python -m benchmarks.llm --port 8801 --pieces 200`.

SIGUSR1 makes it hold its answers in their middle and let them go again, SIGUSR2 makes it say how many it holds; both
are answered by a line with that number.
"""

import argparse
import asyncio
import signal

from tests.support.fake_llm.server import BEHAVIOURS, Answer, Behaviour, Exchange, LLMServer

PIECES = (
    "Well,", " there", " are", " **two**", " ways", " to", " see", " it:", " the", " _long_", " one,", " which",
    " explains", " every", " step,", " and", " the", " `short`", " one.", "\n",
)  # fmt: skip
"""About a token each: said again and again, they make an answer of ordinary Markdown."""


def text_of(pieces: int) -> str:
    """An answer of so many pieces."""
    return "".join(PIECES[index % len(PIECES)] for index in range(pieces))


class Steady:
    """Answers every request alike, piece by piece at a steady pace.

    Args:
        pieces: how many.
        pause_s: between two of them.
    """

    def __init__(self, pieces: int, pause_s: float) -> None:
        self.held = 0
        """How many answers wait in their middle."""
        self._pieces = [PIECES[index % len(PIECES)] for index in range(pieces)]
        self._pause_s = pause_s
        self._gate = asyncio.Event()
        self._gate.set()

    def toggle(self) -> None:
        """Hold answers in their middle from now on, or let them all go."""
        if self._gate.is_set():
            self._gate.clear()
        else:
            self._gate.set()

    async def play(self, exchange: Exchange) -> None:
        """Answer one request."""
        if not exchange.request.streamed:
            await Answer(tuple(self._pieces)).play(exchange)
            return
        wire = exchange.wire
        await exchange.start_stream()
        await exchange.chunk(wire.opening())
        for number, piece in enumerate(self._pieces):
            if self._pause_s:
                await asyncio.sleep(self._pause_s)
            if number == len(self._pieces) // 2:
                self.held += 1
                await self._gate.wait()
                self.held -= 1
            await exchange.chunk(wire.text(piece))
        await exchange.chunk(wire.finish("stop", usage=True))
        await exchange.chunk(wire.done())
        await exchange.end()


class Forgetful:
    """Answers, and keeps no record of it: a benchmark asks thousands of times.

    Args:
        server: whose records are dropped.
        then: the answer.
    """

    def __init__(self, server: LLMServer, then: Behaviour) -> None:
        self._server = server
        self._then = then

    async def play(self, exchange: Exchange) -> None:
        """Answer one request."""
        self._server.requests.clear()
        await self._then.play(exchange)


async def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--behaviour", choices=sorted(BEHAVIOURS))
    parser.add_argument("--pieces", type=int, default=8)
    parser.add_argument("--pause", type=float, default=0.0, help="seconds between two pieces")
    options = parser.parse_args()
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    server = LLMServer(models=["m"], port=options.port)
    steady = Steady(options.pieces, options.pause)

    def toggle() -> None:
        steady.toggle()
        print(steady.held, flush=True)

    loop.add_signal_handler(signal.SIGUSR1, toggle)
    loop.add_signal_handler(signal.SIGUSR2, lambda: print(steady.held, flush=True))
    server.default = Forgetful(server, BEHAVIOURS[options.behaviour]() if options.behaviour else steady)
    async with server:
        await stopped.wait()


if __name__ == "__main__":
    asyncio.run(_main())
