"""Inline keyboards, the rows that some answers have, and the callback data of their buttons."""

from collections.abc import Sequence

from aiogram.filters.callback_data import CallbackData
from aiogram.types import InlineKeyboardButton, InlineKeyboardMarkup

from core.i18n import Texts
from services.chat.reply import AskedCall
from services.mcp.calls import Decision

ROW_CHARACTERS = 40
"""Characters of a row's labels that fit on a phone; Telegram truncates longer ones."""


class StopAnswer(CallbackData, prefix="stop"):
    """Stops the answer with this number."""

    number: int


class RetryAnswer(CallbackData, prefix="retry"):
    """Regenerates the answer of a turn."""

    turn: int


class ContinueAnswer(CallbackData, prefix="cont"):
    """Continues the answer of a turn that was cut at its length limit."""

    turn: int


class AnswerEdited(CallbackData, prefix="edit"):
    """Answers the edited question of a turn."""

    turn: int


class ShowRetryProviders(CallbackData, prefix="else"):
    """Shows the providers that can regenerate the answer of a turn."""

    turn: int


class SendPictureFile(CallbackData, prefix="pic"):
    """Sends a picture of a turn as a file."""

    turn: int
    number: int


class DecideConsent(CallbackData, prefix="cons"):
    """Grants or withholds remote consent; `turn` is the turn that waits for the decision, or 0."""

    turn: int
    granted: bool


class DecideCall(CallbackData, prefix="call"):
    """Allows or denies a call of a tool."""

    call: int
    decision: Decision


def approval_rows(texts: Texts, language: str | None, calls: Sequence[AskedCall]) -> list[list[InlineKeyboardButton]]:
    """Builds a row of decisions for each call that waits for its user; several are numbered as in the answer."""
    keys = {
        Decision.ONCE: "button-allow-once",
        Decision.ALWAYS: "button-allow-always",
        Decision.DENY: "button-deny",
    }
    return [
        [
            button(
                texts.label(key, language) + (f" {number}" if len(calls) > 1 else ""),
                DecideCall(call=call.id, decision=decision),
            )
            for decision, key in keys.items()
        ]
        for number, call in enumerate(calls, 1)
    ]


def stop_keyboard(texts: Texts, language: str | None, number: int) -> InlineKeyboardMarkup:
    """Builds the keyboard of an answer in progress."""
    return build_keyboard([[button(texts.label("button-stop", language), StopAnswer(number=number))]])


def continue_row(texts: Texts, language: str | None, turn: int, *, is_cut: bool) -> list[list[InlineKeyboardButton]]:
    """Builds the row above the others that continues an answer; no row if the answer is whole."""
    return [[button(texts.label("button-continue", language), ContinueAnswer(turn=turn))]] if is_cut else []


def has_continue_button(markup: InlineKeyboardMarkup | None) -> bool:
    """Returns whether a keyboard offers to continue its answer."""
    rows = markup.inline_keyboard if markup is not None else []
    prefix = f"{ContinueAnswer.__prefix__}{ContinueAnswer.__separator__}"
    return any((key.callback_data or "").startswith(prefix) for row in rows for key in row)


def consent_keyboard(texts: Texts, language: str | None, turn: int) -> InlineKeyboardMarkup:
    """Builds the keyboard of the remote consent question."""
    return build_keyboard(
        [
            [
                button(texts.label("button-agree", language), DecideConsent(turn=turn, granted=True)),
                button(texts.label("button-decline", language), DecideConsent(turn=turn, granted=False)),
            ]
        ]
    )


def button(text: str, data: CallbackData) -> InlineKeyboardButton:
    """Builds a button that sends callback data."""
    return InlineKeyboardButton(text=text, callback_data=data.pack())


def build_keyboard(rows: list[list[InlineKeyboardButton]]) -> InlineKeyboardMarkup:
    """Builds a keyboard of rows; one whose labels a phone would cut off is split."""
    return InlineKeyboardMarkup(inline_keyboard=[part for row in rows for part in _fit_row(row)])


def _fit_row(row: list[InlineKeyboardButton]) -> list[list[InlineKeyboardButton]]:
    # The buttons of a row have the same width.
    if len(row) == 1 or len(row) * max((len(each.text) for each in row), default=0) <= ROW_CHARACTERS:
        return [row]
    half = (len(row) + 1) // 2
    return [*_fit_row(row[:half]), *_fit_row(row[half:])]
