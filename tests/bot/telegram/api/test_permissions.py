"""Filter for the commands and buttons of operators."""

from typing import Any

from aiogram.types import CallbackQuery

from bot.telegram.api.permissions import FromOperator
from tests.support.fake_telegram.messages import ANN, BOB, GROUP, message, raw


def press(user: dict[str, Any], shown: dict[str, Any] | None) -> CallbackQuery:
    """Returns a button press under a message."""
    fields = {"id": "1", "chat_instance": "1", "from": user, "data": "x", "message": shown}
    return CallbackQuery.model_validate(fields)


async def test_from_operator_passes_only_admin_ids() -> None:
    from_operator = FromOperator(frozenset({ANN["id"]}))
    assert await from_operator(message("/provider"))
    assert await from_operator(press(ANN, raw("table")))
    assert not await from_operator(message("/provider", **{"from": BOB}))
    assert not await from_operator(press(BOB, raw("table")))
    # A message in the name of a chat has no user.
    assert not await from_operator(message("/provider", chat=GROUP, **{"from": None}))
