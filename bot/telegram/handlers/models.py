"""Handlers of `/model`: the model picker of a chat."""

import zlib
from collections.abc import Sequence

import structlog
from aiogram import Router
from aiogram.filters.callback_data import CallbackData
from aiogram.types import CallbackQuery, InlineKeyboardMarkup, Message

from bot.telegram.answers.keyboards import build_keyboard, button
from bot.telegram.api.filters import Command
from bot.telegram.api.group_admins import GroupAdmins
from bot.telegram.api.updates import conversation_key
from bot.telegram.delivery.delivery import Delivery
from bot.telegram.delivery.replies import edit_text, reply_to
from bot.telegram.handlers.button_guards import ChatAdminsOnly
from core.config.providers import ProviderSettings
from core.i18n import Texts
from services.llm.providers.catalog import Catalog, CatalogError
from services.llm.routing.fallback import LLMProviderFallback
from services.preferences import PreferenceStore

log = structlog.get_logger()

MODELS_SHOWN = 40
"""Models listed per provider; some catalogs have hundreds, and the configured models come first."""
CATALOG_TIMEOUT_S = 3.0


class PickProvider(CallbackData, prefix="prov"):
    """Shows the models of a provider; an empty id shows the list of providers."""

    provider: str


class PickModel(CallbackData, prefix="model"):
    """Selects a model for this chat, by the checksum of its name: the name may be too long for a button."""

    provider: str
    check: str


class PickAutomatic(CallbackData, prefix="auto"):
    """Selects models by the configured priority."""


class SwitchFooters(CallbackData, prefix="foot"):
    """Shows or hides the provider footer under the answers of this chat."""

    shown: bool


def checksum(model: str) -> str:
    """Returns the short form of a model name in callback data."""
    return f"{zlib.crc32(model.encode()):08x}"


def providers_keyboard(
    texts: Texts, language: str | None, providers: Sequence[str], *, footers: bool
) -> InlineKeyboardMarkup:
    """Builds the list of providers; `footers` is whether footers are shown now."""
    rows = [[button(provider, PickProvider(provider=provider))] for provider in providers]
    switch = button(
        texts.get("button-hide-footers" if footers else "button-show-footers", language),
        SwitchFooters(shown=not footers),
    )
    return build_keyboard([[button(texts.get("button-automatic", language), PickAutomatic())], *rows, [switch]])


def models_keyboard(texts: Texts, language: str | None, provider: str, models: Sequence[str]) -> InlineKeyboardMarkup:
    """Builds the list of a provider's models."""
    rows = [[button(model[:60], PickModel(provider=provider, check=checksum(model)))] for model in models]
    return build_keyboard([*rows, [button(texts.get("button-back", language), PickProvider(provider=""))]])


