"""Talking: messages for the bot, and the commands and buttons around an answer."""

from collections.abc import Sequence

from aiogram import Bot, Router
from aiogram.filters import Command, CommandObject, CommandStart
from aiogram.types import CallbackQuery, Message, MessageGenerationStopped

from bot.telegram.answering import Answering
from bot.telegram.delivery import Delivery
from bot.telegram.filters import Addressed, UserContent
from bot.telegram.incoming import Unreadable, incoming_of, is_group, key_of, speaker_behind
from bot.telegram.keyboards import Stop
from bot.telegram.stops import Stops
from bot.telegram.telling import tell
from core.i18n import Texts
from services.chat.threads import Threads


def chat_router(*, answering: Answering, delivery: Delivery, stops: Stops, threads: Threads, texts: Texts) -> Router:
    """The handlers of ordinary conversation."""
    router = Router(name="chat")

    async def say(message: Message, key: str, **arguments: str) -> None:
        await tell(delivery, message, texts.get(key, speaker_behind(message).language, **arguments))

    # Handed over with the update: `album`, every part of the album that the message belongs to, empty for one that
    # stands by itself; `job`, what the inbox knows the update by.

    async def answer(message: Message, bot: Bot, text: str, album: Sequence[Message], job: str) -> None:
        incoming = await incoming_of(message, bot, text, album)
        if isinstance(incoming, Unreadable):
            await say(message, incoming.key)
            return
        reply_to = message.message_id if is_group(message) else None
        await answering.answer(incoming, reply_to=reply_to, origin=job)

    @router.message(CommandStart())
    async def start(message: Message) -> None:
        await say(message, "start", name=speaker_behind(message).name)

    @router.message(Command("help"))
    async def help_(message: Message) -> None:
        await say(message, "help")

    @router.message(Command("new"))
    async def new(message: Message) -> None:
        await threads.start_new(key_of(message))
        await say(message, "new-done")

    @router.message(Command("stop"))
    async def stop(message: Message) -> None:
        if not await stops.stop(key_of(message)):
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
        stopped = isinstance(message, Message) and await stops.stop(key_of(message), callback_data.number)
        await delivery.answer_callback(query.id, texts.get("stopping" if stopped else "nothing-to-stop", language))

    @router.stopped_message_generation()
    async def stopped_in_draft(stopped: MessageGenerationStopped) -> None:
        await stops.stop_chat(stopped.chat.id)

    return router
