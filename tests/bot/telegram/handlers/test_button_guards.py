"""ButtonBorder: callback data that no button of the bot carries never reaches a handler."""

import pytest
from aiogram.types import CallbackQuery, User
from hypothesis import given
from hypothesis import strategies as st

import bot.composition.telegram  # noqa: F401 - defines every kind of button
from bot.telegram.answers.keyboards import RetryAnswer
from bot.telegram.delivery.delivery import Delivery
from bot.telegram.handlers.button_guards import LARGEST_NUMBER, ButtonBorder, find_button_kinds, parse_button
from core.i18n import Texts
from tests.support.fake_telegram.server import TelegramServer
from tests.support.fake_telegram.traffic import Traffic

KINDS = find_button_kinds()
TEXTS = Texts(strict=True)


@pytest.mark.parametrize(
    "data",
    [
        None,
        "",
        "stop",
        "stop:",
        # Not a number of the database.
        "retry:99999999999999999999",
        f"retry:{LARGEST_NUMBER + 1}",
        "thrs:-5",
        # Numbers that Python reads and the bot never writes.
        "retry:+5",
        "retry:05",
        "retry: 5",
        "retry:5_0",
        "retry:5.0",
        "retry:1e3",
        "retry:٥",
        "retry:５",
        # Another kind's prefix, another number of fields, no kind at all.
        "retry:5:1",
        "with:5",
        "inc:5:undo",
        "nothing:5",
        "RETRY:5",
        # Values outside their sets.
        "foot:yes",
        "inc:delete:5",
        "mod:mode:loud",
        "mod:owner:me",
        # Longer than Telegram's limit, and control characters.
        "prov:" + "x" * 60,
        "prov:a\x00b",
        "prov:\ud83d",
    ],
)
def test_parse_button_refuses_forged_data(data: str | None) -> None:
    assert parse_button(data, KINDS) is None


def test_parse_button_accepts_the_largest_number() -> None:
    assert parse_button(f"retry:{LARGEST_NUMBER}", KINDS) == RetryAnswer(turn=LARGEST_NUMBER)


@given(
    prefix=st.sampled_from([*sorted(KINDS), ""]),
    rest=st.text(max_size=64)
    | st.lists(st.integers() | st.text(max_size=10), max_size=4).map(lambda parts: ":".join(map(str, parts))),
)
def test_parse_button_returns_bounded_data_or_none(prefix: str, rest: str) -> None:
    """Over all registered prefixes with arbitrary text."""
    data = f"{prefix}:{rest}"
    button = parse_button(data, KINDS)
    if button is not None:
        assert button.pack() == data
        assert all(0 <= value <= LARGEST_NUMBER for _, value in button if isinstance(value, int))


@pytest.mark.parametrize(("data", "is_handled"), [("retry:5", True), ("retry:99999999999999999999", False)])
async def test_border_answers_a_refused_press(
    traffic: Traffic, server: TelegramServer, delivery: Delivery, data: str, *, is_handled: bool
) -> None:
    """And passes others on."""
    handled: list[str | None] = []

    async def handle(query: object, _: object) -> None:
        assert isinstance(query, CallbackQuery)
        handled.append(query.data)

    server._queries.add("9")
    query = CallbackQuery(id="9", from_user=User(id=7, is_bot=False, first_name="Ann"), chat_instance="1", data=data)
    await traffic.run(ButtonBorder(delivery, TEXTS)(handle, query, {}))
    assert handled == ([data] if is_handled else [])
    answers = {} if is_handled else {"9": TEXTS.get("press-invalid", "en")}
    assert {id_: answer["text"] for id_, answer in server.callback_answers.items()} == answers
