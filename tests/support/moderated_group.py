"""Harness of one moderated group: sends messages and commands, scripts the judge, reads cards and sanctions."""

import json
from datetime import timedelta
from itertools import count
from typing import Any

from sqlalchemy import func, select

from core.clock import SystemClock
from core.db.moderation_tables import ModerationIncidentRow, ModerationMemberRow
from services.moderation.domain.settings import GroupSettings, Mode
from services.moderation.records.groups import GroupStore
from tests.support.bot_harness import BotHarness
from tests.support.fake_llm.server import Answer, tool_call
from tests.support.fake_telegram.chats import JsonObject, Message

ADMIN, NEWCOMER, MEMBER, OTHER_NEWCOMER = 5001, 6001, 6002, 6003
ANONYMOUS, CHANNEL_BOT = 1087968824, 136817688
LINKED, FOREIGN = -900, -901
UNDO, CONFIRM, BAN = "Undo", "Confirm", "Ban"
JOB_SCAM = "Remote job! Earn from $500 a day, no experience. Write me +"
"""A newcomer's message that is risky enough to be sent to the judge."""

_numbers = count(1)


def verdict(category: str, confidence: int = 95, evidence: str | None = None, about: str = "author") -> Answer:
    """Returns a scripted answer of the judge."""
    arguments = {"category": category, "confidence": confidence, "about": about, "evidence": evidence}
    return tool_call("final_result", arguments)


class ModeratedGroup:
    """One group with an id of its own, so that scenarios can share a running bot."""

    def __init__(self, harness: BotHarness, kind: str = "supergroup") -> None:
        self.harness = harness
        self.id = -100_000 - next(_numbers)
        self.chat = harness.chat(self.id)
        self.chat.type = kind
        self.chat.admin_ids = {ADMIN, harness.telegram.bot_id}
        self.chat.linked_channel = LINKED

    async def open(self, mode: Mode = Mode.ENFORCE, **choices: Any) -> "ModeratedGroup":
        """Switches moderation on, and makes MEMBER an established member."""
        database, clock = self.harness.services.infra.database, SystemClock()
        await GroupStore(database, clock).change(GroupSettings(self.id), mode=mode, **choices)
        async with database.session() as session:
            long_ago = clock.now() - timedelta(days=30)
            session.add(ModerationMemberRow(group_id=self.id, member_id=MEMBER, first_seen=long_ago, meaningful=50))
        return self

    # Input.

    def send(self, text: str = "", by: int = NEWCOMER, **more: Any) -> Message:
        """Sends a message as a user."""
        return self.harness.says(text, self.id, user_id=by, name=more.pop("name", f"User {by}"), **more)

    def send_as_chat(self, text: str, chat_id: int, **extra: Any) -> Message:
        """Sends a message in the name of a chat: a channel, or the group itself."""
        kind = "supergroup" if chat_id == self.id else "channel"
        sender = {"id": chat_id, "type": kind, "title": "The Chat"}
        user = ANONYMOUS if chat_id == self.id else CHANNEL_BOT
        return self.send(text, user, extra={"sender_chat": sender, **extra})

    def forward(self, text: str, by: int = NEWCOMER) -> Message:
        """Forwards a message of a channel."""
        origin = {
            "type": "channel", "date": 1_800_000_000, "message_id": 1,
            "chat": {"id": FOREIGN, "type": "channel", "title": "Elsewhere"},
        }  # fmt: skip
        return self.send(text, by, extra={"forward_origin": origin})

    async def command(self, text: str, by: int = ADMIN, **more: Any) -> Message:
        """Sends a command and returns the bot's reply."""
        sent = self.send(text, by, **more)
        return await self.harness.seen(lambda message: message.reply_to == sent.id, self.id, after=sent.id)

    async def press(self, card: Message, button: str, by: int = ADMIN) -> str:
        """Presses a button and returns the callback answer."""
        return await self.harness.toast(self.harness.presses(card, button, by))

    # Output.

    async def wait_handled(self, message: Message, times: int = 1) -> dict[str, Any]:
        """Waits until `times` versions of a message were moderated; returns the log entry of the last one."""

        def entries() -> list[dict[str, Any]]:
            lines = (line for line in self.harness.log.splitlines() if "moderation.handled" in line)
            found = [json.loads(line) for line in lines]
            return [entry for entry in found if entry["group_id"] == self.id and entry["message_id"] == message.id]

        await self.harness.until(lambda: len(entries()) >= times, timeout=20)
        await self.wait_reported()
        return entries()[-1]

    async def wait_reported(self) -> None:
        """Waits until the incidents of the group are on cards, and its notices are sent."""
        row, database = ModerationIncidentRow, self.harness.services.infra.database
        unfinished = select(func.count()).where(row.group_id == self.id, row.finished_at.is_(None))
        for _ in range(400):
            await self.harness.quiet(0.05)
            async with database.reading() as session:
                if not await session.scalar(unfinished):
                    return
        raise AssertionError("an incident was not reported")

    async def moderate(self, text: str = "", by: int = NEWCOMER, **more: Any) -> Message:
        """Sends a message and waits until it was moderated."""
        message = self.send(text, by, **more)
        await self.wait_handled(message)
        return message

    @property
    def cards(self) -> list[Message]:
        """The incident cards in the group."""
        return [message for message in self.chat.answers() if _is_card(message)]

    async def card(self, number: int = 1) -> Message:
        """Waits for the incident card with this number, counted from 1."""
        await self.harness.until(lambda: len(self.cards) >= number)
        return self.cards[number - 1]

    async def wait_card_text(self, card: Message, text: str) -> None:
        """Waits until a card contains a text."""
        await self.harness.until(lambda: text in card.text)

    @property
    def actions(self) -> list[str]:
        """The Bot API methods of sanctions and deletions in this group, in order."""
        methods = {
            "deleteMessage", "deleteMessages", "restrictChatMember", "banChatMember", "banChatSenderChat",
            "unbanChatMember", "unbanChatSenderChat",
        }  # fmt: skip
        return [
            call.method for call in self.harness.telegram.calls if call.chat_id == self.id and call.method in methods
        ]


def url_button(url: str) -> JsonObject:
    """Returns a keyboard with one URL button."""
    return {"reply_markup": {"inline_keyboard": [[{"text": "More", "url": url}]]}}


def _is_card(message: Message) -> bool:
    text = message.text
    return text.startswith(("Done:", "Dry run", "Please review", "The message could not", "The author could not"))
