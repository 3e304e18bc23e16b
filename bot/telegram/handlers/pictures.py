"""Handlers of pictures: `/image`, and the button that sends a picture as a file."""

from functools import partial

from aiogram import Router
from aiogram.filters import CommandObject
from aiogram.types import CallbackQuery, Message

from bot.telegram.answers.keyboards import SendPictureFile
from bot.telegram.answers.responder import PendingAnswer, Responder
from bot.telegram.api.filters import Command
from bot.telegram.api.updates import conversation_key, is_group, message_speaker, to_text_only
from bot.telegram.delivery.delivery import Delivery
from bot.telegram.delivery.outgoing import OutgoingFile
from bot.telegram.delivery.replies import reply_to
from bot.telegram.markdown.render import Rendered
from core.i18n import Texts
from services.chat.store.files import PictureStore
from services.chat.store.turns import TurnStore
from services.chat.turn import TurnRequest


class PictureHandlers:
    """Draws pictures, and sends them as files.

    Args:
        is_set_up: whether a provider draws.
    """

    def __init__(
        self,
        *,
        responder: Responder,
        delivery: Delivery,
        turns: TurnStore,
        pictures: PictureStore,
        texts: Texts,
        is_set_up: bool,
    ) -> None:
        self._responder = responder
        self._delivery = delivery
        self._turns = turns
        self._pictures = pictures
        self._texts = texts
        self._is_set_up = is_set_up

    def router(self) -> Router:
        """Returns the router."""
        router = Router(name="pictures")
        router.message.register(self.draw, Command("image"))
        router.callback_query.register(self.send_file, SendPictureFile.filter())
        return router

    async def draw(self, message: Message, command: CommandObject, job: str) -> PendingAnswer | None:
        """Draws a picture from the text of `/image`, or from the message that it replies to."""
        speaker, original = message_speaker(message), message.reply_to_message
        quoted = (original.text or original.caption) if original is not None else None
        description = (command.args or quoted or "").strip()
        shows_picture = _has_picture(message) or (original is not None and _has_picture(original) and command.args)
        refusal = None
        if not self._is_set_up:
            refusal = "images-not-set-up"
        elif shows_picture:
            refusal = "image-cannot-edit"
        elif not description:
            refusal = "image-usage"
        if refusal is not None:
            await reply_to(self._delivery, message, self._texts.get(refusal, speaker.language))
            return None
        request = TurnRequest(to_text_only(message, description, draws=True), origin=job)
        answered_id = message.message_id if is_group(message) else None
        return PendingAnswer(partial(self._responder.answer, request, reply_to=answered_id))

    async def send_file(self, query: CallbackQuery, callback_data: SendPictureFile) -> None:
        """Sends a picture as a file, as its provider gave it."""
        message = query.message
        turn = await self._turns.turn(callback_data.turn)
        if not isinstance(message, Message) or turn is None or turn.thread.key != conversation_key(message):
            found = []
        else:
            found = await self._pictures.of_turn(turn.id)
        if not isinstance(message, Message) or callback_data.number >= len(found):
            text = self._texts.get("picture-gone", query.from_user.language_code)
            await self._delivery.answer_callback(query.id, text, alert=True)
            return
        data, media_type = found[callback_data.number]
        place = conversation_key(message)
        await self._delivery.answer_callback(query.id)
        await self._delivery.send(
            place.chat_id,
            Rendered(""),
            topic_id=place.topic_id or None,
            reply_to=message.message_id,
            file=OutgoingFile(f"picture.{media_type.rpartition('/')[2]}", data),
        )


def _has_picture(message: Message) -> bool:
    is_file = message.document is not None and (message.document.mime_type or "").startswith("image/")
    return bool(message.photo) or is_file
