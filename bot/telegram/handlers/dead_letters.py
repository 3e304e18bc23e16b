"""`/dead`: for those who run the bot. To anybody else it is a command that does not exist."""

from aiogram import Router
from aiogram.filters import Command, CommandObject
from aiogram.types import CallbackQuery, InaccessibleMessage, InlineKeyboardMarkup, Message

from bot.operators.dead_letters import DeadLetterCommands
from bot.telegram.answers.keyboards import Letter, letters_keyboard
from bot.telegram.delivery.delivery import Delivery
from bot.telegram.delivery.replies import reply_to
from bot.telegram.handlers.provider import FromAdmin
from bot.telegram.markdown.render import Rendered
from core.i18n import Texts


def dead_letters_router(
    *, admin_ids: frozenset[int], commands: DeadLetterCommands, delivery: Delivery, texts: Texts
) -> Router:
    """The handlers of the dead letters."""
    router = Router(name="dead")

    async def keyboard() -> InlineKeyboardMarkup | None:
        return letters_keyboard([letter.id for letter in await commands.newest()])

    @router.message(Command("dead"), FromAdmin(admin_ids))
    async def dead(message: Message, command: CommandObject) -> None:
        actor = message.from_user
        if actor is not None:
            await reply_to(delivery, message, await commands.run(command.args or "", actor.id), await keyboard())

    @router.callback_query(Letter.filter(), FromAdmin(admin_ids))
    async def pressed(query: CallbackQuery, callback_data: Letter) -> None:
        await delivery.answer_callback(query.id)
        said = await commands.run(f"{callback_data.act} {callback_data.number}", query.from_user.id)
        text = f"{await commands.run('', query.from_user.id)}\n\n{said}"
        message = query.message
        if message is not None and not isinstance(message, InaccessibleMessage):
            markup = await keyboard()
            await delivery.edit(message.chat.id, message.message_id, Rendered(text), markup=markup, final=True)

    @router.callback_query(Letter.filter())
    async def pressed_by_another(query: CallbackQuery) -> None:
        await delivery.answer_callback(query.id, texts.get("unknown-command", query.from_user.language_code))

    return router
