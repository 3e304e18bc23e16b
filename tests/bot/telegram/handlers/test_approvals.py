"""ApprovalHandlers: presses of several buttons of the same call."""

from collections.abc import Sequence
from typing import Any, cast

import pytest
from aiogram import Bot
from aiogram.types import CallbackQuery, Chat, InlineKeyboardMarkup, Message, User

from bot.telegram.answers.keyboards import DecideCall
from bot.telegram.handlers.approvals import ApprovalHandlers
from core.db.database import Database
from core.i18n import Texts
from core.messages import ConversationKey, Surface
from services.inbox.job import Job
from services.mcp.calls import CallStatus, Decision, ToolCalls
from tests.support.clock import ManualClock

pytestmark = pytest.mark.integration

TEXTS = Texts(strict=True)
ANN = User(id=7, is_bot=False, first_name="Ann", language_code="en")


class Jobs:
    """Stores the ids of jobs."""

    def __init__(self) -> None:
        self.ids: set[str] = set()

    async def put(self, jobs: Sequence[Job]) -> list[Job]:
        self.ids |= {job.id for job in jobs}
        return []


class Toasts:
    """Keeps the answers to presses. Calls over HTTP would need the clock moved while the database works in threads."""

    def __init__(self) -> None:
        self.shown: list[str | None] = []

    async def answer_callback(self, query_id: str, text: str | None = None, *, alert: bool = False) -> None:
        del query_id, alert
        self.shown.append(text)

    async def edit_markup(self, chat_id: int, message_id: int, markup: InlineKeyboardMarkup | None) -> bool:
        del chat_id, message_id, markup
        return True


@pytest.mark.parametrize(
    ("first", "second", "told"),
    [
        (Decision.ONCE, Decision.DENY, "call-allowed"),
        (Decision.ALWAYS, Decision.DENY, "call-allowed"),
        (Decision.DENY, Decision.ONCE, "call-denied"),
        (Decision.DENY, Decision.ALWAYS, "call-denied"),
    ],
)
async def test_a_second_press_is_told_what_the_first_decided(
    file: Database, clock: ManualClock, first: Decision, second: Decision, told: str
) -> None:
    calls, jobs, toasts = ToolCalls(file, clock), Jobs(), Toasts()
    unused = cast("Any", None)  # Any: parts that a press does not use
    handlers = ApprovalHandlers(
        bot=Bot("42:token"), calls=calls, tools=unused, inbox=jobs, responder=unused, delivery=cast("Any", toasts),
        texts=TEXTS, clock=clock,
    )  # fmt: skip
    key = ConversationKey(Surface.TELEGRAM, ANN.id)
    call, _ = await calls.open("job-1", key, ANN.id, "home", "light.on", {}, CallStatus.ASKED)
    asked = Message(message_id=3, date=clock.now(), chat=Chat(id=ANN.id, type="private"), text="Allow this?")
    for decision in (first, second):
        query = CallbackQuery(id="9", from_user=ANN, chat_instance="1", message=asked)
        await handlers.decide(query, DecideCall(call=call.id, decision=decision))
    assert toasts.shown == [TEXTS.get(told, "en")] * 2
    assert len(jobs.ids) == 1
    assert await calls.is_granted(Surface.TELEGRAM, ANN.id, "home", "light.on") is (first is Decision.ALWAYS)
