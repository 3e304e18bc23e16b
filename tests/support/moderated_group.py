"""A moderated group on a stage: who is in it, what they say, what the judge answers, what is seen afterwards."""

import json
from datetime import timedelta
from itertools import count
from typing import Any

from core.clock import SystemClock
from core.db.moderation_tables import ModerationMemberRow
from services.moderation.domain.settings import GroupSettings, Mode
from services.moderation.records.groups import GroupStore
from tests.support.bot_harness import BotHarness
from tests.support.fake_llm.server import Answer, tool_call
from tests.support.fake_telegram.chats import JsonObject, Message

ADMIN, NEWCOMER, MEMBER, OTHER = 5001, 6001, 6002, 6003
ANONYMOUS, CHANNEL_BOT = 1087968824, 136817688
LINKED, FOREIGN = -900, -901
UNDO, CONFIRM, BAN = "Undo", "Confirm", "Ban"
JOB = "Remote job! Earn from $500 a day, no experience. Write me +"
"""What a newcomer's message looks like that a judge is asked about."""

_numbers = count(1)


def verdict(category: str, confidence: int = 95, evidence: str | None = None, about: str = "author") -> Answer:
    """What the scripted judge answers."""
    said = {"category": category, "confidence": confidence, "about": about, "evidence": evidence}
    return tool_call("final_result", said)


class ModeratedGroup:
    """One group; each has a number of its own, so that several scenarios may share a running bot.

    Args:
        stage: where the bot runs.
        kind: of the chat.
    """

    def __init__(self, stage: BotHarness, kind: str = "supergroup") -> None:
        self.stage = stage
        self.id = -100_000 - next(_numbers)
        self.chat = stage.chat(self.id)
        self.chat.type = kind
        self.chat.admin_ids = {ADMIN, stage.telegram.bot_id}
        self.chat.linked_channel = LINKED

    async def open(self, mode: Mode = Mode.ENFORCE, **choices: Any) -> "ModeratedGroup":  # noqa: ANN401 - the settings' fields
        """Moderate it, and make MEMBER an established member."""
        database, clock = self.stage.services.infra.database, SystemClock()
        await GroupStore(database, clock).put(GroupSettings(self.id, mode=mode, **choices))
        async with database.session() as session:
            long_ago = clock.now() - timedelta(days=30)
            session.add(ModerationMemberRow(group_id=self.id, member_id=MEMBER, first_seen=long_ago, meaningful=50))
        return self

    # What people do.

    def says(self, text: str = "", by: int = NEWCOMER, **more: Any) -> Message:  # noqa: ANN401 - as `user_says`
        """Somebody writes, in their own name."""
        return self.stage.says(text, self.id, user_id=by, name=more.pop("name", f"User {by}"), **more)

    def says_as_chat(self, text: str, chat_id: int, **extra: Any) -> Message:  # noqa: ANN401 - fields of a raw message
        """Somebody writes in the name of a chat: a channel, or the group itself."""
        kind = "supergroup" if chat_id == self.id else "channel"
        sender = {"id": chat_id, "type": kind, "title": "The Chat"}
        user = ANONYMOUS if chat_id == self.id else CHANNEL_BOT
        return self.says(text, user, extra={"sender_chat": sender, **extra})

    def forwards(self, text: str, by: int = NEWCOMER) -> Message:
        """Somebody forwards a channel's message."""
        origin = {
            "type": "channel", "date": 1_800_000_000, "message_id": 1,
            "chat": {"id": FOREIGN, "type": "channel", "title": "Elsewhere"},
        }  # fmt: skip
        return self.says(text, by, extra={"forward_origin": origin})

    async def commands(self, text: str, by: int = ADMIN, **more: Any) -> Message:  # noqa: ANN401 - as `user_says`
        """Somebody says a command; what the bot answers to it."""
        said = self.says(text, by, **more)
        return await self.stage.seen(lambda message: message.reply_to == said.id, self.id, after=said.id)

    async def presses(self, card: Message, button: str, by: int = ADMIN) -> str:
        """Somebody presses a button; the note that it brings."""
        return await self.stage.toast(self.stage.presses(card, button, by))

    # What comes of it.

    async def handled(self, message: Message, times: int = 1) -> dict[str, Any]:
        """Wait until a message, or its newest version, has been looked at; how that ended."""

        def seen() -> list[dict[str, Any]]:
            lines = (line for line in self.stage.log.splitlines() if "moderation.handled" in line)
            entries = [json.loads(line) for line in lines]
            return [entry for entry in entries if entry["group_id"] == self.id and entry["message_id"] == message.id]

        await self.stage.until(lambda: len(seen()) >= times, timeout=20)
        return seen()[-1]

    async def look(self, text: str = "", by: int = NEWCOMER, **more: Any) -> Message:  # noqa: ANN401 - as `user_says`
        """Somebody writes, and it is looked at."""
        message = self.says(text, by, **more)
        await self.handled(message)
        return message

    @property
    def cards(self) -> list[Message]:
        """The incident cards that stand in the group."""
        return [message for message in self.chat.answers() if _is_card(message)]

    async def card(self, number: int = 1) -> Message:
        """Wait for the incident card with that number."""
        await self.stage.until(lambda: len(self.cards) >= number)
        return self.cards[number - 1]

    async def shows(self, card: Message, words: str) -> None:
        """Wait until a card says something."""
        await self.stage.until(lambda: words in card.text)

    @property
    def deeds(self) -> list[str]:
        """What the bot did to people and their messages here, in order."""
        acts = {
            "deleteMessage", "deleteMessages", "restrictChatMember", "banChatMember", "banChatSenderChat",
            "unbanChatMember", "unbanChatSenderChat",
        }  # fmt: skip
        return [call.method for call in self.stage.telegram.calls if call.chat_id == self.id and call.method in acts]


def url_button(url: str) -> JsonObject:
    """A keyboard with one button that leads somewhere."""
    return {"reply_markup": {"inline_keyboard": [[{"text": "More", "url": url}]]}}


def _is_card(message: Message) -> bool:
    text = message.text
    return text.startswith(("Done:", "Dry run", "Please review", "The message could not", "The author could not"))
