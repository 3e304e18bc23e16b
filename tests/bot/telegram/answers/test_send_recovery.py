"""Messages that a killed process sent and could not record are found and continued, not sent again."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from bot.telegram.answers.answer_messages import AnswerSends, SendRecovery
from bot.telegram.delivery.delivery import Delivery
from bot.telegram.markdown.render import Rendered
from core.clock import SystemClock
from core.db.database import Database
from core.db.job_tables import SentMessageRow
from services.chat.reply import Reply
from services.chat.store.turns import TurnStore
from services.inbox.sent_messages import FileSendJournal, PendingSend
from tests.support.fake_telegram.server import TelegramServer

pytestmark = pytest.mark.integration

PERSON, OTHER, TURN = 7, 8, 1
GROUP = -100


class Attempts:
    """Attempts at one answer, each as a process of its own would make it."""

    def __init__(self, path: Path, delivery: Delivery, turns: TurnStore) -> None:
        self._path = path
        self._delivery = delivery
        self._turns = turns
        self._journals: list[FileSendJournal] = []
        self.with_cards: set[int] = set()

    def begin(self, *, is_resumed: bool, newest: Mapping[int, int] | None = None, chat_id: int = PERSON) -> AnswerSends:
        """Start an attempt in a process that has seen these messages."""
        journal = FileSendJournal(self._path)
        self._journals.append(journal)
        recovery = SendRecovery(journal, self._turns, self._delivery, self._has_cards)
        for seen_in, message_id in (newest or {}).items():
            recovery.known.observe(seen_in, message_id)
        reply = Reply()
        reply.turn_id, reply.is_resumed = TURN, is_resumed
        return AnswerSends(recovery, chat_id, reply)

    async def _has_cards(self, chat_id: int) -> bool:
        return chat_id in self.with_cards

    def close(self) -> None:
        for journal in self._journals:
            journal.shut()


@pytest.fixture
def attempts(tmp_path: Path, delivery: Delivery, file: Database) -> Iterator[Attempts]:
    attempts = Attempts(tmp_path / "sends.journal", delivery, TurnStore(file, SystemClock()))
    yield attempts
    attempts.close()


async def post(delivery: Delivery, chat_id: int, text: str) -> int:
    sent = (await delivery.post(chat_id, Rendered(text))).sent
    assert sent is not None
    return sent.message_id


async def test_first_attempt_sends(attempts: Attempts, server: TelegramServer) -> None:
    assert await attempts.begin(is_resumed=False).begin(0) is None
    assert server.calls == []


async def test_noted_message_is_continued(attempts: Attempts, server: TelegramServer) -> None:
    """Telegram's response was read, and the process died before the database had the id."""
    first = attempts.begin(is_resumed=False)
    await first.begin(0)
    await first.record(0, 77)
    assert await attempts.begin(is_resumed=True).begin(0) == 77
    assert server.calls == [], "nothing has to be looked for"


async def test_message_without_a_response_is_found(
    attempts: Attempts, server: TelegramServer, delivery: Delivery
) -> None:
    """The process died while the response was under way; other chats went on meanwhile."""
    question = server.user_says("Hello", PERSON)
    await attempts.begin(is_resumed=False, newest={PERSON: question.id}).begin(0)
    for number in range(3):
        server.user_says(f"Another {number}", OTHER)
        await post(delivery, OTHER, "An answer to another person.")
    lost = await post(delivery, PERSON, "A beginning")
    server.user_says("And one more", PERSON)
    assert await attempts.begin(is_resumed=True).begin(0) == lost
    assert len(server.chat(PERSON).texts()) == 1


async def test_message_is_found_in_a_busy_bot(attempts: Attempts, server: TelegramServer, delivery: Delivery) -> None:
    """Long after the question, when many other messages had been sent and received."""
    question = server.user_says("Hello", PERSON)
    for _ in range(60):
        newest = await post(delivery, OTHER, "An answer to another person.")
    await attempts.begin(is_resumed=False, newest={PERSON: question.id, OTHER: newest}).begin(0)
    await post(delivery, OTHER, "One more.")
    lost = await post(delivery, PERSON, "A beginning")
    assert await attempts.begin(is_resumed=True).begin(0) == lost


