"""Filters for who may use a command or press a button."""

from aiogram.filters import Filter
from aiogram.types import CallbackQuery, Message, User

from bot.telegram.api.group_admins import GroupAdmins
from bot.telegram.api.messages import is_group


class FromOperator(Filter):
    """Passes messages and button presses of the users in ADMIN_IDS."""

    def __init__(self, admin_ids: frozenset[int]) -> None:
        self._admin_ids = admin_ids

    async def __call__(self, event: Message | CallbackQuery) -> bool:
        """Returns whether an operator sent it."""
        user: User | None = event.from_user
        return user is not None and user.id in self._admin_ids


class MayChangeChat(Filter):
    """Passes button presses in private chats, and in groups those of admins, looked up anew for each press.

    A press under a message that Telegram no longer shows passes too; handlers ignore it.
    """

    def __init__(self, admins: GroupAdmins) -> None:
        self._admins = admins

    async def __call__(self, query: CallbackQuery) -> bool:
        """Returns whether the user may change the settings of the chat."""
        message = query.message
        if not isinstance(message, Message) or not is_group(message):
            return True
        return await self._admins.fetch_is_admin(message.chat.id, query.from_user.id)
