"""Filter for the commands and buttons of operators."""

from aiogram.filters import Filter
from aiogram.types import CallbackQuery, Message, User


class FromOperator(Filter):
    """Passes messages and button presses of the users in ADMIN_IDS."""

    def __init__(self, admin_ids: frozenset[int]) -> None:
        self._admin_ids = admin_ids

    async def __call__(self, event: Message | CallbackQuery) -> bool:
        """Returns whether an operator sent it."""
        user: User | None = event.from_user
        return user is not None and user.id in self._admin_ids