class ModelHandlers:
    """Shows the picker and stores the chat's choice."""

    def __init__(
        self,
        *,
        delivery: Delivery,
        preferences: PreferenceStore,
        catalog: Catalog,
        fallback: LLMProviderFallback,
        texts: Texts,
        admin_ids: frozenset[int],
    ) -> None:
        self._delivery = delivery
        self._preferences = preferences
        self._catalog = catalog
        self._fallback = fallback
        self._texts = texts
        self._admin_ids = admin_ids

    def router(self, admins: GroupAdmins) -> Router:
        """Returns the router; in a group only its admins may press the buttons."""
        router = Router(name="model")
        router.callback_query.middleware(ChatAdminsOnly(admins, self._delivery, self._texts, "model-group-admins-only"))
        router.message.register(self.open, Command("model"))
        router.callback_query.register(self.pick_provider, PickProvider.filter())
        router.callback_query.register(self.pick_model, PickModel.filter())
        router.callback_query.register(self.pick_automatic, PickAutomatic.filter())
        router.callback_query.register(self.switch_footers, SwitchFooters.filter())
        return router

    async def open(self, message: Message) -> None:
        """Sends the picker."""
        language = message.from_user.language_code if message.from_user is not None else None
        await reply_to(self._delivery, message, *await self._render(message, language))

    async def pick_provider(self, query: CallbackQuery, callback_data: PickProvider) -> None:
        """Shows a provider's models, or the providers again."""
        message, language = query.message, query.from_user.language_code
        if not isinstance(message, Message):
            return
        await self._delivery.answer_callback(query.id)
        found = await self._list_models(callback_data.provider, query.from_user.id) if callback_data.provider else None
        text, markup = await self._render(message, language)
        if found is not None:
            provider, models = found
            markup = models_keyboard(self._texts, language, provider.id, models)
        await edit_text(self._delivery, message, text, markup)

    async def pick_model(self, query: CallbackQuery, callback_data: PickModel) -> None:
        """Stores a model as the chat's choice."""
        message, language = query.message, query.from_user.language_code
        if not isinstance(message, Message):
            return
        found = await self._list_models(callback_data.provider, query.from_user.id)
        name = next((name for name in found[1] if checksum(name) == callback_data.check), None) if found else None
        if found is None or name is None:
            await self._delivery.answer_callback(query.id, self._texts.get("model-gone", language), alert=True)
            return
        provider = found[0].id
        await self._preferences.set_model(conversation_key(message).chat_ref, provider, name)
        log.info("model.chosen", provider=provider, model=name, chat_id=message.chat.id)
        await self._delivery.answer_callback(query.id)
        text = self._texts.get("model-set", language, provider=provider, model=name)
        await edit_text(self._delivery, message, text)

    async def pick_automatic(self, query: CallbackQuery) -> None:
        """Removes the chat's choice."""
        message, language = query.message, query.from_user.language_code
        if not isinstance(message, Message):
            return
        await self._preferences.clear_model(conversation_key(message).chat_ref)
        await self._delivery.answer_callback(query.id)
        await edit_text(self._delivery, message, self._texts.get("model-automatic-set", language))

    async def switch_footers(self, query: CallbackQuery, callback_data: SwitchFooters) -> None:
        """Shows or hides the footers of the chat."""
        message, language = query.message, query.from_user.language_code
        if not isinstance(message, Message):
            return
        await self._preferences.set_footers(conversation_key(message).chat_ref, shown=callback_data.shown)
        key = "footers-shown" if callback_data.shown else "footers-hidden"
        await self._delivery.answer_callback(query.id, self._texts.get(key, language))
        await edit_text(self._delivery, message, *await self._render(message, language))

    async def _render(self, message: Message, language: str | None) -> tuple[str, InlineKeyboardMarkup]:
        """Renders the picker's first page with the chat's current choice."""
        texts = self._texts
        chosen = await self._preferences.get(conversation_key(message).chat_ref)
        current = f"{chosen.provider} · {chosen.model}" if chosen.provider else texts.get("model-automatic", language)
        known = [provider.id for provider in self._fallback.providers]
        markup = providers_keyboard(texts, language, known, footers=bool(chosen.footers))
        return texts.get("model-title", language, current=current), markup

    async def _list_models(self, provider_id: str, user_id: int) -> tuple[ProviderSettings, list[str]] | None:
        """Returns a provider and the models that a user may pick; None if the provider is no longer configured.

        The configured ones come first.
        """
        provider = next((known for known in self._fallback.providers if known.id == provider_id), None)
        if provider is None:
            return None
        if not provider.live_models.is_open_to(is_admin=user_id in self._admin_ids):
            return provider, list(provider.models)[:MODELS_SHOWN]
        try:
            live = await self._catalog.recent_models(provider, timeout_s=CATALOG_TIMEOUT_S)
        except CatalogError as error:
            log.info("model.catalog_unavailable", provider=provider_id, reason=error.reason)
            live = ()
        if provider.deployments:
            live = ()  # Azure lists models, but only deployments can be requested
        return provider, list(dict.fromkeys((*provider.models, *live)))[:MODELS_SHOWN]
