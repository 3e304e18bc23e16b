"""Every way in which Telegram fails, and what people see nevertheless."""

import asyncio
from collections.abc import Coroutine
from typing import TypeVar

import pytest
from aiogram.types import InlineKeyboardButton, InlineKeyboardMarkup, MessageEntity
from structlog.testing import capture_logs

from bot.telegram.delivery.calls import DeliveryTiming
from bot.telegram.delivery.delivery import Delivery
from bot.telegram.delivery.outgoing import SendResult, Sent
from bot.telegram.markdown.render import Rendered, render
from core.db.database import Database
from services.inbox.sent_messages import SentMessages
from tests.support.clock import ManualClock
from tests.support.fake_telegram.server import TelegramServer
from tests.support.fake_telegram.traffic import Traffic

T = TypeVar("T")

PERSON = 7
GROUP = -100
STOP = InlineKeyboardMarkup(inline_keyboard=[[InlineKeyboardButton(text="Stop", callback_data="stop")]])

TIMING = DeliveryTiming()


async def done(traffic: Traffic, work: Coroutine[object, object, T], within_s: float = 90) -> T:
    """Run to the end, however many pauses it takes."""
    task = asyncio.create_task(work)
    await traffic.settle()
    for _ in range(int(within_s)):
        if task.done():
            break
        await traffic.pass_time(1, step=1)
    assert task.done(), "it still waits"
    return task.result()


async def sent(delivery: Delivery, text: str = "hello", chat_id: int = PERSON) -> Sent:
    """A message that stands there, with a button."""
    outcome = await delivery.post(chat_id, render(text), markup=STOP)
    assert outcome.sent is not None
    return outcome.sent


# What goes right.


async def test_says_what_was_rendered(delivery: Delivery, server: TelegramServer) -> None:
    """Text, entities, buttons, topic and reply arrive; links show no preview and no parse mode is sent."""
    question = server.user_says("what?", GROUP, user_id=PERSON, message_thread_id=5)
    rendered = render("a **bold** https://example.org")

    got = await delivery.send(GROUP, rendered, topic_id=5, reply_to=question.id, markup=STOP)

    [message] = server.chat(GROUP).answers()
    assert got == Sent(GROUP, message.id)
    assert (message.text, message.labels, message.topic_id) == (rendered.text, ["Stop"], 5)
    assert message.reply_to == question.id
    assert message.entities[0] == {"type": "bold", "offset": 2, "length": 4}
    assert message.link_preview == {"is_disabled": True}
    assert "parse_mode" not in server.calls_of("sendMessage")[0].params


async def test_edits_in_place_and_takes_the_buttons_away(delivery: Delivery, server: TelegramServer) -> None:
    """An edit without markup leaves no buttons, and no second message."""
    first = await sent(delivery)

    outcome = await delivery.edit(PERSON, first.message_id, render("hello *you*"), final=True)

    assert (outcome.result, outcome.sent) == (SendResult.SHOWN, first)
    [message] = server.chat(PERSON).answers()
    assert (message.text, message.labels, message.link_preview) == ("hello you", [], {"is_disabled": True})


async def test_astral_characters_fill_a_message_to_the_unit(delivery: Delivery, server: TelegramServer) -> None:
    """Telegram counts UTF-16 units: 2048 of them are a full message, and entities may end at its last unit."""
    full = "\N{GRINNING FACE}" * 2048

    assert await delivery.send(PERSON, Rendered(full, (MessageEntity(type="bold", offset=0, length=4096),)))
    assert server.chat(PERSON).texts() == [full]


async def test_deletes_and_answers_buttons(delivery: Delivery, server: TelegramServer) -> None:
    """What is gone already counts as deleted, and a button pressed too long ago is no fault."""
    first = await sent(delivery)
    query = server.presses(server.chat(PERSON).answers()[0], "Stop")

    await delivery.answer_callback(query, "stopped", alert=True)
    await delivery.answer_callback("long ago")
    assert await delivery.edit_markup(PERSON, first.message_id, None)
    assert await delivery.edit_markup(PERSON, first.message_id, None)
    assert await delivery.delete(PERSON, first.message_id)
    assert await delivery.delete(PERSON, first.message_id)
    assert not await delivery.edit_markup(PERSON, first.message_id, STOP)

    assert server.callback_answers[query]["text"] == "stopped"
    assert server.chat(PERSON).texts() == []


