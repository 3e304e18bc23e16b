"""Access control: which users and chats the bot answers."""

from dataclasses import dataclass

from aiogram.types import Update


@dataclass(frozen=True, slots=True)
class AccessList:
    """ADMIN_IDS, ALLOWED_USER_IDS and ALLOWED_CHAT_IDS; empty users and chats admit every update."""

    admins: frozenset[int] = frozenset()
    users: frozenset[int] = frozenset()
    chats: frozenset[int] = frozenset()

    def admits(self, update: Update) -> bool:
        """Returns whether an update comes from a listed user or chat."""
        if not self.users and not self.chats:
            return True
        event = update.message or update.edited_message or update.callback_query or update.stopped_message_generation
        user = getattr(event, "from_user", None)
        chat = getattr(event, "chat", None) or getattr(getattr(event, "message", None), "chat", None)
        # A private chat has the id of its user, and some updates carry only the chat.
        senders = {each.id for each in (user, chat) if each is not None}
        return not senders.isdisjoint(self.users | self.admins) or (chat is not None and chat.id in self.chats)
