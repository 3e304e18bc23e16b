"""The messages of one answer in one chat: a page in each, or the first page and a file with all of it.

A process may be killed after Telegram accepted a message and before it is recorded: its sends are noted, and found.
"""

from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from dataclasses import dataclass

import structlog
from aiogram.types import InlineKeyboardMarkup
from cachetools import LRUCache

from bot.telegram.delivery.delivery import Delivery
from bot.telegram.delivery.outgoing import OutgoingFile, SendOutcome, SendResult, Sent
from bot.telegram.markdown.render import Rendered
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
FILE_NAME = "answer.txt"
FILE_PAGE = -1
"""Number of the file among the pages of an answer."""


@dataclass(frozen=True, slots=True)
class Place:
    """The chat, topic and message that an answer belongs to."""

    chat_id: int
    is_group: bool
    topic_id: int | None = None
    reply_to: int | None = None


@dataclass(frozen=True, slots=True)
class Keyboards:
    """Keyboards under the last page: while the answer grows, and at its end. Each is built where it is shown.

    Args:
        picture: the keyboard under a picture of the answer, by its number.
    """

    live: Callable[[], InlineKeyboardMarkup | None]
    final: Callable[[], InlineKeyboardMarkup | None]
    picture: Callable[[int], InlineKeyboardMarkup | None] = lambda _: None


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


@dataclass(slots=True)
class _PageMessage:
    """A message of the answer as currently displayed."""

    sent: Sent
    rendered: Rendered
    markup: InlineKeyboardMarkup | None


class AnswerMessages:
    """Sends, edits and deletes the messages of an answer, those of an earlier attempt included.

    Args:
        sends: told about each new message, before and after it is sent.
    """

    def __init__(self, delivery: Delivery, reply: Reply, place: Place, sends: AnswerSends | None) -> None:
        self._delivery = delivery
        self._reply = reply
        self._place = place
        self._sends = sends
        self._messages: dict[int, _PageMessage] = {}
        self._kept = set[int]()
        self.is_unreachable = False
        """True if the chat accepts no message any more."""

    def has(self, index: int) -> bool:
        """Returns whether a page is displayed."""
        return index in self._messages

    async def show_page(
        self, index: int, rendered: Rendered, markup: InlineKeyboardMarkup | None, *, final: bool
    ) -> SendResult:
        """Shows a page in its message, or in a new one if it has none yet."""
        shown = self._messages.get(index) or self._earlier_message(index)
        if self.is_unreachable or rendered.blank or (shown and (shown.rendered, shown.markup) == (rendered, markup)):
            return SendResult.SHOWN
        place, is_new = self._place, shown is None
        if shown is None:
            shown = await self._recover_message(index)
        if shown is None:
            reply_to = place.reply_to if index == 0 else None
            outcome = await self._delivery.post(
                place.chat_id, rendered, topic_id=place.topic_id, reply_to=reply_to, markup=markup, final=final
            )
        else:
            chat_id, message_id = shown.sent.chat_id, shown.sent.message_id
            outcome = await self._delivery.edit(
                chat_id, message_id, rendered, topic_id=place.topic_id, markup=markup, final=final
            )
        if outcome.sent is not None:
            self._messages[index] = _PageMessage(outcome.sent, rendered, markup)
            if is_new or shown is None or shown.sent != outcome.sent:
                await self._record(index, outcome)
        self.is_unreachable = outcome.result is SendResult.UNREACHABLE
        return outcome.result

    async def _record(self, index: int, outcome: SendOutcome) -> None:
        if self._sends is not None and outcome.sent is not None:
            await self._sends.record(index, outcome.sent.message_id)

    async def _recover_message(self, index: int) -> _PageMessage | None:
        """Returns the message of this page that a killed process had sent and could not record."""
        message_id = await self._sends.begin(index) if self._sends is not None else None
        return _PageMessage(Sent(self._place.chat_id, message_id), Rendered(""), None) if message_id else None

    def _earlier_message(self, index: int) -> _PageMessage | None:
        """Returns the message of this page from an earlier attempt; its current text is unknown."""
        if index >= len(self._reply.earlier_ids):
            return None
        return _PageMessage(Sent(self._place.chat_id, self._reply.earlier_ids[index]), Rendered(""), None)

    async def show_file(self, caption: Rendered, data: bytes, markup: InlineKeyboardMarkup | None) -> SendResult:
        """Sends a file with the whole answer."""
        place = self._place
        outcome = await self._delivery.post(
            place.chat_id,
            caption,
            topic_id=place.topic_id,
            markup=markup,
            file=OutgoingFile(FILE_NAME, data),
        )
        if outcome.result is SendResult.SHOWN:
            await self._record(FILE_PAGE, outcome)
        return outcome.result

    def keep(self, message_ids: Collection[int]) -> None:
        """Keeps messages of an earlier attempt that hold no page."""
        self._kept.update(message_ids)

    async def delete_after(self, index: int) -> None:
        """Deletes the messages of later pages: of an earlier attempt that was longer, or that a file replaces."""
        shown = [message.sent.message_id for later, message in self._messages.items() if later > index]
        for message_id in dict.fromkeys([*shown, *self._reply.earlier_ids[index + 1 :]]):
            if message_id not in self._kept:
                await self._delivery.delete(self._place.chat_id, message_id)

    async def close_full_page(self, index: int, markup: InlineKeyboardMarkup | None) -> None:
        """Puts the buttons under a full page if nothing visible follows it."""
        if (stale := self._messages.pop(index + 1, None)) is not None:
            await self._delivery.delete(stale.sent.chat_id, stale.sent.message_id)
        shown = self._messages.get(index)
        if shown is None or shown.markup == markup:
            return
        if await self._delivery.edit_markup(shown.sent.chat_id, shown.sent.message_id, markup):
            shown.markup = markup
