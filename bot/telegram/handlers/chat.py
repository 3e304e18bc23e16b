"""Handlers of conversation: messages that address the bot, `/start`, `/help`, `/new`, `/stop`, `/ask`."""

from collections.abc import Sequence

from aiogram import Router
from aiogram.filters import CommandObject
from aiogram.types import CallbackQuery, Message, MessageGenerationStopped

from bot.telegram.answers.cancellation import ReplyCancellation
from bot.telegram.answers.keyboards import StopAnswer
from bot.telegram.answers.responder import PendingAnswer, Responder
from bot.telegram.api.filters import Addressed, Command, UserContent
from bot.telegram.api.updates import conversation_key, is_group, is_typed, message_speaker
from bot.telegram.delivery.delivery import Delivery
from bot.telegram.delivery.replies import Replies, reply_to
from core.i18n import Texts
from core.messages import user_ref
from services.chat.service import ChatService
from services.chat.store.turns import TurnStore


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
        admin_ids: frozenset[int] = frozenset(),
    ) -> None:
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
        await self._replies.say(message, await self._chat.records.compact(key, user_ref(key.surface, speaker.user_id)))

    async def stop(self, message: Message) -> None:
        """Stops the answer in progress; its message shows the result."""
        if not await self._cancellation.stop(conversation_key(message)):
            await self._replies.say(message, "nothing-to-stop")

    async def ask(
        self, message: Message, command: CommandObject, album: Sequence[Message], job: str
    ) -> PendingAnswer | None:
        """Answers the text of `/ask`, an attachment or the replied-to message."""
        has_file = message.photo or message.document or message.voice or message.audio
        if not command.args and not has_file and not message.reply_to_message:
            await self._replies.say(message, "ask-usage")
            return None
        return await self._responder.prepare(message, command.args or "", album, job)

    async def talk(self, message: Message, text: str, album: Sequence[Message], job: str) -> PendingAnswer | None:
        """Answers a message."""
        if text.startswith("/") and is_typed(message):
            await self._replies.say(message, "unknown-command")
            return None
        return await self._responder.prepare(message, text, album, job)

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
