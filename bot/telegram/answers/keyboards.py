"""The buttons, and what they carry (64 bytes at most)."""

import zlib
from collections.abc import Sequence

from aiogram.filters.callback_data import CallbackData
from aiogram.types import InlineKeyboardButton, InlineKeyboardMarkup

from core.i18n import Texts


class Stop(CallbackData, prefix="stop"):
    """Stop this answer."""

    number: int


class Retry(CallbackData, prefix="retry"):
    """Answer this turn again."""

    turn: int


class Elsewhere(CallbackData, prefix="else"):
    """Choose who answers this turn again."""

    turn: int


class Back(CallbackData, prefix="back"):
    """Show the buttons of an answer again."""

    turn: int


class RetryWith(CallbackData, prefix="with"):
    """Answer this turn again, asking this provider first."""

    turn: int
    provider: str


class PickProvider(CallbackData, prefix="prov"):
    """Show the models of a provider; an empty one is the list of providers."""

    provider: str


class PickModel(CallbackData, prefix="model"):
    """Answer this chat with this model. Its name may be too long for a button, so its checksum stands for it."""

    provider: str
    check: str


class Automatic(CallbackData, prefix="auto"):
    """Answer this chat by the order of the configuration."""


class Footers(CallbackData, prefix="foot"):
    """Say under each answer of this chat who gave it, or do not."""

    shown: bool


class ThreadPage(CallbackData, prefix="thrs"):
    """Show the threads of this chat from there on."""

    offset: int


class ThreadCard(CallbackData, prefix="thr"):
    """Show one thread; `sure` asks first whether it is to be thrown away."""

    thread: int
    sure: bool = False


class OpenThread(CallbackData, prefix="thro"):
    """Go on in this thread."""

    thread: int


class DropThread(CallbackData, prefix="thrd"):
    """Throw this thread away."""

    thread: int


class ConsentGiven(CallbackData, prefix="cons"):
    """Whether messages may go to remote providers; `turn` is the one that waits for it, or 0."""

    turn: int
    granted: bool


class Desk(CallbackData, prefix="desk"):
    """An act of `/provider`."""

    act: str
    provider: str


class Letter(CallbackData, prefix="dead"):
    """An act of `/dead`."""

    act: str
    number: int


def checksum(model: str) -> str:
    """A short stand-in for a model's name."""
    return f"{zlib.crc32(model.encode()):08x}"


def stop_keyboard(texts: Texts, language: str | None, number: int) -> InlineKeyboardMarkup:
    """Under an answer that is being made."""
    return _rows([[_button(texts.get("button-stop", language), Stop(number=number))]])


def answer_keyboard(texts: Texts, language: str | None, turn: int, *, elsewhere: bool) -> InlineKeyboardMarkup:
    """Under an answer that is done; `elsewhere` where there is more than one provider."""
    buttons = [_button(texts.get("button-retry", language), Retry(turn=turn))]
    if elsewhere:
        buttons.append(_button(texts.get("button-retry-elsewhere", language), Elsewhere(turn=turn)))
    return _rows([buttons])


def elsewhere_keyboard(texts: Texts, language: str | None, turn: int, providers: Sequence[str]) -> InlineKeyboardMarkup:
    """Who shall try."""
    rows = [[_button(provider, RetryWith(turn=turn, provider=provider))] for provider in providers]
    return _rows([*rows, [_button(texts.get("button-back", language), Back(turn=turn))]])


def providers_keyboard(
    texts: Texts, language: str | None, providers: Sequence[str], *, footers: bool
) -> InlineKeyboardMarkup:
    """Whose models; `footers` is whether answers say now who gave them."""
    rows = [[_button(provider, PickProvider(provider=provider))] for provider in providers]
    switch = _button(
        texts.get("button-hide-footers" if footers else "button-show-footers", language), Footers(shown=not footers)
    )
    return _rows([[_button(texts.get("button-automatic", language), Automatic())], *rows, [switch]])


def models_keyboard(texts: Texts, language: str | None, provider: str, models: Sequence[str]) -> InlineKeyboardMarkup:
    """Which model of a provider."""
    rows = [[_button(model[:60], PickModel(provider=provider, check=checksum(model)))] for model in models]
    return _rows([*rows, [_button(texts.get("button-back", language), PickProvider(provider=""))]])


def threads_keyboard(
    texts: Texts, language: str | None, threads: Sequence[tuple[int, str]], *, newer: int | None, older: int | None
) -> InlineKeyboardMarkup:
    """Which thread; `newer` and `older` are where the neighbouring pages begin, if there are any."""
    rows = [[_button(label[:60], ThreadCard(thread=thread))] for thread, label in threads]
    turn = [
        _button(texts.get(key, language), ThreadPage(offset=offset))
        for key, offset in (("button-newer", newer), ("button-older", older))
        if offset is not None
    ]
    return _rows([*rows, turn] if turn else rows)


def thread_keyboard(texts: Texts, language: str | None, thread: int, *, sure: bool) -> InlineKeyboardMarkup:
    """What can be done with a thread; `sure` is the question before it is thrown away."""
    if sure:
        back = _button(texts.get("button-back", language), ThreadCard(thread=thread))
        return _rows([[_button(texts.get("button-really-delete", language), DropThread(thread=thread)), back]])
    act = _button(texts.get("button-open", language), OpenThread(thread=thread))
    drop = _button(texts.get("button-delete", language), ThreadCard(thread=thread, sure=True))
    return _rows([[act, drop], [_button(texts.get("button-back", language), ThreadPage(offset=0))]])


def consent_keyboard(texts: Texts, language: str | None, turn: int) -> InlineKeyboardMarkup:
    """Under the question whether messages may go to remote providers."""
    return _rows(
        [
            [
                _button(texts.get("button-agree", language), ConsentGiven(turn=turn, granted=True)),
                _button(texts.get("button-decline", language), ConsentGiven(turn=turn, granted=False)),
            ]
        ]
    )


def desk_keyboard(providers: Sequence[str]) -> InlineKeyboardMarkup:
    """Under the table of `/provider`."""
    rows = [
        [_button(f"{act} {provider}", Desk(act=act, provider=provider)) for act in ("force", "test")]
        + [_button(act, Desk(act=act, provider=provider)) for act in ("cooldown", "reset")]
        for provider in providers
    ]
    everything = [_button("clear", Desk(act="clear", provider="")), _button("refresh", Desk(act="", provider=""))]
    return _rows([*rows, everything])


def letters_keyboard(numbers: Sequence[int]) -> InlineKeyboardMarkup | None:
    """Under the list of `/dead`."""
    rows = [
        [_button(f"{act} {number}", Letter(act=act, number=number)) for act in ("replay", "drop")] for number in numbers
    ]
    return _rows(rows) if rows else None


def _button(text: str, data: CallbackData) -> InlineKeyboardButton:
    return InlineKeyboardButton(text=text, callback_data=data.pack())


def _rows(rows: list[list[InlineKeyboardButton]]) -> InlineKeyboardMarkup:
    return InlineKeyboardMarkup(inline_keyboard=rows)