async def test_message_that_was_never_sent_is_sent(attempts: Attempts, server: TelegramServer) -> None:
    question = server.user_says("Hello", PERSON)
    await attempts.begin(is_resumed=False, newest={PERSON: question.id}).begin(0)
    second = attempts.begin(is_resumed=True)
    assert await second.begin(0) is None
    tries = len(server.calls_of("editMessageReplyMarkup"))
    assert tries > 0
    assert await second.begin(0) is None, "a progress update that was dropped is tried again"
    assert len(server.calls_of("editMessageReplyMarkup")) == tries, "and looks for nothing"


async def test_recorded_messages_are_left_alone(attempts: Attempts, server: TelegramServer, delivery: Delivery) -> None:
    """The first page is recorded; only the second one was under way."""
    question = server.user_says("Hello", PERSON)
    first = attempts.begin(is_resumed=False, newest={PERSON: question.id})
    await first.begin(0)
    page = await post(delivery, PERSON, "The first page")
    await first.record(0, page)
    await first.begin(1)
    lost = await post(delivery, PERSON, "The second page")
    assert await attempts.begin(is_resumed=True).begin(1) == lost


async def test_answer_to_an_earlier_question_is_left_alone(
    attempts: Attempts, server: TelegramServer, delivery: Delivery, file: Database
) -> None:
    """It is newer than the question that waited behind it, and the process has not seen it."""
    question = server.user_says("The second question", PERSON)
    before = await post(delivery, PERSON, "The answer to the first question")
    async with file.session() as session:
        row = {"job_id": "1", "chat_id": PERSON, "place": 0, "message_id": before, "created_at": SystemClock().now()}
        await session.execute(file.insert(SentMessageRow).values(row))
    await attempts.begin(is_resumed=False, newest={PERSON: question.id}).begin(0)
    assert await attempts.begin(is_resumed=True).begin(0) is None
    await attempts.begin(is_resumed=False, newest={PERSON: question.id}).begin(0)
    lost = await post(delivery, PERSON, "A beginning")
    assert await attempts.begin(is_resumed=True).begin(0) == lost


async def test_message_in_a_group_is_found(attempts: Attempts, server: TelegramServer, delivery: Delivery) -> None:
    """A group counts its own messages; a topic's are among them."""
    question = server.user_says("Hello", GROUP, user_id=PERSON)
    await attempts.begin(is_resumed=False, newest={GROUP: question.id}, chat_id=GROUP).begin(0)
    server.user_says("Somebody else talks", GROUP, user_id=OTHER)
    lost = await post(delivery, GROUP, "A beginning")
    assert await attempts.begin(is_resumed=True, chat_id=GROUP).begin(0) == lost
    assert len(server.chat(GROUP).texts()) == 1


async def test_group_with_cards_is_not_searched(attempts: Attempts, server: TelegramServer) -> None:
    """Cards of moderation are recorded nowhere, and must not become answers."""
    attempts.with_cards.add(GROUP)
    await attempts.begin(is_resumed=False, newest={GROUP: 5}, chat_id=GROUP).begin(0)
    assert await attempts.begin(is_resumed=True, chat_id=GROUP).begin(0) is None
    assert server.calls == []


async def test_delivered_answer_is_forgotten(attempts: Attempts, server: TelegramServer) -> None:
    first = attempts.begin(is_resumed=False, newest={PERSON: 5})
    await first.begin(0)
    await first.record(0, 77)
    first.close()
    assert await attempts.begin(is_resumed=True).begin(0) is None
    assert server.calls == []


def test_floor_of_a_group_ignores_private_chats(attempts: Attempts) -> None:
    sends = attempts.begin(is_resumed=False, newest={PERSON: 500, -100: 3})
    assert sends._known.floor(-100) == PendingSend(3, 0)
    assert sends._known.floor(PERSON) == PendingSend(500, 500)
