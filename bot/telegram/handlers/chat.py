"""Talking: messages for the bot, and the commands and buttons around an answer."""

from collections.abc import Sequence

from aiogram import Bot, Router
from aiogram.filters import Command, CommandObject, CommandStart
from aiogram.types import CallbackQuery, Message, MessageGenerationStopped

from bot.telegram.answers.cancellation import ReplyCancellation
from bot.telegram.answers.keyboards import Stop
from bot.telegram.answers.responder import Responder
from bot.telegram.api.messages import Unreadable, conversation_key, is_group, message_speaker, to_incoming
from bot.telegram.api.updates import Addressed, UserContent
from bot.telegram.delivery.delivery import Delivery
from bot.telegram.delivery.replies import reply_to
from core.i18n import Texts
from services.chat.store.turns import TurnStore


def chat_router(
    *, answering: Responder, delivery: Delivery, stops: ReplyCancellation, threads: TurnStore, texts: Texts
) -> Router:
    """The handlers of ordinary conversation."""
    router = Router(name="chat")

    async def say(message: Message, key: str, **arguments: str) -> None:
        await reply_to(delivery, message, texts.get(key, message_speaker(message).language, **arguments))

    # Handed over with the update: `album`, every part of the album that the message belongs to, empty for one that
    # stands by itself; `job`, what the inbox knows the update by.

    async def answer(message: Message, bot: Bot, text: str, album: Sequence[Message], job: str) -> None:
        incoming = await to_incoming(message, bot, text, album)
        if isinstance(incoming, Unreadable):
            await say(message, incoming.key)
            return
        reply_to = message.message_id if is_group(message) else None
        await answering.answer(incoming, reply_to=reply_to, origin=job)

    @router.message(CommandStart())
    async def start(message: Message) -> None:
        await say(message, "start", name=message_speaker(message).name)

    @router.message(Command("help"))
    async def help_(message: Message) -> None:
        await say(message, "help")

    @router.message(Command("new"))
    async def new(message: Message) -> None:
        await threads.start_new(conversation_key(message))
        await say(message, "new-done")

    @router.message(Command("stop"))
    async def stop(message: Message) -> None:
        if not await stops.stop(conversation_key(message)):
            await say(message, "nothing-to-stop")

    @router.message(Command("ask"))
    async def ask(message: Message, bot: Bot, command: CommandObject, album: Sequence[Message], job: str) -> None:
        if not command.args and not message.photo and not message.document and not message.reply_to_message:
            await say(message, "ask-usage")
            return
        await answer(message, bot, command.args or "", album, job)

    @router.message(UserContent(), Addressed())
    async def talk(message: Message, bot: Bot, text: str, album: Sequence[Message], job: str) -> None:
        if text.startswith("/"):
            await say(message, "unknown-command")
            return
        await answer(message, bot, text, album, job)

    @router.callback_query(Stop.filter())
    async def stop_pressed(query: CallbackQuery, callback_data: Stop) -> None:
        message = query.message
        language = query.from_user.language_code
        stopped = isinstance(message, Message) and await stops.stop(conversation_key(message), callback_data.number)
        await delivery.answer_callback(query.id, texts.get("stopping" if stopped else "nothing-to-stop", language))

    @router.stopped_message_generation()
    async def stopped_in_draft(stopped: MessageGenerationStopped) -> None:
        await stops.stop_chat(stopped.chat.id)

    return router
