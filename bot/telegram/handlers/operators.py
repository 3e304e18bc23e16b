"""Handlers of the operator commands `/provider`, `/dead` and `/console`; for other users these do not exist."""

from collections.abc import Callable, Sequence

from aiogram import Router
from aiogram.filters import CommandObject
from aiogram.filters.callback_data import CallbackData
from aiogram.types import (
    CallbackQuery,
    InaccessibleMessage,
    InlineKeyboardButton,
    InlineKeyboardMarkup,
    Message,
    WebAppInfo,
)

from bot.operators.console_links import ConsoleCommand
from bot.operators.dead_letters import DeadLetterCommands
from bot.operators.provider import ProviderCommands
from bot.telegram.answers.keyboards import build_keyboard, button
from bot.telegram.api.filters import Command, FromOperator
from bot.telegram.api.updates import is_group
from bot.telegram.delivery.delivery import Delivery
from bot.telegram.delivery.replies import edit_text, reply_to
from bot.telegram.handlers.button_guards import OperatorsOnly
from core.i18n import Texts


class ProviderAction(CallbackData, prefix="desk"):
    """An action of `/provider`; an empty one refreshes the table."""

    act: str
    provider: str


class DeadLetterAction(CallbackData, prefix="dead"):
    """An action of `/dead`."""

    act: str
    number: int


def provider_keyboard(texts: Texts, language: str | None, providers: Sequence[str]) -> InlineKeyboardMarkup:
    """Builds the keyboard of `/provider`."""
    words = {act: texts.get(f"operator-act-{act}", language) for act in ("force", "test", "cooldown", "reset")}
    rows = [
        [button(f"{words[act]} {provider}", ProviderAction(act=act, provider=provider)) for act in ("force", "test")]
        + [button(words[act], ProviderAction(act=act, provider=provider)) for act in ("cooldown", "reset")]
        for provider in providers
    ]
    common = [
        button(texts.get("operator-act-clear", language), ProviderAction(act="clear", provider="")),
        button(texts.get("operator-act-refresh", language), ProviderAction(act="", provider="")),
    ]
    return build_keyboard([*rows, common])


def dead_letters_keyboard(texts: Texts, language: str | None, numbers: Sequence[int]) -> InlineKeyboardMarkup | None:
    """Builds the keyboard of `/dead`; None for an empty list."""
    words = {act: texts.get(f"operator-act-{act}", language) for act in ("replay", "drop")}
    rows = [
        [button(f"{word} {number}", DeadLetterAction(act=act, number=number)) for act, word in words.items()]
        for number in numbers
    ]
    return build_keyboard(rows) if rows else None


class OperatorHandlers:
    """Runs operator commands; a button shows the refreshed overview above the result of its action."""

    def __init__(
        self,
        *,
        providers: ProviderCommands,
        provider_ids: Callable[[], Sequence[str]],
        dead_letters: DeadLetterCommands,
        console: ConsoleCommand,
        delivery: Delivery,
        texts: Texts,
    ) -> None:
        self._providers = providers
        self._provider_ids = provider_ids
        self._dead_letters = dead_letters
        self._console = console
        self._delivery = delivery
        self._texts = texts

    def router(self, admin_ids: frozenset[int]) -> Router:
        """Returns the router."""
        router, from_operator = Router(name="operators"), FromOperator(admin_ids)
        router.message.register(self.provider, Command("provider"), from_operator)
        router.message.register(self.dead, Command("dead"), from_operator)
        router.message.register(self.console, Command("console"), from_operator)
        router.callback_query.middleware(OperatorsOnly(admin_ids, self._delivery, self._texts))
        router.callback_query.register(self.press_provider, ProviderAction.filter())
        router.callback_query.register(self.press_dead_letter, DeadLetterAction.filter())
        return router

    async def provider(self, message: Message, command: CommandObject) -> None:
        """Runs `/provider`."""
        if message.from_user is not None:
            language = message.from_user.language_code
            text = await self._providers.run(command.args or "", message.from_user.id, language)
            await reply_to(self._delivery, message, text, self._provider_keyboard(language))

    async def dead(self, message: Message, command: CommandObject) -> None:
        """Runs `/dead`."""
        if message.from_user is not None:
            language = message.from_user.language_code
            text = await self._dead_letters.run(command.args or "", message.from_user.id, language)
            await reply_to(self._delivery, message, text, await self._dead_letters_keyboard(language))

    async def console(self, message: Message) -> None:
        """Runs `/console`."""
        if message.from_user is not None:
            user = message.from_user
            invitation = await self._console.run(user.id, user.language_code, is_private=not is_group(message))
            markup = None
            if invitation.app_url is not None:
                app = InlineKeyboardButton(
                    text=self._texts.get("console-open-here", user.language_code),
                    web_app=WebAppInfo(url=invitation.app_url),
                )
                markup = build_keyboard([[app]])
            await reply_to(self._delivery, message, invitation.text, markup)

    async def press_provider(self, query: CallbackQuery, callback_data: ProviderAction) -> None:
        """Runs an action on a provider."""
        await self._delivery.answer_callback(query.id)
        arguments = f"{callback_data.act} {callback_data.provider}".strip()
        user = query.from_user
        text = await self._providers.run(arguments, user.id, user.language_code)
        if callback_data.act:
            text = f"{await self._providers.run('', user.id, user.language_code)}\n\n{text}"
        await self._edit(query, text, self._provider_keyboard(user.language_code))

    async def press_dead_letter(self, query: CallbackQuery, callback_data: DeadLetterAction) -> None:
        """Runs an action on a dead letter."""
        await self._delivery.answer_callback(query.id)
        user = query.from_user
        act = f"{callback_data.act} {callback_data.number}"
        result = await self._dead_letters.run(act, user.id, user.language_code)
        text = f"{await self._dead_letters.run('', user.id, user.language_code)}\n\n{result}"
        await self._edit(query, text, await self._dead_letters_keyboard(user.language_code))

    def _provider_keyboard(self, language: str | None) -> InlineKeyboardMarkup:
        return provider_keyboard(self._texts, language, self._provider_ids())

    async def _dead_letters_keyboard(self, language: str | None) -> InlineKeyboardMarkup | None:
        numbers = [letter.id for letter in await self._dead_letters.newest()]
        return dead_letters_keyboard(self._texts, language, numbers)

    async def _edit(self, query: CallbackQuery, text: str, markup: InlineKeyboardMarkup | None) -> None:
        if query.message is not None and not isinstance(query.message, InaccessibleMessage):
            await edit_text(self._delivery, query.message, text, markup)
