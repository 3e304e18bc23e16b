"""`/model`: who answers this chat."""

import structlog
from aiogram import Bot, Router
from aiogram.filters import Command
from aiogram.types import CallbackQuery, InlineKeyboardMarkup, Message

from bot.telegram.answers.keyboards import (
    Automatic,
    Footers,
    PickModel,
    PickProvider,
    checksum,
    models_keyboard,
    providers_keyboard,
)
from bot.telegram.api.group_admins import is_chat_admin
from bot.telegram.api.messages import conversation_key, is_group
from bot.telegram.delivery.delivery import Delivery
from bot.telegram.delivery.replies import reply_to
from bot.telegram.markdown.render import Rendered
from core.config.providers import ProviderSettings
from core.i18n import Texts
from services.llm.providers.catalog import Catalog, CatalogError
from services.llm.routing.fallback import LLMProviderFallback
from services.preferences import PreferenceStore

log = structlog.get_logger()

MODELS_SHOWN = 40
"""Of a live catalogue; some have hundreds, and the configured ones come first."""
CATALOG_TIMEOUT_S = 3.0


class _Picker:
    """The message of `/model` as it is shown to somebody, and what can be picked on it."""

    def __init__(
        self,
        delivery: Delivery,
        preferences: PreferenceStore,
        catalog: Catalog,
        fallback: LLMProviderFallback,
        texts: Texts,
    ) -> None:
        self._delivery = delivery
        self._preferences = preferences
        self._catalog = catalog
        self._fallback = fallback
        self._texts = texts

    async def opened(self, message: Message, language: str | None) -> tuple[str, InlineKeyboardMarkup]:
        """Its text and its buttons, by what the chat chose."""
        texts = self._texts
        chosen = await self._preferences.get(conversation_key(message).chat_ref)
        current = f"{chosen.provider} · {chosen.model}" if chosen.provider else texts.get("model-automatic", language)
        known = [provider.id for provider in self._fallback.providers]
        markup = providers_keyboard(texts, language, known, footers=bool(chosen.footers))
        return texts.get("model-title", language, current=current), markup

    async def models(self, provider_id: str) -> tuple[ProviderSettings, list[str]] | None:
        """A provider with what can be asked of it; None where there is no such provider any more."""
        provider = next((known for known in self._fallback.providers if known.id == provider_id), None)
        if provider is None:
            return None
        try:
            live = await self._catalog.live_models(provider, timeout_s=CATALOG_TIMEOUT_S)
        except CatalogError as error:
            log.info("model.no_catalogue", provider=provider_id, reason=error.reason)
            live = ()
        if provider.deployments:
            live = ()  # what Azure lists are models, and only a deployment can be asked
        return provider, list(dict.fromkeys((*provider.models, *live)))[:MODELS_SHOWN]

    async def may_choose(self, query: CallbackQuery, message: Message, bot: Bot) -> bool:
        """Whether somebody may choose for this chat; if not, they are told."""
        if not is_group(message) or await is_chat_admin(bot, message.chat.id, query.from_user.id):
            return True
        text = self._texts.get("model-group-admins-only", query.from_user.language_code)
        await self._delivery.answer_callback(query.id, text, alert=True)
        return False

    async def show(self, message: Message, text: str, markup: InlineKeyboardMarkup | None) -> None:
        """Put something else into the message."""
        await self._delivery.edit(message.chat.id, message.message_id, Rendered(text), markup=markup, final=True)


def model_router(
    *, delivery: Delivery, preferences: PreferenceStore, catalog: Catalog, fallback: LLMProviderFallback, texts: Texts
) -> Router:
    """The handlers of the picker."""
    router = Router(name="model")
    picker = _Picker(delivery, preferences, catalog, fallback, texts)

    @router.message(Command("model"))
    async def model(message: Message) -> None:
        language = message.from_user.language_code if message.from_user is not None else None
        await reply_to(delivery, message, *await picker.opened(message, language))

    @router.callback_query(PickProvider.filter())
    async def pick_provider(query: CallbackQuery, callback_data: PickProvider, bot: Bot) -> None:
        message, language = query.message, query.from_user.language_code
        if not isinstance(message, Message) or not await picker.may_choose(query, message, bot):
            return
        await delivery.answer_callback(query.id)
        found = await picker.models(callback_data.provider) if callback_data.provider else None
        text, markup = await picker.opened(message, language)
        if found is not None:
            markup = models_keyboard(texts, language, found[0].id, found[1])
        await picker.show(message, text, markup)

    @router.callback_query(PickModel.filter())
    async def pick_model(query: CallbackQuery, callback_data: PickModel, bot: Bot) -> None:
        message, language = query.message, query.from_user.language_code
        if not isinstance(message, Message) or not await picker.may_choose(query, message, bot):
            return
        found = await picker.models(callback_data.provider)
        name = next((name for name in found[1] if checksum(name) == callback_data.check), None) if found else None
        if found is None or name is None:
            await delivery.answer_callback(query.id, texts.get("model-gone", language), alert=True)
            return
        await preferences.set_model(conversation_key(message).chat_ref, found[0].id, name)
        log.info("model.chosen", provider=found[0].id, model=name, chat_id=message.chat.id)
        await delivery.answer_callback(query.id)
        await picker.show(message, texts.get("model-set", language, provider=found[0].id, model=name), None)

    @router.callback_query(Automatic.filter())
    async def automatic(query: CallbackQuery, bot: Bot) -> None:
        message, language = query.message, query.from_user.language_code
        if not isinstance(message, Message) or not await picker.may_choose(query, message, bot):
            return
        await preferences.clear_model(conversation_key(message).chat_ref)
        await delivery.answer_callback(query.id)
        await picker.show(message, texts.get("model-automatic-set", language), None)

    @router.callback_query(Footers.filter())
    async def footers(query: CallbackQuery, callback_data: Footers, bot: Bot) -> None:
        message, language = query.message, query.from_user.language_code
        if not isinstance(message, Message) or not await picker.may_choose(query, message, bot):
            return
        await preferences.set_footers(conversation_key(message).chat_ref, shown=callback_data.shown)
        key = "footers-shown" if callback_data.shown else "footers-hidden"
        await delivery.answer_callback(query.id, texts.get(key, language))
        await picker.show(message, *await picker.opened(message, language))

    return router
