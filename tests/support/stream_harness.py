"""One streamed answer in one chat of the fake Bot API server."""

import asyncio
import itertools

from bot.telegram.answers.answer_messages import Keyboards, Place
from bot.telegram.answers.streamed_message import AnswerDisplay, StreamedAnswer
from bot.telegram.delivery.delivery import Delivery
from bot.telegram.markdown.pages import RenderThread, RenderThreadLimits
from core.i18n import Texts
from services.chat.reply import Reply, ReplyPhase
from services.preferences import StreamMode
from tests.support.clock import ManualClock
from tests.support.delivery_messages import PERSON, RETRY, STOP
from tests.support.fake_telegram.server import TelegramServer
from tests.support.fake_telegram.traffic import Traffic

text = Texts(strict=True).get
EMPTY, WAITING = text("empty-answer"), text("answer-waiting")
AT_ONCE = RenderThreadLimits(units=10**9, characters=10**9)
"""Nothing is rendered on the thread, which a manual clock would not wait for."""


class RecordedSends:
    """Records the message ids of new pages."""

    def __init__(self, recorded: list[int]) -> None:
        self._recorded = recorded

    async def begin(self, page: int) -> int | None:
        del page

    async def record(self, page: int, message_id: int) -> None:
        del page
        self._recorded.append(message_id)


class StreamHarness:
    """Streams a reply that the test writes, into a private chat by default."""

    def __init__(self, delivery: Delivery, clock: ManualClock, server: TelegramServer, traffic: Traffic) -> None:
        self.reply = Reply()
        self.clock = clock
        self.start = clock.time()
        self._delivery = delivery
        self._server = server
        self._traffic = traffic
        self.task: asyncio.Task[None] | None = None
        self.answer: StreamedAnswer | None = None
        self.chat_id = PERSON
        self.renderer = RenderThread(AT_ONCE)
        self.recorded: list[int] = []
        """The message ids that were recorded, in order."""

    def begin(self, mode: StreamMode = "edit", place: Place | None = None) -> None:
        place = place or Place(PERSON, is_group=False)
        self.chat_id = place.chat_id
        self.answer = StreamedAnswer(
            delivery=self._delivery, clock=self.clock, reply=self.reply, place=place, text=text,
            display=AnswerDisplay(mode, self.renderer),
            keyboards=Keyboards(lambda: STOP, lambda: RETRY), sends=RecordedSends(self.recorded),
        )  # fmt: skip
        self.task = asyncio.create_task(self.answer.show())

    async def pass_time(self, seconds: float) -> None:
        await self._traffic.pass_time(seconds)

    async def write_slowly(self, piece: str, times: int, pause_s: float = 1) -> None:
        """Writes a piece of text again and again, with a pause after each."""
        for _ in range(times):
            self.reply.write(piece)
            await self.pass_time(pause_s)

    async def end(self, phase: ReplyPhase = ReplyPhase.COMPLETE, *, within_s: float = 90, **lines: str) -> None:
        """Ends the reply and waits until everything is delivered."""
        assert self.task is not None
        self.reply.end(phase, **lines)
        await self._traffic.settle()
        for _ in range(int(within_s)):
            if self.task.done():
                break
            await self.pass_time(1)
        assert self.task.done(), "the answer is not delivered"
        self.task.result()

    async def close(self) -> None:
        if self.task is not None and not self.task.done():
            self.task.cancel()
            await asyncio.wait([self.task])

    @property
    def texts(self) -> list[str]:
        return self._server.chat(self.chat_id).texts()

    def times(self, method: str) -> list[float]:
        """Returns when a method was called, in seconds after the start."""
        return [call.at - self.start for call in self._server.calls_of(method, self.chat_id)]

    def calls(self, method: str) -> int:
        return len(self._server.calls_of(method, self.chat_id))


def gaps(times: list[float]) -> list[float]:
    """Returns the pauses between calls."""
    return [round(later - earlier, 3) for earlier, later in itertools.pairwise(times)]
