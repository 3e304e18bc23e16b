"""Finds the messages of an answer that Telegram accepted and a killed process could not record."""

from collections.abc import Awaitable, Callable, Iterator, Mapping

import structlog
from cachetools import LRUCache

from bot.telegram.delivery.delivery import Delivery
from core.errors import StorageError
from services.chat.reply import Reply
from services.chat.store.turns import TurnStore
from services.inbox.sent_messages import PendingSend, SendJournal

log = structlog.get_logger()

NEARBY = 12
"""Ids after the newest known one of the chat that are tried."""
NEARBY_SHARED = 36
"""The same after the newest known one over all private chats, which share one counter."""
KNOWN_CHATS = 10_000


class KnownMessages:
    """The newest message id that this process has seen, by chat and over all private chats."""

    def __init__(self) -> None:
        self._newest: LRUCache[int, int] = LRUCache(KNOWN_CHATS)
        self._newest_private = 0

    def observe(self, chat_id: int, message_id: int) -> None:
        """Notes a message of a user or of the bot."""
        self._newest[chat_id] = max(self._newest.get(chat_id, 0), message_id)
        if chat_id > 0:
            self._newest_private = max(self._newest_private, message_id)

    def floor(self, chat_id: int) -> PendingSend:
        """Returns a send in a chat that begins now."""
        return PendingSend(self._newest.get(chat_id, 0), self._newest_private if chat_id > 0 else 0)


class SendRecovery:
    """Notes the sends of answers, and resumes in the message of a send that a crash cut off.

    Telegram cannot be asked whether a message was sent. But removing the keyboard of a message succeeds, or says that
    nothing changes, only for a message of the bot in this chat, and ids grow. So the ids that a lost message may have
    are tried in turn, except those of recorded messages. This happens only after a crash, for sends that were under way
    in that moment, and in no chat with messages that are recorded nowhere, such as the cards of moderation.

    Args:
        journal: notes sends beyond the life of this process.
        turns: records which messages hold an answer.
        delivery: tries ids.
        has_cards: tells whether moderation posts in a group, or has done so.
    """

    def __init__(
        self, journal: SendJournal, turns: TurnStore, delivery: Delivery, has_cards: Callable[[int], Awaitable[bool]]
    ) -> None:
        self.has_cards = has_cards
        self.journal = journal
        self.turns = turns
        self.delivery = delivery
        self.known = KnownMessages()


class AnswerSends:
    """The sends of one answer in one chat."""

    def __init__(self, recovery: SendRecovery, chat_id: int, reply: Reply) -> None:
        self._journal = recovery.journal
        self._known = recovery.known
        self._delivery = recovery.delivery
        self._turns = recovery.turns
        self._has_cards = recovery.has_cards
        self._chat_id = chat_id
        self._reply = reply
        self._earlier: Mapping[int, PendingSend] | None = None
        self._begun: set[int] = set()

    async def begin(self, page: int) -> int | None:
        """Notes that a page is about to be sent; returns its message if an earlier attempt has sent it."""
        turn_id = self._reply.turn_id
        if turn_id is None:
            return None
        if page not in self._begun and (message_id := await self._recover(turn_id, page)) is not None:
            return message_id
        self._begun.add(page)
        self._journal.begin(turn_id, page, self._known.floor(self._chat_id))
        return None

    async def record(self, page: int, message_id: int) -> None:
        """Records at once which turn a message belongs to: Retry and a retried job need it."""
        self._known.observe(self._chat_id, message_id)
        turn_id = self._reply.turn_id
        if turn_id is None:
            return
        # Before anything that waits: the process may be killed at any moment.
        self._journal.accept(turn_id, page, message_id)
        try:
            await self._turns.note_answer(turn_id, [message_id])
        except StorageError as error:
            log.warning("answer.message_not_recorded", error=str(error))

    def close(self) -> None:
        """Forgets the sends, once the answer is delivered."""
        if self._reply.turn_id is not None:
            self._journal.close(self._reply.turn_id)

    async def _recover(self, turn_id: int, page: int) -> int | None:
        if not self._reply.is_resumed:
            return None
        if self._earlier is None:
            self._earlier = await self._journal.load(turn_id)
        send = self._earlier.get(page)
        if send is None:
            return None
        message_id = send.message_id or await self._find(send, self._earlier)
        log.info(
            "answer.message_recovered" if message_id else "answer.message_not_found", is_noted=bool(send.message_id)
        )
        return message_id

    async def _find(self, send: PendingSend, earlier: Mapping[int, PendingSend]) -> int | None:
        try:
            if self._chat_id < 0 and await self._has_cards(self._chat_id):
                return None
            recorded = await self._turns.recorded_messages(self._chat_id, min(send.floor, send.shared_floor))
        except StorageError as error:
            # A second message is better than one that replaces another answer.
            log.warning("answer.message_not_searched", error=str(error))
            return None
        taken = {*recorded, *self._reply.earlier_ids, *(each.message_id for each in earlier.values())}
        for message_id in _candidates(send):
            if message_id not in taken and await self._delivery.has_message(self._chat_id, message_id):
                return message_id
        return None


def _candidates(send: PendingSend) -> Iterator[int]:
    """Yields the ids that a message may have, the likeliest first."""
    nearby = range(send.floor + 1, send.floor + 1 + NEARBY) if send.floor else range(0)
    yield from nearby
    shared = range(send.shared_floor + 1, send.shared_floor + 1 + NEARBY_SHARED) if send.shared_floor else range(0)
    yield from (message_id for message_id in shared if message_id not in nearby)
