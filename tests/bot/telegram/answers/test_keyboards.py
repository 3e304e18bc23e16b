"""Keyboards of answers."""

import pytest

from bot.telegram.answers.keyboards import (
    ROW_CHARACTERS,
    StopAnswer,
    build_keyboard,
    button,
    consent_keyboard,
    stop_keyboard,
)
from bot.telegram.answers.responder import answer_keyboard
from core.i18n import Texts

TEXTS = Texts(strict=True)
LAST_TURN = 2**63 - 1


@pytest.mark.parametrize("language", [None, "en", "ru"])
def test_buttons_fit_telegrams_limits(language: str | None) -> None:
    """Telegram accepts 1 to 64 bytes of callback data, and displays about as much text."""
    keyboards = [
        stop_keyboard(TEXTS, language, LAST_TURN),
        answer_keyboard(TEXTS, language, LAST_TURN, elsewhere=True),
        consent_keyboard(TEXTS, language, LAST_TURN),
    ]
    buttons = [button for keyboard in keyboards for row in keyboard.inline_keyboard for button in row]
    assert all(1 <= len((button.callback_data or "").encode()) <= 64 for button in buttons)
    assert all(1 <= len(button.text) <= 64 for button in buttons)


@pytest.mark.parametrize("language", Texts(strict=True).languages)
def test_labels_of_the_answer_keyboard_fit_in_a_row(language: str) -> None:
    [row] = answer_keyboard(TEXTS, language, LAST_TURN, elsewhere=True).inline_keyboard
    assert len(row) * max(len(each.text) for each in row) <= ROW_CHARACTERS


@pytest.mark.parametrize(
    ("labels", "rows"),
    [
        (["force a", "test a", "cooldown", "reset"], [["force a", "test a", "cooldown", "reset"]]),
        (
            ["выбрать openai", "проверить openai", "пауза", "сброс"],
            [["выбрать openai", "проверить openai"], ["пауза", "сброс"]],
        ),
        (["x" * 30, "y" * 30, "z"], [["x" * 30], ["y" * 30], ["z"]]),
        (["x" * 64], [["x" * 64]]),
    ],
)
def test_a_row_that_a_phone_would_cut_off_is_parted(labels: list[str], rows: list[list[str]]) -> None:
    keyboard = build_keyboard([[button(label, StopAnswer(number=1)) for label in labels]])
    assert [[each.text for each in row] for row in keyboard.inline_keyboard] == rows


def test_answer_keyboard_offers_retry_elsewhere_only_with_several_providers() -> None:
    def labels(*, elsewhere: bool) -> list[str]:
        return [button.text for button in answer_keyboard(TEXTS, "en", 1, elsewhere=elsewhere).inline_keyboard[0]]

    assert labels(elsewhere=True) == ["Retry", "Retry elsewhere"]
    assert labels(elsewhere=False) == ["Retry"]
