"""Where an update goes: whether it is let in, and behind which others it waits."""

import structlog
from aiogram import Bot, Dispatcher
from aiogram.types import Message, Update

from bot.telegram.delivery import Delivery
from bot.telegram.filters import Addressed
from bot.telegram.incoming import is_group, key_of, speaker_behind
from bot.telegram.lanes import Lanes
from bot.telegram.rendering import Rendered
from core.i18n import Texts

log = structlog.get_logger()

AT_ONCE = frozenset({"/stop", "/provider", "/privacy"})
"""Commands about the answer that is being made, or about the bot: they do not wait behind it."""


class Doorway:
    """Takes every update that came in.

    Args:
        bot: whose updates.
        dispatcher: handles them.
        lanes: keep those of one conversation in order.
        delivery: the way out.
        texts: what users are told.
        users: ALLOWED_USER_IDS and ADMIN_IDS.
        chats: ALLOWED_CHAT_IDS.
        everyone: neither of the two was set.
    """

    def __init__(
        self,
        *,
        bot: Bot,
        dispatcher: Dispatcher,
        lanes: Lanes,
        delivery: Delivery,
        texts: Texts,
        users: frozenset[int],
        chats: frozenset[int],
        everyone: bool,
    ) -> None:
        self._bot = bot
        self._dispatcher = dispatcher
        self._lanes = lanes
        self._delivery = delivery
        self._texts = texts
        self._users = users
        self._chats = chats
        self._everyone = everyone
        self._addressed = Addressed()

    async def take(self, update: Update) -> None:
        """Send an update on its way; returns when it has its place."""
        message = update.message
        if not self._admitted(update):
            log.info("update.not_admitted", update_id=update.update_id)
            self._turn_away(update)
        elif message is None or not await self._waits(message):
            self._lanes.run_at_once(lambda: self._handle(update))
        elif not self._lanes.submit(key_of(message), lambda: self._handle(update)):
            log.warning("update.queue_full", update_id=update.update_id, chat_id=message.chat.id)
            self._say(message, "queue-full")

    async def _handle(self, update: Update) -> None:
        await self._dispatcher.feed_update(self._bot, update)

    async def _waits(self, message: Message) -> bool:
        """Whether it waits behind the answer that is being made: not what people in a group say to each other."""
        word = _first_word(message)
        if word.startswith("/"):
            return word not in AT_ONCE
        return bool(await self._addressed(message, self._bot))

    def _turn_away(self, update: Update) -> None:
        """Say so in private and to who pressed a button; in a group it would disturb those who did not ask."""
        message, query = update.message, update.callback_query
        if message is not None and not is_group(message):
            self._say(message, "not-allowed")
        elif query is not None:
            text = self._texts.get("not-allowed", query.from_user.language_code)
            self._lanes.run_at_once(lambda: self._delivery.answer_callback(query.id, text))

    def _say(self, message: Message, key: str) -> None:
        text = Rendered(self._texts.get(key, speaker_behind(message).language))
        self._lanes.run_at_once(lambda: self._tell(message, text))

    async def _tell(self, message: Message, text: Rendered) -> None:
        place = key_of(message)
        reply_to = message.message_id if is_group(message) else None
        await self._delivery.send(place.chat_id, text, topic_id=place.topic_id or None, reply_to=reply_to)

    def _admitted(self, update: Update) -> bool:
        if self._everyone:
            return True
        event = update.message or update.callback_query or update.stopped_message_generation
        user = getattr(event, "from_user", None)
        chat = getattr(event, "chat", None) or getattr(getattr(event, "message", None), "chat", None)
        return (user is not None and user.id in self._users) or (chat is not None and chat.id in self._chats)


def _first_word(message: Message) -> str:
    """The command of a message, without the name of the bot that it may carry."""
    words = (message.text or message.caption or "").split(maxsplit=1)
    return words[0].partition("@")[0].lower() if words else ""
