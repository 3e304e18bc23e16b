"""Keyboards of the handlers, and the callback data of buttons in old messages."""

import pytest
from aiogram.filters.callback_data import CallbackData

from bot.telegram.answers.keyboards import DecideConsent, RetryAnswer, ShowRetryProviders, StopAnswer
from bot.telegram.handlers.models import (
    PickAutomatic,
    PickModel,
    PickProvider,
    SwitchFooters,
    checksum,
    models_keyboard,
    providers_keyboard,
)
from bot.telegram.handlers.operators import DeadLetterAction, ProviderAction, dead_letters_keyboard, provider_keyboard
from bot.telegram.handlers.retry import RetryWithProvider, ShowAnswerButtons, elsewhere_keyboard
from bot.telegram.handlers.threads import (
    DeleteThread,
    OpenThread,
    ShowThread,
    ShowThreadPage,
    thread_keyboard,
    threads_keyboard,
)
from bot.telegram.moderation.cards import ResolveIncident
from bot.telegram.moderation.settings_card import ChangeSetting
from core.i18n import Texts
from services.moderation.domain.incident import Resolution

TEXTS = Texts(strict=True)
LONGEST_ID = "p" * 32
"""The longest id that the settings accept."""
LARGEST_ID = 2**63 - 1
LONG_MODEL = "accounts/somebody/models/" + "x" * 200


@pytest.mark.parametrize("language", [None, "en", "ru"])
def test_buttons_fit_telegrams_limits(language: str | None) -> None:
    """Telegram accepts 1 to 64 bytes of callback data, and displays about as much text."""
    keyboards = [
        elsewhere_keyboard(TEXTS, language, LARGEST_ID, [LONGEST_ID]),
        providers_keyboard(TEXTS, language, [LONGEST_ID], footers=False),
        providers_keyboard(TEXTS, language, [LONGEST_ID], footers=True),
        models_keyboard(TEXTS, language, LONGEST_ID, [LONG_MODEL, "mödel"]),
        threads_keyboard(TEXTS, language, [(LARGEST_ID, "x" * 100)], newer=0, older=LARGEST_ID),
        thread_keyboard(TEXTS, language, LARGEST_ID, sure=False),
        thread_keyboard(TEXTS, language, LARGEST_ID, sure=True),
        provider_keyboard(TEXTS, None, [LONGEST_ID]),
        dead_letters_keyboard(TEXTS, None, [LARGEST_ID]),
    ]
    buttons = [button for keyboard in keyboards if keyboard for row in keyboard.inline_keyboard for button in row]
    assert all(1 <= len((button.callback_data or "").encode()) <= 64 for button in buttons)
    assert all(1 <= len(button.text) <= 64 for button in buttons)


@pytest.mark.parametrize(
    ("packed", "data"),
    [
        ("stop:5", StopAnswer(number=5)),
        ("retry:5", RetryAnswer(turn=5)),
        ("else:5", ShowRetryProviders(turn=5)),
        ("back:5", ShowAnswerButtons(turn=5)),
        ("with:5:my-llm_2", RetryWithProvider(turn=5, provider="my-llm_2")),
        (f"with:{LARGEST_ID}:my-llm_2", RetryWithProvider(turn=LARGEST_ID, provider="my-llm_2")),
        ("prov:", PickProvider(provider="")),
        ("model:a:0badcafe", PickModel(provider="a", check="0badcafe")),
        ("auto", PickAutomatic()),
        ("foot:1", SwitchFooters(shown=True)),
        ("thrs:8", ShowThreadPage(offset=8)),
        ("thr:5:0", ShowThread(thread=5)),
        ("thro:5", OpenThread(thread=5)),
        ("thrd:5", DeleteThread(thread=5)),
        ("cons:5:1", DecideConsent(turn=5, granted=True)),
        ("desk:force:a", ProviderAction(act="force", provider="a")),
        ("desk::", ProviderAction(act="", provider="")),
        ("dead:replay:5", DeadLetterAction(act="replay", number=5)),
        ("inc:undo:5", ResolveIncident(what=Resolution.UNDO, incident=5)),
        ("mod:mode:dry", ChangeSetting(what="mode", value="dry")),
    ],
)
def test_callback_data_of_old_messages_still_parses(packed: str, data: CallbackData) -> None:
    """The prefix and the field order are stored in every message with a button."""
    assert data.pack() == packed
    assert type(data).unpack(packed) == data


def test_models_with_equal_labels_have_different_callback_data() -> None:
    first, second, back = (
        row[0] for row in models_keyboard(TEXTS, "en", "a", [LONG_MODEL, f"{LONG_MODEL}2"]).inline_keyboard
    )
    assert first.text == second.text
    assert first.callback_data != second.callback_data
    assert PickModel.unpack(first.callback_data or "").check == checksum(LONG_MODEL)
    assert back.text == "Back"


def test_dead_letters_keyboard_is_none_for_an_empty_list() -> None:
    assert dead_letters_keyboard(TEXTS, None, []) is None
