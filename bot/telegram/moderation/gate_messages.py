"""Messages at the join gate: the notice in the group, the question in private, the card of a raid."""

import re
from typing import Literal

from aiogram.filters.callback_data import CallbackData
from aiogram.methods import ApproveChatJoinRequest
from aiogram.types import InlineKeyboardButton, InlineKeyboardMarkup

from bot.telegram.answers.keyboards import build_keyboard, button
from bot.telegram.api.client import KnownBot
from bot.telegram.delivery.delivery import Delivery
from bot.telegram.markdown.render import Rendered
from bot.telegram.moderation.cards import IncidentCards
from core.i18n import Texts
from services.moderation.domain.ports import CardLocation
from services.moderation.domain.settings import GroupSettings
from services.moderation.newcomers.gate import Question
from services.moderation.newcomers.store import Entry, Gate

START_PREFIX = "gate_"
"""Argument of `/start` that leads from the notice in a group to its question."""
PRESS_PREFIX = "gate"
_GROUP = re.compile(rf"{START_PREFIX}(-[0-9]{{1,18}})")
"""Ids have less than 64 bits: databases store no larger ones."""


class GatePress(CallbackData, prefix=PRESS_PREFIX):
    """A press at the gate of a group: passes, answers with a value, or ends the raid.

    Args:
        group: the group's id without its sign: the data of buttons has no negative numbers.
    """

    what: Literal["pass", "answer", "end"]
    group: int
    value: int = 0

    @property
    def group_id(self) -> int:
        """The id of the group."""
        return -self.group


def read_group(argument: str | None) -> int | None:
    """Returns the group in the argument of `/start`; None for another argument."""
    found = _GROUP.fullmatch(argument or "")
    return None if found is None else int(found[1])


class GateMessages:
    """Posts and edits the messages."""

    def __init__(self, bot: KnownBot, delivery: Delivery, cards: IncidentCards, texts: Texts) -> None:
        self._bot = bot
        self._delivery = delivery
        self._cards = cards
        self._texts = texts

    async def post_notice(self, settings: GroupSettings, gate: Gate) -> int | None:
        """Posts the message with the button in the group; returns its id, None if it was not accepted."""
        language, group_id = settings.language, settings.group_id
        if gate is Gate.QUESTION:
            text = self._texts.get("moderation-gate-notice-question", language)
            me = await self._bot.me()
            address = f"https://t.me/{me.username}?start={START_PREFIX}{group_id}"
            label = self._texts.get("button-gate-question", language)
            markup = build_keyboard([[InlineKeyboardButton(text=label, url=address)]])
        else:
            text = self._texts.get("moderation-gate-notice-button", language)
            markup = self._pass_button(settings)
        sent = await self._delivery.send(group_id, Rendered(text), markup=markup)
        return None if sent is None else sent.message_id

    async def delete_notice(self, group_id: int, message_id: int) -> None:
        """Deletes that message."""
        await self._delivery.delete(group_id, message_id)

    async def ask_in_private(self, settings: GroupSettings, chat_id: int, question: Question | None) -> bool:
        """Asks a person in private to answer, or to press a button; returns whether the message arrived."""
        language = settings.language
        if question is None:
            text, markup = self._texts.get("moderation-gate-ask-button", language), self._pass_button(settings)
        else:
            text = self._texts.get("moderation-gate-ask", language, sum=question.text)
            row = [
                button(str(value), GatePress(what="answer", group=-settings.group_id, value=value))
                for value in question.answers
            ]
            markup = build_keyboard([row])
        return await self._delivery.send(chat_id, Rendered(text), markup=markup) is not None

    async def show_raid(self, settings: GroupSettings, entry: Entry) -> CardLocation | None:
        """Posts a raid's card to the admins."""
        key = "moderation-raid-dry" if settings.is_dry else "moderation-raid"
        text = Rendered(self._texts.get(key, settings.language, joins=entry.raid_joins))
        label = self._texts.get("button-raid-end", settings.language)
        markup = build_keyboard([[button(label, GatePress(what="end", group=-settings.group_id))]])
        for chat_id in dict.fromkeys((await self._cards.locate(settings), settings.group_id)):
            sent = await self._delivery.send(chat_id, text, markup=markup)
            if sent is not None:
                return CardLocation(sent.chat_id, sent.message_id)
        return None

    async def end_raid(self, settings: GroupSettings, entry: Entry, passed: int) -> None:
        """Edits a raid's card to its end."""
        if entry.card is not None:
            text = self._texts.get("moderation-raid-over", settings.language, joins=entry.raid_joins, passed=passed)
            await self._delivery.edit(*entry.card, Rendered(text), markup=None, final=False)

    async def approve(self, group_id: int, user_id: int) -> bool:
        """Approves a request to join; returns whether Telegram did."""
        return await self._delivery.attempt(ApproveChatJoinRequest(chat_id=group_id, user_id=user_id), group_id) is None

    def _pass_button(self, settings: GroupSettings) -> InlineKeyboardMarkup:
        label = self._texts.get("button-gate-pass", settings.language)
        return build_keyboard([[button(label, GatePress(what="pass", group=-settings.group_id))]])