# Flood control.


async def test_a_final_edit_waits_out_a_429_and_becomes_no_new_message(
    delivery: Delivery, server: TelegramServer, traffic: Traffic, clock: ManualClock
) -> None:
    """The text arrives when `retry_after` is over, not before, in the message that was to be edited."""
    first = await sent(delivery)
    server.flood(PERSON, 17)
    started = clock.monotonic()

    outcome = await done(traffic, delivery.edit(PERSON, first.message_id, render("the end"), final=True))

    assert (outcome.result, server.chat(PERSON).texts()) == (SendResult.SHOWN, ["the end"])
    assert 17 <= clock.monotonic() - started <= 19
    assert len(server.calls_of("editMessageText")) == 2
    assert len(server.calls_of("sendMessage")) == 1


async def test_a_final_send_outlasts_any_number_of_429s(
    delivery: Delivery, server: TelegramServer, traffic: Traffic
) -> None:
    """Floods do not use up the tries that faults have."""
    server.fail(
        "sendMessage", 2 * TIMING.tries, status=429, description="Too Many Requests: retry after 3", retry_after=3
    )

    assert await done(traffic, delivery.send(PERSON, render("at last"))) is not None
    assert server.chat(PERSON).texts() == ["at last"]


async def test_a_held_chat_skips_what_only_shows_progress(
    delivery: Delivery, server: TelegramServer, traffic: Traffic
) -> None:
    """After a 429 neither edits nor sends, drafts nor typing of that chat are even tried, and none is queued."""
    first = await sent(delivery)
    server.flood(PERSON, 10)

    outcome = await delivery.edit(PERSON, first.message_id, render("hello a"), final=False)
    assert outcome.result is SendResult.SKIPPED
    calls = len(server.calls)
    assert (await delivery.edit(PERSON, first.message_id, render("hello b"), final=False)).result is SendResult.SKIPPED
    assert (await delivery.post(PERSON, render("new"), final=False)).result is SendResult.SKIPPED
    assert await delivery.draft(PERSON, 1, render("new")) is SendResult.SKIPPED
    await delivery.typing(PERSON)
    assert len(server.calls) == calls
    assert delivery.held_s(PERSON) == 10

    await traffic.pass_time(30)
    assert server.chat(PERSON).texts() == ["hello"]
    assert delivery.held_s(PERSON) == 0
    assert (await delivery.edit(PERSON, first.message_id, render("hello c"), final=False)).result is SendResult.SHOWN


async def test_a_flood_in_one_chat_holds_no_other(
    delivery: Delivery, server: TelegramServer, clock: ManualClock
) -> None:
    """The budget is a chat's own."""
    server.flood(PERSON, 10)
    await delivery.typing(PERSON)
    started = clock.monotonic()

    assert await delivery.send(GROUP, render("here")) is not None
    assert clock.monotonic() == started
    assert delivery.held_s(PERSON) == 10


async def test_a_429_without_a_time_waits_a_second(
    delivery: Delivery, server: TelegramServer, traffic: Traffic
) -> None:
    """Some servers send no `retry_after`, which aiogram has no class for."""
    server.fail("sendMessage", status=429, description="Too Many Requests")

    assert await done(traffic, delivery.send(PERSON, render("x"))) is not None


async def test_holds_that_are_over_are_forgotten(
    delivery: Delivery, server: TelegramServer, traffic: Traffic, clock: ManualClock
) -> None:
    """Memory does not grow with every chat that was ever held."""
    held_until = delivery._calls._held_until
    for chat_id in range(1000, 2024):
        held_until[chat_id] = clock.monotonic() + 1
    assert len(held_until) == 1024
    await traffic.pass_time(1)
    server.flood(PERSON, 5)

    await delivery.typing(PERSON)

    assert list(held_until) == [PERSON]
    assert len(held_until) == 1
    await traffic.pass_time(6)
    assert delivery.held_s(PERSON) == 0
    assert list(held_until) == []


# Hiccups.


@pytest.mark.parametrize("status", [500, 502, 503, 504])
async def test_a_server_fault_is_tried_again(
    delivery: Delivery, server: TelegramServer, traffic: Traffic, status: int
) -> None:
    """A 5xx was not carried out: the message comes once, a little later."""
    server.fail("sendMessage", 2, status=status, description="Bad Gateway")

    assert await done(traffic, delivery.send(PERSON, render("still here"))) is not None
    assert server.chat(PERSON).texts() == ["still here"]


