"""Handlers of conversation: messages that address the bot, `/start`, `/help`, `/new`, `/stop`, `/ask`, `/image`."""

from collections.abc import Sequence
from functools import partial

from aiogram import Bot, Router
from aiogram.filters import CommandObject
from aiogram.types import CallbackQuery, Message, MessageGenerationStopped

from bot.telegram.answers.cancellation import ReplyCancellation
from bot.telegram.answers.keyboards import SendPictureFile, StopAnswer
from bot.telegram.answers.responder import PendingAnswer, Responder
from bot.telegram.api.files import FileReader, Unreadable
from bot.telegram.api.filters import Addressed, Command, UserContent, is_typed
from bot.telegram.api.updates import conversation_key, is_group, message_speaker, to_incoming, to_text_only
from bot.telegram.delivery.calls import OutgoingFile
from bot.telegram.delivery.delivery import Delivery
from bot.telegram.delivery.replies import Replies, reply_to
from bot.telegram.markdown.render import Rendered
from core.i18n import Texts
from core.messages import user_ref
from services.chat.service import ChatService
from services.chat.store.files import PictureStore
from services.chat.store.turns import TurnStore
from services.chat.turn import TurnRequest


class ChatHandlers:
    """Answers messages and controls answers.

    The job worker passes with each update: `album`, every part of the message's album (empty for a single message),
    and `job`, the id of the inbox job.
    """

    def __init__(
        self,
        *,
        responder: Responder,
        delivery: Delivery,
        cancellation: ReplyCancellation,
        turns: TurnStore,
        chat: ChatService,
        texts: Texts,
        files: FileReader,
        admin_ids: frozenset[int] = frozenset(),
    ) -> None:
        self._files = files
        self._responder = responder
        self._replies = Replies(delivery, texts)
        self._delivery = delivery
        self._cancellation = cancellation
        self._turns = turns
        self._chat = chat
        self._texts = texts
        self._admin_ids = admin_ids

    def router(self) -> Router:
        """Returns the router; it answers every message that addresses the bot, so it comes last."""
        router = Router(name="chat")
        router.message.register(self.start, Command("start"))
        router.message.register(self.help, Command("help"))
        router.message.register(self.new, Command("new"))
        router.message.register(self.compact, Command("compact"))
        router.message.register(self.stop, Command("stop"))
        router.message.register(self.ask, Command("ask"))
        router.message.register(self.talk, UserContent(), Addressed())
        router.callback_query.register(self.press_stop, StopAnswer.filter())
        router.stopped_message_generation.register(self.stop_draft)
        return router

    async def start(self, message: Message) -> None:
        """Greets the user."""
        await self._replies.say(message, "start", name=message_speaker(message).name)

    async def help(self, message: Message) -> None:
        """Sends the list of commands; an operator gets theirs too in a private chat."""
        speaker = message_speaker(message)
        text = self._texts.get("help", speaker.language)
        if speaker.user_id in self._admin_ids and not is_group(message):
            text = f"{text}\n\n{self._texts.get('help-operators', speaker.language)}"
        await reply_to(self._delivery, message, text)

    async def new(self, message: Message) -> None:
        """Starts a new thread."""
        await self._turns.start_new(conversation_key(message))
        await self._replies.say(message, "new-done")

    async def compact(self, message: Message) -> None:
        """Summarises the earlier part of the conversation."""
        key, speaker = conversation_key(message), message_speaker(message)
        await self._replies.say(message, await self._chat.compact(key, user_ref(key.surface, speaker.user_id)))

    async def stop(self, message: Message) -> None:
        """Stops the answer in progress; its message shows the result."""
        if not await self._cancellation.stop(conversation_key(message)):
            await self._replies.say(message, "nothing-to-stop")

    async def ask(
        self, message: Message, bot: Bot, command: CommandObject, album: Sequence[Message], job: str
    ) -> PendingAnswer | None:
        """Answers the text of `/ask`, an attachment or the replied-to message."""
        has_file = message.photo or message.document or message.voice or message.audio
        if not command.args and not has_file and not message.reply_to_message:
            await self._replies.say(message, "ask-usage")
            return None
        return await self._answer(message, bot, command.args or "", album, job)

    async def talk(
        self, message: Message, bot: Bot, text: str, album: Sequence[Message], job: str
    ) -> PendingAnswer | None:
        """Answers a message."""
        if text.startswith("/") and is_typed(message):
            await self._replies.say(message, "unknown-command")
            return None
        return await self._answer(message, bot, text, album, job)

    async def press_stop(self, query: CallbackQuery, callback_data: StopAnswer) -> None:
        """Stops the answer of the pressed button."""
        message = query.message
        language = query.from_user.language_code
        is_stopped = isinstance(message, Message) and await self._cancellation.stop(
            conversation_key(message), callback_data.number
        )
        text = self._texts.get("stopping" if is_stopped else "nothing-to-stop", language)
        await self._delivery.answer_callback(query.id, text)

    async def stop_draft(self, stopped: MessageGenerationStopped) -> None:
        """Stops the answers of a chat after its user stopped a streamed draft."""
        await self._cancellation.stop_chat(stopped.chat.id)

    async def _answer(
        self, message: Message, bot: Bot, text: str, album: Sequence[Message], job: str
    ) -> PendingAnswer | None:
        incoming = await to_incoming(message, bot, text, album, self._files)
        if isinstance(incoming, Unreadable):
            await self._replies.say(message, incoming.key, **incoming.arguments)
            return None
        reply_to = message.message_id if is_group(message) else None
        request = TurnRequest(incoming, origin=job)
        return PendingAnswer(partial(self._responder.answer, request, reply_to=reply_to))


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
