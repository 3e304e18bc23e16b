"""Where an update goes: who is let in, and who waits behind whom."""

import asyncio
from collections.abc import Hashable
from typing import Any

import pytest
from aiogram import Bot, Dispatcher
from aiogram.types import Update

from bot.telegram.delivery import Delivery
from bot.telegram.doorway import Doorway, Guests
from bot.telegram.lanes import WAITING_LIMIT, Job, Lanes
from core.clock import Clock, SystemClock
from core.i18n import Texts
from core.messages import ConversationKey, Surface
from services.moderation.pipeline import Outcome, Stage
from tests.support.telegram_chats import JsonObject, natural_entities
from tests.support.telegram_messages import ANN, BOB, BOT, GROUP, PRIVATE, raw, update
from tests.support.telegram_server import TelegramServer
from tests.support.telegram_traffic import Traffic

IN_PRIVATE = ConversationKey(Surface.TELEGRAM, 7)
IN_GROUP = ConversationKey(Surface.TELEGRAM, -100)


class Recorder(Dispatcher):
    """Handles nothing, and remembers what it was fed."""

    def __init__(self) -> None:
        super().__init__(disable_fsm=True)
        self.fed: list[Update] = []

    async def feed_update(self, bot: Bot, update: Update, **_: object) -> None:  # noqa: ARG002 - the library's signature
        self.fed.append(update)


class Crossing(Lanes):
    """Lanes that tell which way a job went."""

    def __init__(self) -> None:
        super().__init__()
        self.ways: list[Hashable] = []

    def submit(self, key: Hashable, job: Job, farewell: Job | None = None) -> bool:
        self.ways.append(key)
        return super().submit(key, job, farewell)

    def run_at_once(self, job: Job) -> None:
        self.ways.append("at once")
        super().run_at_once(job)