async def test_a_page_of_a_gateway_is_a_server_fault(
    delivery: Delivery, server: TelegramServer, traffic: Traffic
) -> None:
    """A proxy in front of a Bot API server answers with HTML while the server restarts."""
    server.garble("sendMessage", 4, executed=False, body="<html><title>502 Bad Gateway</title></html>")

    assert await done(traffic, delivery.send(PERSON, render("x"))) is not None
    assert server.chat(PERSON).texts() == ["x"]


async def test_tries_end_with_an_error_event(
    delivery: Delivery, server: TelegramServer, traffic: Traffic, clock: ManualClock
) -> None:
    """What cannot be delivered in about a minute is given up aloud, with the reason and without the text."""
    server.fail("sendMessage", 100, status=502, description="Bad Gateway")
    started = clock.monotonic()

    with capture_logs() as logs:
        assert await done(traffic, delivery.send(PERSON, render("my secret"))) is None

    assert len(server.calls_of("sendMessage")) == TIMING.tries
    assert 20 <= clock.monotonic() - started <= 70
    [lost] = [entry for entry in logs if entry["log_level"] == "error"]
    assert (lost["event"], lost["fault"], lost["chat_id"]) == ("delivery.lost", "passing", PERSON)
    assert "Bad Gateway" in lost["reason"]
    assert "secret" not in repr(logs)


async def test_progress_is_not_tried_again(delivery: Delivery, server: TelegramServer, clock: ManualClock) -> None:
    """A stream edit that fails is left out: the next one says more anyway."""
    first = await sent(delivery)
    server.fail("editMessageText", status=500)

    outcome = await delivery.edit(PERSON, first.message_id, render("hello you"), final=False)

    assert outcome.result is SendResult.SKIPPED
    assert len(server.calls_of("editMessageText")) == 1


async def test_a_refused_connection_is_tried_again(
    delivery: Delivery, server: TelegramServer, traffic: Traffic
) -> None:
    """Nothing was sent, so nothing can be doubled: all tries may be used."""
    await server.stop()
    task = asyncio.create_task(delivery.send(PERSON, render("back again")))
    await traffic.pass_time(8)
    assert not task.done()
    await server.start()
    await traffic.pass_time(40)

    assert task.done()
    assert server.chat(PERSON).texts() == ["back again"]


@pytest.mark.parametrize(
    ("executed", "texts"),
    [
        pytest.param(False, ["x"], id="cut-before"),
        # The one case that cannot be known: a second one is allowed, a third is not.
        pytest.param(True, ["x", "x"], id="cut-after"),
    ],
)
async def test_a_send_that_was_cut_off_is_repeated_once(
    delivery: Delivery, server: TelegramServer, traffic: Traffic, *, executed: bool, texts: list[str]
) -> None:
    """The answer is not lost, and not tripled."""
    server.drop("sendMessage", executed=executed)

    assert await done(traffic, delivery.send(PERSON, render("x"))) is not None
    assert server.chat(PERSON).texts() == texts


async def test_sends_that_are_cut_off_again_and_again_do_not_triple(
    delivery: Delivery, server: TelegramServer, traffic: Traffic
) -> None:
    """Two unknown outcomes are the end, aloud."""
    server.drop("sendMessage", 100)

    with capture_logs() as logs:
        assert await done(traffic, delivery.send(PERSON, render("x"))) is None

    assert server.chat(PERSON).texts() == ["x", "x"]
    assert [entry["fault"] for entry in logs if entry["event"] == "delivery.lost"] == ["unknown"]


@pytest.mark.parametrize("executed", [True, False])
async def test_an_edit_that_was_cut_off_is_repeated_freely(
    delivery: Delivery, server: TelegramServer, traffic: Traffic, *, executed: bool
) -> None:
    """An edit says the same however often; "message is not modified" then means that it worked the first time."""
    first = await sent(delivery)
    server.drop("editMessageText", 4, executed=executed)

    outcome = await done(traffic, delivery.edit(PERSON, first.message_id, render("the end"), final=True))

    assert (outcome.result, server.chat(PERSON).texts()) == (SendResult.SHOWN, ["the end"])


async def test_progress_with_an_unknown_outcome_is_told_apart(delivery: Delivery, server: TelegramServer) -> None:
    """Whoever shows progress must not send another first message then."""
    server.drop("sendMessage")

    assert (await delivery.post(PERSON, render("x"), final=False)).result is SendResult.UNKNOWN
    assert server.chat(PERSON).texts() == ["x"]


