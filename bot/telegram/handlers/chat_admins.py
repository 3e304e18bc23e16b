"""Guard of the buttons that change a chat: in a group only its admins may press them."""

from collections.abc import Awaitable, Callable
from typing import Any

from aiogram.types import CallbackQuery, Message, TelegramObject

from bot.telegram.api.group_admins import GroupAdmins
from bot.telegram.api.messages import is_group
from bot.telegram.delivery.delivery import Delivery
from core.i18n import Texts
from services.moderation.domain.ports import Standing


class ChatAdminsOnly:
    """Middleware of callback queries: asks Telegram anew at each press in a group, and answers all others itself.

    In a private chat, and under a message that Telegram no longer shows, the handler decides.

    Args:
        denial_key: key of the text for those who are no admin.
    """

    def __init__(self, admins: GroupAdmins, delivery: Delivery, texts: Texts, denial_key: str) -> None:
        self._admins = admins
        self._delivery = delivery
        self._texts = texts
        self._denial_key = denial_key

    async def __call__(
        self,
        handler: Callable[[TelegramObject, dict[str, Any]], Awaitable[Any]],
        event: TelegramObject,
        data: dict[str, Any],
    ) -> Any:  # noqa: ANN401 - the handler's result
        """Handles a press of an admin, or says why not."""
        message = event.message if isinstance(event, CallbackQuery) else None
        if not isinstance(event, CallbackQuery) or not isinstance(message, Message) or not is_group(message):
            return await handler(event, data)
        standing = await self._admins.fetch_standing(message.chat.id, event.from_user.id)
        if standing is Standing.ADMIN:
            return await handler(event, data)
        key = "rights-unknown" if standing is Standing.UNKNOWN else self._denial_key
        text = self._texts.get(key, event.from_user.language_code)
        await self._delivery.answer_callback(event.id, text, alert=True)
        return None
