"""The buttons, and what they carry."""

import pytest

from bot.telegram.answers.keyboards import (
    PickModel,
    RetryWith,
    answer_keyboard,
    checksum,
    desk_keyboard,
    elsewhere_keyboard,
    models_keyboard,
    providers_keyboard,
    stop_keyboard,
)
from core.i18n import Texts

TEXTS = Texts(strict=True)
LONGEST_ID = "p" * 32
"""The longest id that the settings take."""
LAST_TURN = 2**63 - 1
LONG_MODEL = "accounts/somebody/models/" + "x" * 200


@pytest.mark.parametrize("language", [None, "en", "ru"])
def test_everything_fits_into_what_a_button_may_carry(language: str | None) -> None:
    """Telegram takes 1 to 64 bytes, and shows about as much text."""
    keyboards = [
        stop_keyboard(TEXTS, language, LAST_TURN),
        answer_keyboard(TEXTS, language, LAST_TURN, elsewhere=True),
        elsewhere_keyboard(TEXTS, language, LAST_TURN, [LONGEST_ID]),
        providers_keyboard(TEXTS, language, [LONGEST_ID], footers=False),
        providers_keyboard(TEXTS, language, [LONGEST_ID], footers=True),
        models_keyboard(TEXTS, language, LONGEST_ID, [LONG_MODEL, "mödel"]),
        desk_keyboard([LONGEST_ID]),
    ]
    buttons = [button for keyboard in keyboards for row in keyboard.inline_keyboard for button in row]
    assert all(1 <= len((button.callback_data or "").encode()) <= 64 for button in buttons)
    assert all(1 <= len(button.text) <= 64 for button in buttons)


def test_what_is_pressed_comes_back_as_it_was() -> None:
    data = RetryWith(turn=LAST_TURN, provider="my-llm_2").pack()
    assert RetryWith.unpack(data) == RetryWith(turn=LAST_TURN, provider="my-llm_2")


def test_models_that_look_alike_on_a_button_are_told_apart() -> None:
    first, second, back = (
        row[0] for row in models_keyboard(TEXTS, "en", "a", [LONG_MODEL, f"{LONG_MODEL}2"]).inline_keyboard
    )
    assert first.text == second.text
    assert first.callback_data != second.callback_data
    assert PickModel.unpack(first.callback_data or "").check == checksum(LONG_MODEL)
    assert back.text == "Back"


def test_retry_elsewhere_needs_an_elsewhere() -> None:
    def labels(*, elsewhere: bool) -> list[str]:
        return [button.text for button in answer_keyboard(TEXTS, "en", 1, elsewhere=elsewhere).inline_keyboard[0]]

    assert labels(elsewhere=True) == ["Retry", "Retry elsewhere"]
    assert labels(elsewhere=False) == ["Retry"]
