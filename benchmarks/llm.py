"""A fake LLM server in its own process, for benchmarks: `python -m benchmarks.llm --port 8801 --pieces 200`.

SIGUSR1 toggles holding answers in their middle. Both SIGUSR1 and SIGUSR2 print the number of answers that are held.
"""

import argparse
import asyncio
import signal

from tests.support.fake_llm.server import BEHAVIOURS, Answer, Behaviour, Exchange, LLMServer

PIECES = (
    "Well,", " there", " are", " **two**", " ways", " to", " see", " it:", " the", " _long_", " one,", " which",
    " explains", " every", " step,", " and", " the", " `short`", " one.", "\n",
)  # fmt: skip
"""About a token each. Repeated, they make an answer of ordinary Markdown."""


def text_of(pieces: int) -> str:
    """Return an answer of that many pieces."""
    return "".join(PIECES[index % len(PIECES)] for index in range(pieces))


class SteadyAnswers:
    """Answers every request with the same pieces at a steady pace.

    Args:
        pieces: number of pieces.
        pause_s: pause before each piece, in seconds.
    """

    def __init__(self, pieces: int, pause_s: float) -> None:
        self.held = 0
        """The number of answers that are held."""
        self._pieces = [PIECES[index % len(PIECES)] for index in range(pieces)]
        self._pause_s = pause_s
        self._gate = asyncio.Event()
        self._gate.set()

    def toggle(self) -> None:
        """Start holding answers in their middle, or release them all."""
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


class Unrecorded:
    """Answers without recording requests: a benchmark makes thousands.

    Args:
        server: its records are dropped.
        then: the behaviour of each answer.
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
    steady = SteadyAnswers(options.pieces, options.pause)

    def toggle() -> None:
        steady.toggle()
        print(steady.held, flush=True)

    loop.add_signal_handler(signal.SIGUSR1, toggle)
    loop.add_signal_handler(signal.SIGUSR2, lambda: print(steady.held, flush=True))
    server.default = Unrecorded(server, BEHAVIOURS[options.behaviour]() if options.behaviour else steady)
    async with server:
        await stopped.wait()


if __name__ == "__main__":
    asyncio.run(_main())
