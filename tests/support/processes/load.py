"""Simulated users who ask numbered questions, a provider that answers each by its number, and the verdict on both.

A question without a complete answer is lost. A second message with an answer is a duplicate, and its cause is derived
from the messages the bot had recorded when it was killed. A recorded message must never be duplicated. An unrecorded
one may be: the process died between Telegram's acceptance and its own record, which no program can distinguish.
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


def question(number: int, person: int) -> str:
    return f"Question {number} of {person}."


def opening(number: int, person: int) -> str:
    """Return the first words of an answer."""
    return f"Answer {number} to {person}."


def closing(number: int, person: int) -> str:
    """Return the last words of an answer."""
    return f"The end of {number} to {person}."


class DuplicateCause(StrEnum):
    """Cause of a duplicate message."""

    CUT_OFF = "the connection broke before Telegram's response was sent"
    NOT_RECORDED = "the process died before it recorded Telegram's response"
    UNEXPLAINED = "unexplained"


@dataclass
class LoadOutcome:
    """Result of a run."""

    questions: int
    lost: list[str] = field(default_factory=list)
    """Questions without a complete answer."""
    disorder: list[str] = field(default_factory=list)
    """Questions asked, answered or remembered out of order."""
    duplicates: list[tuple[str, DuplicateCause]] = field(default_factory=list)
    """Extra messages of an answer."""
    unexpected: list[str] = field(default_factory=list)
    """Messages that are no answers."""

    @property
    def unexplained(self) -> list[str]:
        return [message for message, cause in self.duplicates if cause is DuplicateCause.UNEXPLAINED]

    def count_by_cause(self, cause: DuplicateCause) -> int:
        return sum(each is cause for _, each in self.duplicates)


class SimulatedUsers:
    """Users in private chats.

    Args:
        telegram: server of their chats.
        llm: provider that answers them.
        people: number of users.
        pieces: pieces per answer.
        pause_s: pause between two pieces.
    """

    def __init__(
        self, telegram: TelegramServer, llm: LLMServer, *, people: int, pieces: int = 3, pause_s: float = 0.1
    ) -> None:
        self._telegram = telegram
        self._llm = llm
        self._asked: dict[int, list[Message]] = {person: [] for person in range(1001, 1001 + people)}
        self._pieces = pieces
        self.pause_s = pause_s
        self.killed_at: list[float] = []
        """Times of the kills, as of `time.time`."""
        self.on_request: Callable[[Exchange], Awaitable[None]] | None = None
        """Called before the provider answers a request."""
        llm.default = Act(self._answer_question)

    @property
    def people(self) -> list[int]:
        return list(self._asked)

    @property
    def asked(self) -> int:
        return sum(map(len, self._asked.values()))

    def ask(self, person: int) -> int:
        """Send the next question of a user; return its number."""
        number = len(self._asked[person]) + 1
        self._asked[person].append(self._telegram.user_says(question(number, person), person))
        return number

    @property
    def answered(self) -> int:
        """Number of questions with a complete answer."""
        return sum(self.is_answered(number, person) for person, said in self._asked.items() for number in _upto(said))

    def is_answered(self, number: int, person: int) -> bool:
        return any(_is_complete(message, number, person) for message in self._telegram.chat(person).answers())

    async def wait_until_answered(self, timeout_s: float) -> None:
        """Wait until all questions are answered or the time is up; `outcome` reports the lost ones."""
        try:
            async with asyncio.timeout(timeout_s):
                while self.answered < self.asked:
                    await asyncio.sleep(0.05)
        except TimeoutError:
            return

    async def wait_for_answers(self, more: int, *, timeout_s: float = 60) -> None:
        """Wait for this many more complete answers."""
        enough = self.answered + more
        async with asyncio.timeout(timeout_s):
            while self.answered < enough:
                await asyncio.sleep(0.02)

    def outcome(self, recorded: set[tuple[int, int]]) -> LoadOutcome:
        """Return the result.

        Args:
            recorded: (chat id, message id) of the answers recorded in the bot's database.
        """
        outcome = LoadOutcome(self.asked)
        requests = self._requests_by_person()
        for person, said in self._asked.items():
            numbers = requests[person]
            if numbers != sorted(numbers):
                outcome.disorder.append(f"the provider was asked for {person}: {numbers}")
            self._judge(person, len(said), recorded, outcome)
        for request in self._llm.requests:
            outcome.disorder += _gaps(told(request))
        return outcome

    @property
    def requested(self) -> list[tuple[int, int]]:
        """(number, user) of each requested answer; requests for thread names are left out."""
        found = (_QUESTION.fullmatch(told(request)[-1][1]) for request in self._llm.requests)
        return [(int(match[1]), int(match[2])) for match in found if match]

    async def wait_for_requests(self, count: int, *, timeout_s: float = 20) -> None:
        """Wait until the provider was asked for this many answers."""
        async with asyncio.timeout(timeout_s):
            while len(self.requested) < count:
                await asyncio.sleep(0.01)

    def _requests_by_person(self) -> dict[int, list[int]]:
        requests: dict[int, list[int]] = defaultdict(list)
        for number, person in self.requested:
            requests[person].append(number)
        return requests

    def _judge(self, person: int, questions: int, recorded: set[tuple[int, int]], outcome: LoadOutcome) -> None:
        messages = self._telegram.chat(person).answers()
        places: list[int] = []
        for number in range(1, questions + 1):
            own = [message for message in messages if message.text.startswith(opening(number, person))]
            complete = [message for message in own if _is_complete(message, number, person)]
            if not complete:
                outcome.lost.append(f"question {number} of {person}: {[message.text for message in own]}")
                continue
            kept = next((message for message in complete if (person, message.id) in recorded), complete[-1])
            places.append(kept.id)
            for message in own:
                if message is not kept:
                    is_recorded = (person, message.id) in recorded
                    cause = DuplicateCause.UNEXPLAINED if is_recorded else self._explain(message)
                    before = [round(death - message.at, 3) for death in self.killed_at if death > message.at][:1]
                    about = f"answer {number} to {person}, recorded: {is_recorded}, sent before a death by: {before} s"
                    outcome.duplicates.append((about, cause))
        if places != sorted(places):
            outcome.disorder.append(f"the chat of {person} reads {places}")
        outcome.unexpected += [
            f"{message.text!r} to {person}" for message in messages if not _ANSWER.match(message.text)
        ]

    def _explain(self, message: Message) -> DuplicateCause:
        for call in self._telegram.calls_of("sendMessage", message.chat_id):
            if call.result is None or call.result["message_id"] != message.id:
                continue
            if call.is_cut_off:
                return DuplicateCause.CUT_OFF
            if any(0 <= death - call.at < RECORDING_S for death in self.killed_at):
                return DuplicateCause.NOT_RECORDED
        return DuplicateCause.UNEXPLAINED

    async def _answer_question(self, exchange: Exchange) -> None:
        if self.on_request is not None:
            await self.on_request(exchange)
        match = _QUESTION.fullmatch(told(exchange.request)[-1][1])
        if match is None:
            await answer("No numbered question.").play(exchange)
            return
        number, person = int(match[1]), int(match[2])
        pieces = [f"{opening(number, person)} {FILLING}", *["And so on. "] * (self._pieces - 2)]
        await answer(pieces=[*pieces, closing(number, person)], pause_s=self.pause_s).play(exchange)


async def ask_in_waves(users: SimulatedUsers, questions: int, chance: random.Random) -> None:
    """Let every user ask this many questions, in random order and with random pauses."""
    turns = [person for person in users.people for _ in range(questions)]
    chance.shuffle(turns)
    for number, person in enumerate(turns):
        users.ask(person)
        if number % 15 == 14:
            await asyncio.sleep(chance.uniform(0, 0.5))


RECORDING_S = 2.0
"""Longest time between a send and its record; a commit takes a while on a busy machine."""


def _upto(said: Sequence[Message]) -> range:
    return range(1, len(said) + 1)


def _is_complete(message: Message, number: int, person: int) -> bool:
    """Returns whether a message holds a complete answer that is not edited any more."""
    text = message.text
    return text.startswith(opening(number, person)) and closing(number, person) in text and STOP not in message.labels


def _gaps(conversation: Sequence[tuple[str, str]]) -> list[str]:
    """Return the errors of a history, which must hold every earlier question with its answer, in order."""
    *history, (_, last) = conversation
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