class Moderator:
    """Takes away what is called spam, in every group."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    async def concerns(self, update: Update) -> bool:
        message = update.message or update.edited_message
        return message is not None and message.chat.id == GROUP["id"]

    async def moderate(self, update: Update) -> Outcome:
        self.seen.append(update.update_id)
        message = update.message or update.edited_message
        assert message is not None
        return Outcome(Stage.FOUND, removed="spam" in (message.text or ""))


class Entrance:
    """A doorway, and what lies behind it."""

    def __init__(
        self,
        traffic: Traffic,
        delivery: Delivery,
        users: frozenset[int] = frozenset(),
        chats: frozenset[int] = frozenset(),
        clock: Clock | None = None,
    ) -> None:
        self.lanes, self.dispatcher, self.moderator = Crossing(), Recorder(), Moderator()
        self._bot = traffic.bot
        self.doorway = Doorway(
            bot=traffic.bot, dispatcher=self.dispatcher, lanes=self.lanes, delivery=delivery, texts=Texts(strict=True),
            clock=clock or SystemClock(), moderation=self.moderator, guests=Guests(users=users, chats=chats),
        )  # fmt: skip

    async def take(self, **content: object) -> None:
        await self.doorway.take(update(self._bot, **content))
        await self.lanes.drain(1)


def said(text: str, **fields: object) -> dict[str, Any]:
    return raw(text, entities=natural_entities(text), **fields)


@pytest.mark.parametrize(
    ("content", "way"),
    [
        # What is answered waits behind the answer before it.
        ({"message": said("hello")}, IN_PRIVATE),
        ({"message": said("/new")}, IN_PRIVATE),
        ({"message": said("@understudy_bot hello", chat=GROUP)}, IN_GROUP),
        ({"message": said("/ask hello", chat=GROUP)}, IN_GROUP),
        ({"message": said("hello", message_thread_id=3, is_topic_message=True)},
         ConversationKey(Surface.TELEGRAM, 7, 3)),
        # What is about that answer, or about the bot, does not.
        ({"message": said("/stop")}, "at once"),
        ({"message": said("/STOP@understudy_bot")}, "at once"),
        ({"message": said("/provider force a")}, "at once"),
        ({"callback_query": {"id": "1", "from": ANN, "chat_instance": "1", "data": "stop:1"}}, "at once"),
        ({"edited_message": said("hello!", edit_date=2)}, "at once"),
        # Nor what people in a group say to each other: there may be more of it than a lane holds.
        ({"message": said("hello Bob", chat=GROUP)}, "at once"),
        # Among that the commands of other bots.
        ({"message": said("/roll 6", chat=GROUP)}, "at once"),
        # A text of nothing but spaces.
        ({"message": said("  ", chat=GROUP)}, "at once"),
        ({"message": said(" ")}, IN_PRIVATE),
    ],
)  # fmt: skip
async def test_which_way_an_update_goes(
    traffic: Traffic, delivery: Delivery, content: dict[str, Any], way: object
) -> None:
    entrance = Entrance(traffic, delivery)
    await entrance.take(**content)
    assert entrance.lanes.ways == [way]
    assert len(entrance.dispatcher.fed) == 1


@pytest.mark.parametrize(
    ("users", "chats", "chat", "person", "let_in"),
    [
        # Somebody on the list, in private and in any group.
        ({7}, set(), PRIVATE, ANN, True),
        ({7}, set(), GROUP, ANN, True),
        ({7}, set(), GROUP, BOB, False),
        # Anybody in a group on the list, and only there.
        (set(), {-100}, GROUP, BOB, True),
        (set(), {-101}, GROUP, BOB, False),
        (set(), {-100}, PRIVATE, ANN, False),
        # A private chat has the number of its person.
        (set(), {7}, PRIVATE, ANN, True),
    ],
)
async def test_who_is_let_in(
    traffic: Traffic,
    delivery: Delivery,
    users: set[int],
    chats: set[int],
    chat: JsonObject,
    person: JsonObject,
    *,
    let_in: bool,
) -> None:
    entrance = Entrance(traffic, delivery, frozenset(users), frozenset(chats))
    pressed = {"id": "1", "from": person, "chat_instance": "1", "message": raw("Hi", chat=chat, **{"from": BOT})}
    for content in ({"message": said("/help", chat=chat, **{"from": person})}, {"callback_query": pressed}):
        await entrance.take(**content)
    assert len(entrance.dispatcher.fed) == (2 if let_in else 0)


@pytest.mark.parametrize(("users", "let_in"), [({7}, True), ({8}, False)])
async def test_the_stop_button_of_a_draft(
    traffic: Traffic, delivery: Delivery, users: set[int], *, let_in: bool
) -> None:
    """Telegram tells the private chat in which it was pressed, and not by whom."""
    entrance = Entrance(traffic, delivery, frozenset(users))
    await entrance.take(stopped_message_generation={"chat": PRIVATE, "draft_id": 1})
    assert bool(entrance.dispatcher.fed) is let_in


async def test_who_is_not_let_in_is_told_in_private_and_on_a_press(
    traffic: Traffic, delivery: Delivery, server: TelegramServer
) -> None:
    entrance = Entrance(traffic, delivery, frozenset({1}))
    await entrance.take(message=said("hello"))
    await entrance.take(message=said("/help", chat=GROUP))
    server._queries.add("5")
    await entrance.take(callback_query={"id": "5", "from": ANN, "chat_instance": "1", "data": "x"})
    assert server.chat(7).texts() == [Texts().get("not-allowed")]
    assert not server.chat(-100).texts()
    assert server.callback_answers["5"]["text"] == Texts().get("not-allowed")


async def test_the_one_too_many_is_told_so(traffic: Traffic, delivery: Delivery, server: TelegramServer) -> None:
    entrance = Entrance(traffic, delivery)
    busy = asyncio.Event()

    async def answer() -> None:
        await busy.wait()

    for _ in range(WAITING_LIMIT + 1):
        entrance.lanes.submit(IN_PRIVATE, answer)
    await entrance.doorway.take(update(traffic.bot, message=said("hello")))
    await server.wait_for(lambda: server.chat(7).texts() == [Texts().get("queue-full")])
    busy.set()
    await entrance.lanes.drain(1)
    assert not entrance.dispatcher.fed


@pytest.mark.parametrize(
    ("content", "users", "seen", "answered"),
    [
        # Everything in a moderated group is seen, for the bot or not; what is taken away is not answered.
        ({"message": said("hello Bob", chat=GROUP)}, set(), 1, True),
        ({"message": said("@understudy_bot spam", chat=GROUP)}, set(), 1, False),
        ({"message": said("/ask hello", chat=GROUP)}, set(), 1, True),
        ({"edited_message": said("hello spam", chat=GROUP, edit_date=2)}, set(), 1, False),
        # Also of those whom the bot does not talk to.
        ({"message": said("hello Bob", chat=GROUP)}, {1}, 1, False),
        # What is said in private is nobody's business.
        ({"message": said("spam")}, set(), 0, True),
    ],
)
async def test_moderation_comes_first(
    traffic: Traffic, delivery: Delivery, content: dict[str, Any], users: set[int], seen: int, *, answered: bool
) -> None:
    entrance = Entrance(traffic, delivery, frozenset(users))
    await entrance.take(**content)
    assert len(entrance.moderator.seen) == seen
    assert bool(entrance.dispatcher.fed) is answered
