"""Guards of button presses: forged callback data is refused, and only operators and admins act."""

from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any, cast

import structlog
from aiogram.filters.callback_data import MAX_CALLBACK_LENGTH, CallbackData
from aiogram.types import CallbackQuery, Message, TelegramObject

from bot.telegram.api.group_admins import GroupAdmins
from bot.telegram.api.updates import is_group
from bot.telegram.delivery.delivery import Delivery
from core.i18n import Texts
from services.moderation.domain.ports import Standing

log = structlog.get_logger()


LARGEST_NUMBER = 2**63 - 1
"""The largest id that SQLite and PostgreSQL store."""

ButtonKinds = Mapping[str, type[CallbackData]]


def find_button_kinds() -> ButtonKinds:
    """Returns every kind of button that has been defined, by prefix."""
    return {kind.__prefix__: kind for kind in _subclasses(CallbackData)}


def parse_button(data: str | None, kinds: ButtonKinds) -> CallbackData | None:
    """Returns the button that carries this callback data, or None if no button of the bot can.

    A client may send any 64 bytes. The fields must validate, numbers must fit the database, and the data must be
    exactly as the bot packs it: without signs, leading zeros, digits of other scripts or control characters.
    """
    kind = kinds.get((data or "").partition(":")[0])
    if data is None or kind is None or not data.isprintable():
        return None
    try:
        button = kind.unpack(data)
        is_packed_so = len(data.encode()) <= MAX_CALLBACK_LENGTH and button.pack() == data
    except (TypeError, ValueError):
        return None
    fields = cast("dict[str, object]", dict(button))
    numbers = [value for value in fields.values() if isinstance(value, int)]
    return button if is_packed_so and all(0 <= number <= LARGEST_NUMBER for number in numbers) else None


class ButtonBorder:
    """Outer middleware of callback queries; a refused press is answered, so that the client stops waiting."""

    def __init__(self, delivery: Delivery, texts: Texts) -> None:
        self._delivery = delivery
        self._texts = texts
        self._kinds = find_button_kinds()

    async def __call__(
        self,
        handler: Callable[[TelegramObject, dict[str, Any]], Awaitable[object]],
        query: TelegramObject,
        data: dict[str, Any],
    ) -> object:
        """Handles a press, or refuses it."""
        if not isinstance(query, CallbackQuery) or (
            parse_button(query.data, self._kinds) is not None and _is_shown(query)
        ):
            return await handler(query, data)
        log.warning("button.refused", user_id=query.from_user.id)
        await self._delivery.answer_callback(query.id, self._texts.get("press-invalid", query.from_user.language_code))
        return None


def _is_shown(query: CallbackQuery) -> bool:
    """Returns whether the pressed message has this button, as far as Telegram tells.

    A client may send the data of one button for another message of the bot: it must not turn an incident card into a
    list of threads.
    """
    markup = query.message.reply_markup if isinstance(query.message, Message) else None
    if markup is None:
        return True
    return any(button.callback_data == query.data for row in markup.inline_keyboard for button in row)


def _subclasses(kind: type[CallbackData]) -> Iterator[type[CallbackData]]:
    for each in kind.__subclasses__():
        yield each
        yield from _subclasses(each)


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
        handler: Callable[[TelegramObject, dict[str, Any]], Awaitable[object]],
        event: TelegramObject,
        data: dict[str, Any],
    ) -> object:
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


class OperatorsOnly:
    """Middleware of callback queries: a press by another user gets the answer of an unknown command."""

    def __init__(self, admin_ids: frozenset[int], delivery: Delivery, texts: Texts) -> None:
        self._admin_ids = admin_ids
        self._delivery = delivery
        self._texts = texts

    async def __call__(
        self,
        handler: Callable[[TelegramObject, dict[str, Any]], Awaitable[object]],
        event: TelegramObject,
        data: dict[str, Any],
    ) -> object:
        """Handles a press of an operator, or refuses it."""
        if isinstance(event, CallbackQuery) and event.from_user.id not in self._admin_ids:
            text = self._texts.get("unknown-command", event.from_user.language_code)
            await self._delivery.answer_callback(event.id, text)
            return None
        return await handler(event, data)