async def test_an_undecodable_answer_is_an_unknown_outcome(
    delivery: Delivery, server: TelegramServer, traffic: Traffic
) -> None:
    """The payload, which aiogram's error prints, is in no log."""
    server.garble("sendMessage", 2, body='{"weird": "my secret"')

    with capture_logs() as logs:
        assert await done(traffic, delivery.send(PERSON, render("my secret"))) is None

    assert len(server.calls_of("sendMessage")) == 2
    assert "secret" not in repr(logs)
    assert [entry["reason"] for entry in logs if entry["event"] == "delivery.lost"] == ["ClientDecodeError"]


async def test_an_answer_in_a_foreign_shape_is_a_success(delivery: Delivery, server: TelegramServer) -> None:
    """Emulators show messages that aiogram cannot read; `ok` and the id are enough."""
    server.garble("sendMessage", body='{"ok": true, "result": {"message_id": 1, "chat": "seven"}}')
    server.garble("editMessageText", body='{"ok": true, "result": {"message_id": 1, "chat": "seven"}}')

    assert await delivery.send(PERSON, render("x")) == Sent(PERSON, 1)
    assert (await delivery.edit(PERSON, 1, render("y"), final=True)).result is SendResult.SHOWN
    assert len(server.calls) == 2


# Refusals.


async def test_not_modified_is_a_success(delivery: Delivery, server: TelegramServer) -> None:
    """It already says that: one call, no other attempt."""
    first = await sent(delivery)

    outcome = await delivery.edit(PERSON, first.message_id, render("hello"), markup=STOP, final=True)

    assert (outcome.result, outcome.sent) == (SendResult.SHOWN, first)
    assert [call.status for call in server.calls] == [200, 400]


async def test_a_final_edit_of_a_deleted_message_is_sent_anew(delivery: Delivery, server: TelegramServer) -> None:
    """The person deleted what was streaming, or the live message was lost: the end still comes, in its topic."""
    first = await delivery.send(GROUP, render("begin"), topic_id=5)
    assert first is not None
    server.chat(GROUP).answers()[0].deleted = True

    live = await delivery.edit(GROUP, first.message_id, render("begin of"), topic_id=5, final=False)
    outcome = await delivery.edit(GROUP, first.message_id, render("the end"), topic_id=5, markup=STOP, final=True)

    assert (live.result, outcome.result) == (SendResult.GONE, SendResult.SHOWN)
    [message] = server.chat(GROUP).answers()
    assert (message.text, message.topic_id, message.labels) == ("the end", 5, ["Stop"])
    assert outcome.sent == Sent(GROUP, message.id)


@pytest.mark.parametrize(
    "entity",
    [
        pytest.param(MessageEntity(type="bold", offset=3, length=40), id="out of range"),
        pytest.param(MessageEntity(type="bold", offset=1, length=2), id="within a surrogate pair"),
        pytest.param(MessageEntity(type="sparkle", offset=0, length=1), id="of an unknown type"),
    ],
)
@pytest.mark.parametrize("final", [True, False])
async def test_refused_formatting_goes_out_plain(
    delivery: Delivery, server: TelegramServer, entity: MessageEntity, *, final: bool
) -> None:
    """No answer is lost to a parse error, neither sent nor edited."""
    rendered = Rendered("\N{GRINNING FACE}abc", (entity,))

    first = await delivery.send(PERSON, rendered, final=final)
    assert first is not None
    outcome = await delivery.edit(
        PERSON, first.message_id, Rendered("\N{GRINNING FACE}abcd", (entity,)), markup=STOP, final=final
    )

    assert outcome.result is SendResult.SHOWN
    [message] = server.chat(PERSON).answers()
    assert (message.text, message.entities, message.labels) == ("\N{GRINNING FACE}abcd", [], ["Stop"])


async def test_refused_buttons_are_left_out(delivery: Delivery, server: TelegramServer) -> None:
    """A button that Telegram does not take costs no answer."""
    bad = InlineKeyboardMarkup(inline_keyboard=[[InlineKeyboardButton(text="x", callback_data="x" * 65)]])

    assert await delivery.send(PERSON, render("**x**"), markup=bad) is not None
    assert server.chat(PERSON).answers()[0].entities


