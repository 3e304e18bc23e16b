"""Many people who ask numbered questions, a provider that answers each by its number, and what came of it all.

Lost is a question without a whole answer. A second message with an answer is a duplicate, and the reason for it is
looked for in what the bot had noted when it died. A message that it had noted must never have a sibling; one that it
had not is the case that no program can know, since it died between Telegram's act and its own note.
"""

import asyncio
import random
import re
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from tests.support.bot_harness import STOP, told
from tests.support.fake_llm.server import Act, Exchange, LLMServer, answer
from tests.support.fake_telegram.chats import Message
from tests.support.fake_telegram.server import TelegramServer

FILLING = "It is long enough to be shown before it is done, which takes more than eighty characters of text. "
_QUESTION = re.compile(r"Question (\d+) of (\d+)\.")
_ANSWER = re.compile(r"Answer (\d+) to (\d+)\.")
Noted = Callable[[], set[tuple[int, int]]]
"""Chat and message ids of what the bot knows to have said."""


def question(number: int, person: int) -> str:
    return f"Question {number} of {person}."


def opening(number: int, person: int) -> str:
    """How an answer begins."""
    return f"Answer {number} to {person}."


def closing(number: int, person: int) -> str:
    """How it ends."""
    return f"The end of {number} to {person}."


class Why(StrEnum):
    """What a message that nobody goes on with is explained by."""

    CUT_OFF = "the connection was gone before Telegram's answer could be sent"
    NOT_NOTED = "the process died before it had noted Telegram's answer"
    UNEXPLAINED = "unexplained"


@dataclass
class LoadOutcome:
    """What came of all questions."""

    questions: int
    lost: list[str] = field(default_factory=list)
    """Without a whole answer."""
    disorder: list[str] = field(default_factory=list)
    """Asked, answered or remembered in another order than said."""
    duplicates: list[tuple[str, Why]] = field(default_factory=list)
    """Messages beside the answer's own."""
    odd: list[str] = field(default_factory=list)
    """Other things that the bot said."""

    @property
    def unexplained(self) -> list[str]:
        return [what for what, why in self.duplicates if why is Why.UNEXPLAINED]

    def because(self, why: Why) -> int:
        return sum(each is why for _, each in self.duplicates)


