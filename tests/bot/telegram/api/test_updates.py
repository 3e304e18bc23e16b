"""Filters that decide whether a message addresses the bot, and with which text."""

import pytest
from aiogram import Bot
from aiogram.enums import ContentType
from aiogram.types import User

from bot.telegram.api.client import KnownBot
from bot.telegram.api.filters import Addressed, UserContent
from bot.telegram.api.updates import SERVICE_CONTENT, set_language
from core.db.database import Database
from core.messages import ChatRef, UserRef
from services.preferences import Languages
from tests.support.clock import ManualClock
from tests.support.fake_telegram.chats import natural_entities
from tests.support.fake_telegram.messages import ANN, BOB, BOT, GROUP, message


@pytest.fixture
def bot() -> Bot:
    """A bot with a known identity, so that `me()` sends no request."""
    bot = KnownBot("42:token")
    bot.identity = User.model_validate(BOT)
    return bot


async def addressed(bot: Bot, text: str, **fields: object) -> str | None:
    """Returns the addressed text of a message, None if it does not address the bot."""
    fields.setdefault("entities", natural_entities(text))
    found = await Addressed()(message(text, **fields), bot)
    return found["text"] if isinstance(found, dict) else None


@pytest.mark.parametrize(
    ("text", "addressed_text"),
    [
        ("@understudy_bot hello", "hello"),
        ("@UNDERSTUDY_BOT hello", "hello"),
        ("@understudy_bot, hello", "hello"),
        ("@understudy_bot: hello", "hello"),
        ("hello @understudy_bot", "hello"),
        ("\n@understudy_bot\nhello", "hello"),
        # A mention without text.
        ("@understudy_bot", ""),
        # Within a sentence the mention stays.
        ("ask @understudy_bot about it", "ask @understudy_bot about it"),
        # Telegram counts in UTF-16 units: this emoji is four of them.
        ("👋🏽 @understudy_bot", "👋🏽"),
        # A longer username with the same prefix.
        ("@understudy_bot_2 @understudy_bot", "@understudy_bot_2"),
        # A mention of another user, and no mention.
        ("@understudy_bot_2 hello", None),
        ("@ann hello", None),
        ("hello", None),
    ],
)
async def test_addressed_strips_a_mention_in_a_group(bot: Bot, text: str, addressed_text: str | None) -> None:
    assert await addressed(bot, text, chat=GROUP) == addressed_text


async def test_addressed_reads_mentions_in_captions(bot: Bot) -> None:
    caption = "@understudy_bot what is this?"
    photo = [{"file_id": "f", "file_unique_id": "u", "width": 1, "height": 1}]
    sent = message(None, chat=GROUP, photo=photo, caption=caption, caption_entities=natural_entities(caption))
    assert await Addressed()(sent, bot) == {"text": "what is this?"}


async def test_addressed_reads_text_mentions(bot: Bot) -> None:
    """Mentions of accounts without a username carry the user in the entity."""
    mark = {"type": "text_mention", "offset": 0, "length": 10}
    assert await addressed(bot, "Understudy hello", chat=GROUP, entities=[{**mark, "user": BOT}]) == "hello"
    assert await addressed(bot, "Understudy hello", chat=GROUP, entities=[{**mark, "user": BOB}]) is None


async def test_addressed_accepts_replies_to_the_bot_in_a_group(bot: Bot) -> None:
    by_bot = {"message_id": 1, "date": 1, "chat": GROUP, "from": BOT, "text": "Hi"}
    by_bob = {**by_bot, "from": BOB}
    opening = {**by_bot, "text": None, "forum_topic_created": {"name": "Talk", "icon_color": 0}}
    assert await addressed(bot, "hello", chat=GROUP, reply_to_message=by_bot) == "hello"
    assert await addressed(bot, "hello", chat=GROUP, reply_to_message=by_bob) is None
    assert await addressed(bot, "hello", chat=GROUP, reply_to_message=opening) is None


async def test_addressed_accepts_every_private_message(bot: Bot) -> None:
    assert await addressed(bot, "hello @understudy_bot") == "hello @understudy_bot"
    assert await Addressed()(message(None, sticker=None), bot) == {"text": ""}


async def test_service_content_covers_every_content_type_of_aiogram() -> None:
    """The enum lists content and service types together: a new one has to be classified by hand."""
    written = {
        "unknown", "any", "text", "animation", "audio", "document", "live_photo", "paid_media", "photo", "sticker",
        "story", "video", "video_note", "voice", "checklist", "contact", "dice", "game", "poll", "venue", "location",
        "invoice", "giveaway", "rich_message",
    }  # fmt: skip
    assert {kind.value for kind in ContentType} == SERVICE_CONTENT | written


async def test_user_content_rejects_service_messages_inline_results_and_bots() -> None:
    assert await UserContent()(message("hello"))
    assert not await UserContent()(message(None, chat=GROUP, new_chat_members=[ANN]))
    assert not await UserContent()(message("inline result", via_bot=BOT))
    # Another bot; an anonymous admin only looks like one.
    other = {"id": 1087968824, "is_bot": True, "first_name": "Group"}
    assert not await UserContent()(message("hello", chat=GROUP, **{"from": other}))
    assert await UserContent()(message("hello", chat=GROUP, sender_chat=GROUP, **{"from": other}))


async def test_language_of_a_group_stands_before_that_of_a_person(file: Database, clock: ManualClock) -> None:
    languages = Languages(file, clock)
    ann, group = UserRef("telegram:7"), ChatRef("telegram:-100")

    def shown(chat_id: int) -> str:
        person = {"id": 7, "language_code": "de"}
        raw = {"update_id": 1, "message": {"from": person, "chat": {"id": chat_id}}}
        return set_language(raw, languages)["message"]["from"]["language_code"]

    assert shown(-100) == "de"
    await languages.choose(group, "en")
    await languages.choose(ann, "ru")
    assert shown(-100) == "en"
    assert shown(7) == "ru"
    await languages.choose(group, None)
    assert shown(-100) == "ru"