async def test_an_unknown_objection_costs_the_trimmings_and_not_the_text(
    delivery: Delivery, server: TelegramServer
) -> None:
    """What nobody has heard of yet is met with less and less."""
    server.fail("sendMessage", 2, status=400, description="Bad Request: SOMETHING_NEW_INVALID")

    assert await delivery.send(PERSON, render("**x**"), markup=STOP) is not None
    assert server.chat(PERSON).texts() == ["x"]


async def test_what_nothing_helps_against_is_an_error_event(delivery: Delivery, server: TelegramServer) -> None:
    """Three ways to say it are tried, then the operator reads about it."""
    server.fail("sendMessage", 100, status=400, description="Bad Request: SOMETHING_NEW_INVALID")

    with capture_logs() as logs:
        assert await delivery.send(PERSON, render("**x**"), markup=STOP) is None

    assert [(entry["event"], entry["fault"]) for entry in logs if entry["log_level"] == "error"] == [
        ("delivery.lost", "refused")
    ]


@pytest.mark.parametrize(
    ("status", "description"),
    [
        (403, "Forbidden: bot was blocked by the user"),
        (403, "Forbidden: user is deactivated"),
        (403, "Forbidden: bot was kicked from the supergroup chat"),
        (403, "Forbidden: bot is not a member of the channel chat"),
        (400, "Bad Request: chat not found"),
        # Muted in a group: Telegram says so with a 400.
        (400, "Bad Request: not enough rights to send text messages to the chat"),
    ],
)
async def test_a_closed_chat_is_unreachable_at_once(
    delivery: Delivery, server: TelegramServer, status: int, description: str
) -> None:
    """One call, one line in the log, no error: people may go."""
    server.fail("*", 100, status=status, description=description)

    with capture_logs() as logs:
        outcome = await delivery.post(PERSON, render("**x**"), markup=STOP)

    assert (outcome.result, outcome.sent) == (SendResult.UNREACHABLE, None)
    assert len(server.calls) == 1
    assert [(entry["event"], entry["log_level"]) for entry in logs] == [("delivery.unreachable", "info")]


@pytest.mark.parametrize("trouble", ["gone_topics", "closed_topics"])
async def test_a_topic_that_is_no_more_is_left_out(delivery: Delivery, server: TelegramServer, trouble: str) -> None:
    """The answer goes to the group itself."""
    getattr(server.chat(GROUP), trouble).add(5)

    assert await delivery.send(GROUP, render("x"), topic_id=5) is not None
    assert [message.topic_id for message in server.chat(GROUP).answers()] == [None]


async def test_a_question_that_was_deleted_is_answered_without_a_reply(
    delivery: Delivery, server: TelegramServer
) -> None:
    """With one call: the send allows for it."""
    assert await delivery.send(PERSON, render("x"), reply_to=4711) is not None
    assert len(server.calls) == 1

    server.fail("sendMessage", status=400, description="Bad Request: message to be replied not found")
    assert await delivery.send(PERSON, render("y"), reply_to=4711) is not None
    assert server.chat(PERSON).texts() == ["x", "y"]


async def test_a_group_that_moved_is_followed(delivery: Delivery, server: TelegramServer) -> None:
    """What is final goes to the new group, the first time and, without asking the old one, every other time."""
    first = await sent(delivery, chat_id=GROUP)
    server.fail(
        "*", 100, status=400, description="Bad Request: group chat was upgraded to a supergroup chat",
        chat_id=GROUP, migrate_to=-1001,
    )  # fmt: skip

    outcome = await delivery.edit(GROUP, first.message_id, render("the end"), final=True)
    assert outcome.sent is not None
    assert outcome.sent.chat_id == -1001
    assert await delivery.send(GROUP, render("and more")) is not None

    assert server.chat(-1001).texts() == ["the end", "and more"]
    assert [call.status for call in server.calls_of("sendMessage", GROUP)] == [200]


async def test_drafts_that_a_server_does_not_know_are_asked_for_once(
    delivery: Delivery, server: TelegramServer
) -> None:
    """A 404 is remembered for the bot; a refusal in one chat is not."""
    assert await delivery.draft(GROUP, 1, render("x")) is SendResult.UNSUPPORTED
    assert await delivery.draft(PERSON, 1, render("x")) is SendResult.SHOWN
    server.unknown_methods.add("sendMessageDraft")
    assert await delivery.draft(PERSON, 1, render("xy")) is SendResult.UNSUPPORTED
    assert await delivery.draft(PERSON, 1, render("xyz")) is SendResult.UNSUPPORTED
    assert [call.status for call in server.calls] == [400, 200, 404]