class SimulatedUsers:
    """People in private chats, each with a conversation of their own.

    Args:
        telegram: where they are.
        llm: who answers them.
        people: how many.
        pieces: how many pieces an answer has.
        pause_s: how long between two of them.
    """

    def __init__(
        self, telegram: TelegramServer, llm: LLMServer, *, people: int, pieces: int = 3, pause_s: float = 0.1
    ) -> None:
        self._telegram = telegram
        self._llm = llm
        self._asked: dict[int, list[Message]] = {person: [] for person in range(1001, 1001 + people)}
        self._pieces = pieces
        self.pause_s = pause_s
        self.deaths: list[float] = []
        """When processes were killed, on the clock of `time.time`."""
        self.before: Callable[[Exchange], Awaitable[None]] | None = None
        """What happens first when the provider is asked anything."""
        llm.default = Act(self._recite)

    @property
    def people(self) -> list[int]:
        return list(self._asked)

    @property
    def asked(self) -> int:
        return sum(map(len, self._asked.values()))

    def asks(self, person: int) -> int:
        """One of them asks their next question; its number."""
        number = len(self._asked[person]) + 1
        self._asked[person].append(self._telegram.user_says(question(number, person), person))
        return number

    @property
    def answered(self) -> int:
        """How many questions have their whole answer."""
        return sum(self.is_answered(number, person) for person, said in self._asked.items() for number in _upto(said))

    def is_answered(self, number: int, person: int) -> bool:
        return any(_is_whole(message, number, person) for message in self._telegram.chat(person).answers())

    async def all_answered(self, timeout_s: float) -> None:
        """Wait until there is nothing more to wait for; what is lost then, `outcome` says."""
        try:
            async with asyncio.timeout(timeout_s):
                while self.answered < self.asked:  # noqa: ASYNC110 - looked at in many places
                    await asyncio.sleep(0.05)
        except TimeoutError:
            return

    async def some_answered(self, more: int, *, timeout_s: float = 60) -> None:
        """Wait until so many more have their whole answer."""
        enough = self.answered + more
        async with asyncio.timeout(timeout_s):
            while self.answered < enough:  # noqa: ASYNC110 - as below
                await asyncio.sleep(0.02)

    def outcome(self, noted: set[tuple[int, int]]) -> LoadOutcome:
        """Judge.

        Args:
            noted: chat and message ids of what the bot knows to have said, from its database.
        """
        outcome = LoadOutcome(self.asked)
        told_of = self._heard()
        for person, said in self._asked.items():
            numbers = told_of[person]
            if numbers != sorted(numbers):
                outcome.disorder.append(f"the provider was asked by {person}: {numbers}")
            self._judge(person, len(said), noted, outcome)
        for request in self._llm.requests:
            outcome.disorder += _gaps(told(request))
        return outcome

    @property
    def asked_for(self) -> list[tuple[int, int]]:
        """Which answers the provider was asked for, as number and person; threads want names as well."""
        found = (_QUESTION.fullmatch(told(request)[-1][1]) for request in self._llm.requests)
        return [(int(match[1]), int(match[2])) for match in found if match]

    async def are_asked_for(self, count: int, *, timeout_s: float = 20) -> None:
        """Wait until the provider was asked for so many answers."""
        async with asyncio.timeout(timeout_s):
            while len(self.asked_for) < count:  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.01)

    def _heard(self) -> dict[int, list[int]]:
        heard: dict[int, list[int]] = defaultdict(list)
        for number, person in self.asked_for:
            heard[person].append(number)
        return heard

    def _judge(self, person: int, questions: int, noted: set[tuple[int, int]], outcome: LoadOutcome) -> None:
        messages = self._telegram.chat(person).answers()
        places: list[int] = []
        for number in range(1, questions + 1):
            mine = [message for message in messages if message.text.startswith(opening(number, person))]
            whole = [message for message in mine if _is_whole(message, number, person)]
            if not whole:
                outcome.lost.append(f"question {number} of {person}: {[message.text for message in mine]}")
                continue
            kept = next((message for message in whole if (person, message.id) in noted), whole[-1])
            places.append(kept.id)
            for message in mine:
                if message is not kept:
                    is_noted = (person, message.id) in noted
                    why = Why.UNEXPLAINED if is_noted else self._why(message)
                    before = [round(death - message.at, 3) for death in self.deaths if death > message.at][:1]
                    about = f"answer {number} to {person}, noted: {is_noted}, sent before a death by: {before} s"
                    outcome.duplicates.append((about, why))
        if places != sorted(places):
            outcome.disorder.append(f"the chat of {person} reads {places}")
        outcome.odd += [f"{message.text!r} to {person}" for message in messages if not _ANSWER.match(message.text)]

    def _why(self, message: Message) -> Why:
        for call in self._telegram.calls_of("sendMessage", message.chat_id):
            if call.result is None or call.result["message_id"] != message.id:
                continue
            if call.is_cut_off:
                return Why.CUT_OFF
            if any(0 <= death - call.at < NOTING_S for death in self.deaths):
                return Why.NOT_NOTED
        return Why.UNEXPLAINED

    async def _recite(self, exchange: Exchange) -> None:
        if self.before is not None:
            await self.before(exchange)
        match = _QUESTION.fullmatch(told(exchange.request)[-1][1])
        if match is None:
            await answer("I was asked nothing that has a number.").play(exchange)
            return
        number, person = int(match[1]), int(match[2])
        pieces = [f"{opening(number, person)} {FILLING}", *["And so on. "] * (self._pieces - 2)]
        await answer(pieces=[*pieces, closing(number, person)], pause_s=self.pause_s).play(exchange)


async def ask_in_waves(crowd: SimulatedUsers, questions: int, chance: random.Random) -> None:
    """Everybody asks so many questions, some at once and some after a while."""
    turns = [person for person in crowd.people for _ in range(questions)]
    chance.shuffle(turns)
    for number, person in enumerate(turns):
        crowd.asks(person)
        if number % 15 == 14:
            await asyncio.sleep(chance.uniform(0, 0.5))


NOTING_S = 2.0
"""So long before a death a message may have been sent and not noted; on a busy machine a commit takes its time."""


def _upto(said: Sequence[Message]) -> range:
    return range(1, len(said) + 1)


def _is_whole(message: Message, number: int, person: int) -> bool:
    """Whether a message holds an answer from its beginning to its end, and is not being changed any more."""
    text = message.text
    return text.startswith(opening(number, person)) and closing(number, person) in text and STOP not in message.labels


def _gaps(heard: Sequence[tuple[str, str]]) -> list[str]:
    """What is wrong with a history: it must hold every earlier question, in order, each with its answer."""
    *history, (_, last) = heard
    match = _QUESTION.fullmatch(last)
    if match is None:
        return []
    number, person = int(match[1]), int(match[2])
    questions = [int(each[1]) for role, text in history if role == "user" and (each := _QUESTION.search(text))]
    answers = [int(each[1]) for role, text in history if role == "assistant" and (each := _ANSWER.search(text))]
    expected = list(range(1, number))
    if questions == answers == expected:
        return []
    return [f"question {number} of {person} came after questions {questions} and answers {answers}"]
