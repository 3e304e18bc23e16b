"""Handlers of `/settings`, `/language` and `/persona`: one card of a chat's choices with its pages."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self, cast, get_args

import structlog
from aiogram import Router
from aiogram.filters import CommandObject
from aiogram.filters.callback_data import CallbackData
from aiogram.types import CallbackQuery, InlineKeyboardButton, InlineKeyboardMarkup, Message
from pydantic import model_validator

from bot.telegram.answers.keyboards import build_keyboard, button
from bot.telegram.api.filters import Command
from bot.telegram.api.group_admins import GroupAdmins
from bot.telegram.api.updates import conversation_key, is_group, message_speaker
from bot.telegram.delivery.delivery import Delivery
from bot.telegram.delivery.replies import edit_text, reply_to
from bot.telegram.handlers.button_guards import ChatAdminsOnly
from core.i18n import Texts
from core.messages import ChatRef, Surface, UserRef, user_ref
from services.chat import personas
from services.chat.store.thread_list import ThreadList
from services.chat.store.turns import TurnStore
from services.moderation.domain.ports import Standing
from services.preferences import ChatPreferences, Languages, PreferenceStore, StreamMode, VoiceReplies

log = structlog.get_logger()

GROUP_ADMINS_ONLY = "settings-group-admins-only"
_VALUES = {
    "page": frozenset({"home", "language", "persona"}),
    "stream": frozenset(get_args(StreamMode)),
    "footers": frozenset({"0", "1"}),
    "voice": frozenset(get_args(VoiceReplies)),
    "persona": frozenset({"", *personas.BUILT_IN}),
    "thread": frozenset({"", *personas.BUILT_IN}),
}
"""Values of each setting; those of `language` are the languages of the texts, and none."""


class ChooseSetting(CallbackData, prefix="set"):
    """Sets a setting of the chat in which it is pressed, the persona of its `thread`, or turns to a page."""

    what: str
    value: str

    @model_validator(mode="after")
    def _check_value(self) -> Self:
        if self.what != "language" and self.value not in _VALUES.get(self.what, ()):
            raise ValueError("not a value of this setting")
        return self


@dataclass(frozen=True, slots=True)
class ChoiceDefaults:
    """Defaults of a chat without choices, and the choices that the card offers.

    Args:
        stream_mode: STREAM_MODE.
        speaks: whether a provider turns answers into speech.
    """

    stream_mode: StreamMode = "edit"
    speaks: bool = False


class ChoiceHandlers:
    """Shows and stores the choices of a chat; in a group only its admins may change them."""

    def __init__(
        self,
        *,
        delivery: Delivery,
        preferences: PreferenceStore,
        languages: Languages,
        threads: ThreadList,
        turns: TurnStore,
        admins: GroupAdmins,
        texts: Texts,
        defaults: ChoiceDefaults,
    ) -> None:
        self._delivery = delivery
        self._preferences = preferences
        self._languages = languages
        self._threads = threads
        self._turns = turns
        self._admins = admins
        self._texts = texts
        self._defaults = defaults

    def router(self) -> Router:
        """Returns the router."""
        router = Router(name="choices")
        router.callback_query.middleware(ChatAdminsOnly(self._admins, self._delivery, self._texts, GROUP_ADMINS_ONLY))
        router.message.register(self.show_settings, Command("settings"))
        router.message.register(self.show_languages, Command("language"))
        router.message.register(self.show_personas, Command("persona"))
        router.callback_query.register(self.choose, ChooseSetting.filter())
        return router

    async def show_settings(self, message: Message) -> None:
        """Sends the card."""
        language = message_speaker(message).language
        await reply_to(self._delivery, message, *await self._render_home(message, language))

    async def show_languages(self, message: Message, command: CommandObject) -> None:
        """Sends the languages, or sets the one that is named: `/language ru`."""
        language = message_speaker(message).language
        wanted = (command.args or "").strip().lower()
        if wanted not in self._texts.languages:
            await reply_to(self._delivery, message, *self._render_languages(message, language))
        elif await self._may_change(message, language):
            await self._languages.choose(_owner(message), wanted)
            await reply_to(self._delivery, message, self._texts.get("language-set", wanted))

    async def show_personas(self, message: Message, command: CommandObject) -> None:
        """Sends the personas, or sets own instructions for this conversation: `/persona TEXT`."""
        language = message_speaker(message).language
        instructions = personas.own(command.args or "")
        if instructions is None:
            await reply_to(self._delivery, message, *await self._render_personas(message, language, of_thread=True))
        elif await self._may_change(message, language):
            await self._set_thread_persona(message, instructions)
            await reply_to(self._delivery, message, self._texts.get("persona-own-set", language))

    async def choose(self, query: CallbackQuery, callback_data: ChooseSetting) -> None:
        """Stores a choice, then shows the page anew."""
        message, language = query.message, query.from_user.language_code
        await self._delivery.answer_callback(query.id)
        if not isinstance(message, Message):
            return
        scope, value = conversation_key(message).chat_ref, callback_data.value
        match callback_data.what:
            case "page":
                await edit_text(self._delivery, message, *await self._render_page(message, language, value))
                return
            case "language":
                if value and value not in self._texts.languages:
                    return
                await self._languages.choose(_owner(message), value or None)
                language = value or language
            case "stream":
                await self._preferences.set_stream_mode(scope, cast("StreamMode", value))  # as `_VALUES` checked
            case "footers":
                await self._preferences.set_footers(scope, shown=value == "1")
            case "voice":
                await self._preferences.set_voice_replies(scope, cast("VoiceReplies", value))  # as above
            case "persona":
                await self._preferences.set_persona(scope, personas.built_in(value) if value else None)
            case _:
                await self._set_thread_persona(message, personas.built_in(value))
        log.info("settings.changed", what=callback_data.what, chat_id=message.chat.id, user_id=query.from_user.id)
        if callback_data.what == "thread":
            page = await self._render_personas(message, language, of_thread=True)
        else:
            page = await self._render_home(message, language)
        await edit_text(self._delivery, message, *page)

    async def _set_thread_persona(self, message: Message, stored: str) -> None:
        key = conversation_key(message)
        await self._threads.set_persona(key, (await self._turns.current(key)).id, stored)

    async def _may_change(self, message: Message, language: str | None) -> bool:
        """Returns whether the author may change the chat; if not, they are told."""
        standing = await self._admins.fetch_author_standing(message) if is_group(message) else Standing.ADMIN
        if standing is Standing.ADMIN:
            return True
        denial = "rights-unknown" if standing is Standing.UNKNOWN else GROUP_ADMINS_ONLY
        await reply_to(self._delivery, message, self._texts.get(denial, language))
        return False

    async def _render_page(self, message: Message, language: str | None, page: str) -> tuple[str, InlineKeyboardMarkup]:
        match page:
            case "language":
                return self._render_languages(message, language)
            case "persona":
                return await self._render_personas(message, language, of_thread=False)
            case _:
                return await self._render_home(message, language)

    async def _render_home(self, message: Message, language: str | None) -> tuple[str, InlineKeyboardMarkup]:
        """Renders the card: a button for each setting, with its value."""
        texts, chosen = self._texts, await self._preferences.get(conversation_key(message).chat_ref)
        rows = [
            self._next_row("stream", self._stream_modes(message), self._stream_mode(chosen), language),
            self._next_row("footers", ("0", "1"), "1" if chosen.footers else "0", language),
        ]
        if self._defaults.speaks:
            voice = chosen.voice_replies or "never"
            rows.append(self._next_row("voice", get_args(VoiceReplies), voice, language))
        tag = self._languages.chosen.get(_owner(message))
        names = {
            "language": texts.get("language-name" if tag is not None else "language-automatic", tag or language),
            "persona": personas.describe(texts, chosen.persona, language),
        }
        rows += [
            [button(texts.get(f"settings-{page}", language, value=name), ChooseSetting(what="page", value=page))]
            for page, name in names.items()
        ]
        title = "settings-title-group" if is_group(message) else "settings-title"
        return texts.get(title, language), build_keyboard(rows)

    def _next_row(
        self, what: str, values: Sequence[str], current: str, language: str | None
    ) -> list[InlineKeyboardButton]:
        """Builds the button of a setting with few values: it shows the current one, and a press sets the next."""
        following = values[(values.index(current) + 1) % len(values)] if current in values else values[0]
        value = self._texts.get(f"settings-{what}-{current}", language)
        label = self._texts.get(f"settings-{what}", language, value=value)
        return [button(label, ChooseSetting(what=what, value=following))]

    def _stream_mode(self, chosen: ChatPreferences) -> str:
        return chosen.stream_mode or self._defaults.stream_mode

    @staticmethod
    def _stream_modes(message: Message) -> tuple[str, ...]:
        # A group has no drafts.
        return ("edit", "off") if is_group(message) else get_args(StreamMode)

    def _render_languages(self, message: Message, language: str | None) -> tuple[str, InlineKeyboardMarkup]:
        current = self._languages.chosen.get(_owner(message))
        rows = [
            [
                button(
                    _mark(self._texts.get("language-name", tag), is_current=tag == current),
                    ChooseSetting(what="language", value=tag),
                )
            ]
            for tag in self._texts.languages
        ]
        automatic = _mark(self._texts.get("language-automatic", language), is_current=current is None)
        rows.append([button(automatic, ChooseSetting(what="language", value=""))])
        rows.append([button(self._texts.get("button-back", language), ChooseSetting(what="page", value="home"))])
        title = "language-title-group" if is_group(message) else "language-title"
        return self._texts.get(title, language), build_keyboard(rows)

    async def _render_personas(
        self, message: Message, language: str | None, *, of_thread: bool
    ) -> tuple[str, InlineKeyboardMarkup]:
        """Renders the personas: of the current conversation, or of all that begin anew in this chat."""
        texts, key = self._texts, conversation_key(message)
        stored = (await self._preferences.get(key.chat_ref)).persona
        if of_thread and (own := (await self._turns.current(key)).persona) is not None:
            stored = own
        current, what = personas.persona_id(stored), "thread" if of_thread else "persona"
        rows = [
            [
                button(
                    _mark(texts.get(f"persona-{each}-name", language), is_current=each == current),
                    ChooseSetting(what=what, value=each),
                )
            ]
            for each in personas.BUILT_IN
        ]
        standard = _mark(texts.get("persona-standard", language), is_current=current == "")
        rows.append([button(standard, ChooseSetting(what=what, value=""))])
        if not of_thread:
            rows.append([button(texts.get("button-back", language), ChooseSetting(what="page", value="home"))])
        about = "\n".join(texts.get(f"persona-{each}-about", language) for each in personas.BUILT_IN)
        title = texts.get(f"persona-title-{what}", language, current=personas.describe(texts, stored, language))
        return f"{title}\n\n{about}", build_keyboard(rows)


def _owner(message: Message) -> UserRef | ChatRef:
    """Returns the owner of the language of a chat: the group, or in a private chat the person, over all chats."""
    return conversation_key(message).chat_ref if is_group(message) else user_ref(Surface.TELEGRAM, message.chat.id)


def _mark(label: str, *, is_current: bool) -> str:
    return f"✓ {label}" if is_current else label