async def test_typing_of_very_many_leaves_room_for_answers(
    delivery: Delivery, server: TelegramServer, clock: ManualClock
) -> None:
    """With thousands of answers in the making it would be all that Telegram takes from a bot."""
    await asyncio.gather(*(delivery.typing(chat_id) for chat_id in range(1, 2 * TIMING.typing_per_s)))
    assert len(server.calls_of("sendChatAction")) == TIMING.typing_per_s

    clock.shift(1)
    await delivery.typing(PERSON)

    assert len(server.calls_of("sendChatAction")) == TIMING.typing_per_s + 1


async def test_typing_never_fails(delivery: Delivery, server: TelegramServer) -> None:
    """Nothing depends on it, whatever comes back."""
    server.fail("sendChatAction", status=500)
    server.drop("sendChatAction")
    server.garble("sendChatAction")
    server.fail("sendChatAction", status=404, description="Not Found")

    for _ in range(5):
        await delivery.typing(PERSON)

    assert len(server.chat(PERSON).actions) == 3
    assert len(server.calls) == 5


async def test_a_cancelled_delivery_stays_cancelled(
    delivery: Delivery, server: TelegramServer, traffic: Traffic
) -> None:
    """Neither a call under way nor a wait for a flood's end swallows it."""
    gate = server.hold("sendMessage")
    calling = asyncio.create_task(delivery.send(PERSON, render("x")))
    await server.wait_for(lambda: gate.times == 0)
    calling.cancel()
    server.flood(GROUP, 60)
    waiting = asyncio.create_task(delivery.send(GROUP, render("x")))
    await traffic.settle()
    waiting.cancel()

    results = await asyncio.gather(calling, waiting, return_exceptions=True)
    gate.end()

    assert [type(result) for result in results] == [asyncio.CancelledError] * 2


# Within a job of the inbox, which may be done again.


@pytest.fixture
async def said(file: Database, clock: ManualClock) -> SentMessages:
    return SentMessages(file, clock)


async def test_what_a_job_said_it_does_not_say_twice(
    traffic: Traffic, clock: ManualClock, server: TelegramServer, said: SentMessages
) -> None:
    """In another life of the process too; what comes after that is said."""
    texts = ["one"], ["one", "two"]
    for lines in texts:
        delivery = Delivery(traffic.bot, clock, said)
        with said.sent_by("job"):
            for line in lines:
                sent_now = await delivery.send(PERSON, render(line))
                assert sent_now is not None
    assert server.chat(PERSON).texts() == ["one", "two"]
    delivery = Delivery(traffic.bot, clock, said)
    assert await delivery.send(PERSON, render("one")) is not None
    assert server.chat(PERSON).texts() == ["one", "two", "one"]


async def test_what_could_not_be_said_is_said_when_the_job_is_done_again(
    traffic: Traffic, clock: ManualClock, server: TelegramServer, said: SentMessages
) -> None:
    delivery = Delivery(traffic.bot, clock, said)
    server.fail("sendMessage", status=400, description="Bad Request: message is too long")
    with said.sent_by("job"):
        assert await delivery.send(PERSON, render("one")) is None
    with said.sent_by("job"):
        assert await delivery.send(PERSON, render("one")) is not None
    assert server.chat(PERSON).texts() == ["one"]


async def test_a_job_says_it_once_also_where_the_group_moved(
    traffic: Traffic, clock: ManualClock, server: TelegramServer, said: SentMessages
) -> None:
    """It is known by where it was to go; the process that does it again has not heard of the move."""
    server.fail(
        "sendMessage", 10, status=400, description="Bad Request: group chat was upgraded to a supergroup chat",
        chat_id=GROUP, migrate_to=-200,
    )  # fmt: skip
    places: list[Sent | None] = []
    for _ in range(2):
        delivery = Delivery(traffic.bot, clock, said)
        with said.sent_by("job"):
            places.append(await delivery.send(GROUP, render("one")))
    assert server.chat(-200).texts() == ["one"]
    assert places[0] is not None
    assert places[0].chat_id == -200
    assert places[1] is not None
    assert places[1].message_id == places[0].message_id
