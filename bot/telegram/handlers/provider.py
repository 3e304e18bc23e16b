"""`/provider`: for those who run the bot. To anybody else it is a command that does not exist."""

from aiogram import Router
from aiogram.filters import Command, CommandObject, Filter
from aiogram.types import CallbackQuery, InaccessibleMessage, Message, User

from bot.operators.provider import ProviderCommands
from bot.telegram.answers.keyboards import Desk, desk_keyboard
from bot.telegram.delivery.delivery import Delivery
from bot.telegram.delivery.replies import reply_to
from bot.telegram.markdown.render import Rendered
from core.i18n import Texts
from services.llm.routing.fallback import LLMProviderFallback


class FromAdmin(Filter):
    """Somebody of ADMIN_IDS wrote or pressed it."""

    def __init__(self, admin_ids: frozenset[int]) -> None:
        self._admin_ids = admin_ids

    async def __call__(self, event: Message | CallbackQuery) -> bool:
        """Whether it was one of them."""
        user: User | None = event.from_user
        return user is not None and user.id in self._admin_ids


def provider_router(
    *,
    admin_ids: frozenset[int],
    commands: ProviderCommands,
    fallback: LLMProviderFallback,
    delivery: Delivery,
    texts: Texts,
) -> Router:
    """The handlers of the provider desk."""
    router = Router(name="admin")
    router.message.filter(FromAdmin(admin_ids))
    keyboard = desk_keyboard([provider.id for provider in fallback.providers])

    @router.message(Command("provider"))
    async def provider(message: Message, command: CommandObject) -> None:
        actor = message.from_user
        if actor is None:
            return
        await reply_to(delivery, message, await commands.run(command.args or "", actor.id), keyboard)

    @router.callback_query(Desk.filter(), FromAdmin(admin_ids))
    async def pressed(query: CallbackQuery, callback_data: Desk) -> None:
        await delivery.answer_callback(query.id)
        said = await commands.run(f"{callback_data.act} {callback_data.provider}".strip(), query.from_user.id)
        table = await commands.run("", query.from_user.id) if callback_data.act else None
        text = said if table is None else f"{table}\n\n{said}"
        message = query.message
        if message is not None and not isinstance(message, InaccessibleMessage):
            await delivery.edit(message.chat.id, message.message_id, Rendered(text), markup=keyboard, final=True)

    @router.callback_query(Desk.filter())
    async def pressed_by_another(query: CallbackQuery) -> None:
        await delivery.answer_callback(query.id, texts.get("unknown-command", query.from_user.language_code))

    return router
