"""The pictures of one answer in one chat, each a message after the text."""

from collections.abc import Collection

from aiogram.types import InlineKeyboardMarkup

from bot.telegram.answers.answer_messages import AnswerSends, Keyboards, Place
from bot.telegram.answers.keyboards import build_keyboard
from bot.telegram.delivery.delivery import Delivery
from bot.telegram.delivery.outgoing import FileShape, OutgoingFile, SendResult
from bot.telegram.markdown.render import Rendered
from services.chat.reply import Reply, ShownPicture

FIRST_PICTURE_PAGE = -2
"""Number of its first picture; the others follow downwards."""
LARGEST_PHOTO = 10 * 1024 * 1024
"""Telegram takes a larger picture as a file only."""


class AnswerPictures:
    """Sends the pictures of an answer; those of an earlier attempt are not repeated.

    Args:
        sends: told about each new message, before and after it is sent.
    """

    def __init__(
        self, delivery: Delivery, reply: Reply, place: Place, keyboards: Keyboards, sends: AnswerSends | None
    ) -> None:
        self._delivery = delivery
        self._reply = reply
        self._place = place
        self._keyboards = keyboards
        self._sends = sends
        self._sent: dict[int, int] = {}
        """Messages of the pictures that an earlier attempt has sent, by their numbers."""

    async def recover(self) -> Collection[int]:
        """Finds the pictures that an earlier attempt has sent. Returns their messages."""
        if self._sends is not None and self._reply.is_resumed:
            for number in range(len(self._reply.pictures)):
                if (sent := await self._sends.begin(FIRST_PICTURE_PAGE - number)) is not None:
                    self._sent[number] = sent
        return self._sent.values()

    async def show(self, markup: InlineKeyboardMarkup | None) -> None:
        """Sends the pictures, the last one with the keyboard too; those of an earlier attempt are not repeated."""
        for number, picture in enumerate(self._reply.pictures):
            if number in self._sent:
                continue
            keyboard = self._keyboards.picture(number)
            if markup is not None and number == len(self._reply.pictures) - 1:
                rows = [*(keyboard.inline_keyboard if keyboard is not None else []), *markup.inline_keyboard]
                keyboard = build_keyboard(rows)
            await self._show_picture(number, picture, keyboard, self._place.reply_to if markup is not None else None)

    async def _show_picture(
        self, number: int, picture: ShownPicture, markup: InlineKeyboardMarkup | None, reply_to: int | None
    ) -> None:
        """Sends a picture as a photo, or as a file where Telegram refuses that."""
        page = FIRST_PICTURE_PAGE - number
        if self._sends is not None:
            await self._sends.begin(page)
        for shape in (FileShape.PHOTO, FileShape.DOCUMENT):
            if shape is FileShape.PHOTO and len(picture.data) > LARGEST_PHOTO:
                continue
            outcome = await self._delivery.post(
                self._place.chat_id,
                Rendered(""),
                topic_id=self._place.topic_id,
                reply_to=reply_to,
                markup=markup,
                file=OutgoingFile(picture.name, picture.data, shape),
            )
            if self._sends is not None and outcome.sent is not None:
                await self._sends.record(page, outcome.sent.message_id)
            if outcome.result is not SendResult.LOST:
                return
