"""Where an update goes: whether it is let in, and behind which others it waits."""

from dataclasses import dataclass
from typing import Protocol

import structlog
from aiogram import Bot, Dispatcher
from aiogram.types import Message, Update

from bot.telegram.albums import Album, Albums
from bot.telegram.delivery import Delivery
from bot.telegram.filters import Addressed
from bot.telegram.incoming import is_group, key_of, speaker_behind
from bot.telegram.lanes import Lanes
from bot.telegram.telling import tell
from core.clock import Clock
from core.errors import StorageError
from core.i18n import Texts
from services.moderation.pipeline import Outcome

log = structlog.get_logger()

AT_ONCE = frozenset(
    {"/stop", "/provider", "/privacy", "/moderation", "/rules", "/spam", "/ham", "/warn", "/unwarn", "/report"}
)
"""Commands about the answer that is being made, or about the bot: they do not wait behind it."""
IN_TURN = frozenset({"/start", "/help", "/new", "/model", "/ask"})
"""The other commands; in a group they need no mention."""


@dataclass(frozen=True, slots=True)
class Guests:
    """Who may talk to the bot: ADMIN_IDS, ALLOWED_USER_IDS and ALLOWED_CHAT_IDS; everybody where the last are empty."""

    admins: frozenset[int] = frozenset()
    users: frozenset[int] = frozenset()
    chats: frozenset[int] = frozenset()

    def include(self, update: Update) -> bool:
        """Whether an update comes from one of them."""
        if not self.users and not self.chats:
            return True
        event = update.message or update.edited_message or update.callback_query or update.stopped_message_generation
        user = getattr(event, "from_user", None)
        chat = getattr(event, "chat", None) or getattr(getattr(event, "message", None), "chat", None)
        # A private chat has the number of its person, and some updates tell only the chat.
        people = {each.id for each in (user, chat) if each is not None}
        return not people.isdisjoint(self.users | self.admins) or (chat is not None and chat.id in self.chats)


class Moderator(Protocol):
    """Sees what is said in moderated groups."""

    async def concerns(self, update: Update) -> bool:
        """Whether an update is its business."""
        ...

    async def moderate(self, update: Update) -> Outcome:
        """Judge it, and tell whether its message is gone."""
        ...


class Doorway:
    """Takes every update that came in.

    Args:
        bot: whose updates.
        dispatcher: handles them.
        lanes: keep those of one conversation in order.
        delivery: the way out.
        texts: what users are told.
        clock: tells when an album is whole.
        moderation: sees the messages of moderated groups before anybody answers them.
        guests: who is let in.
    """

    def __init__(
        self,
        *,
        bot: Bot,
        dispatcher: Dispatcher,
        lanes: Lanes,
        delivery: Delivery,
        texts: Texts,
        clock: Clock,
        moderation: Moderator,
        guests: Guests,
    ) -> None:
        self._bot = bot
        self._dispatcher = dispatcher
        self._lanes = lanes
        self._delivery = delivery
        self._texts = texts
        self._moderation = moderation
        self._guests = guests
        self._addressed = Addressed()
        self._albums = Albums(clock)

    async def take(self, update: Update) -> None:
        """Send an update on its way; returns when it has its place."""
        message = update.message
        album = self._albums.join(message) if message is not None else None
        if album is None:
            await self._place(update, None)
        elif not album.is_placed:
            album.is_placed = await self._place(update, album)
        else:
            # It goes with the part that has a place; moderation gathers an album for itself.
            self._lanes.run_at_once(lambda: self._moderate(update))

    async def _place(self, update: Update, album: Album | None) -> bool:
        """Send an update on its way; False for one that has no place in a lane and asks for none.

        An album has the place of the first of its parts that is for the bot: in a group that is mostly the one with
        the caption, and the others say nothing of themselves.
        """
        message = update.message
        if not self._guests.include(update):
            log.info("update.not_admitted", update_id=update.update_id)
            self._turn_away(update)
            # Whom the bot does not talk to is moderated all the same, where a group wants that.
            self._lanes.run_at_once(lambda: self._moderate(update))
        elif message is None or not await self._waits(message):
            self._lanes.run_at_once(lambda: self._handle(update))
            return False
        elif not self._lanes.submit(
            key_of(message), lambda: self._handle(update, album), lambda: self._tell(message, "restarted-unread")
        ):
            log.warning("update.queue_full", update_id=update.update_id, chat_id=message.chat.id)
            self._lanes.run_at_once(lambda: self._tell(message, "queue-full"))
        return True

    async def _handle(self, update: Update, album: Album | None = None) -> None:
        if await self._moderated(update):
            return
        parts = await album.whole() if album is not None else ()
        await self._dispatcher.feed_update(self._bot, update, album=parts)

    async def _moderate(self, update: Update) -> None:
        await self._moderated(update)

    async def _moderated(self, update: Update) -> bool:
        """Let moderation see an update, and tell whether its message is gone: then nobody answers it."""
        try:
            return await self._moderation.concerns(update) and (await self._moderation.moderate(update)).removed
        except StorageError as error:
            # Whom the database keeps from judging must not keep the bot from answering.
            log.error("moderation.failed", update_id=update.update_id, error=str(error))  # noqa: TRY400 - no bug of ours
            return False

    async def _waits(self, message: Message) -> bool:
        """Whether it waits behind the answer that is being made: not what people in a group say to each other."""
        word = _first_word(message)
        if word in AT_ONCE:
            return False
        # A command in a group may be meant for another bot.
        return word in IN_TURN or bool(await self._addressed(message, self._bot))

    def _turn_away(self, update: Update) -> None:
        """Say so in private and to who pressed a button; in a group it would disturb those who did not ask."""
        message, query = update.message, update.callback_query
        if message is not None and not is_group(message):
            self._lanes.run_at_once(lambda: self._tell(message, "not-allowed"))
        elif query is not None:
            text = self._texts.get("not-allowed", query.from_user.language_code)
            self._lanes.run_at_once(lambda: self._delivery.answer_callback(query.id, text))

    async def _tell(self, message: Message, key: str) -> None:
        await tell(self._delivery, message, self._texts.get(key, speaker_behind(message).language))


def _first_word(message: Message) -> str:
    """The command of a message, without the name of the bot that it may carry."""
    words = (message.text or message.caption or "").split(maxsplit=1)
    return words[0].partition("@")[0].lower() if words else ""
