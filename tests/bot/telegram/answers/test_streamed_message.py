"""What a person sees of an answer while it is being made, and when."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from enum import Enum, auto

import pytest
from aiogram.types import InlineKeyboardButton, InlineKeyboardMarkup
from structlog.testing import capture_logs

from bot.telegram.answers.streamed_message import Buttons, Place, StreamedAnswer, StreamMode
from bot.telegram.delivery.delivery import Delivery
from bot.telegram.markdown.render import Rendered
from tests.support.clock import ManualClock
from tests.support.fake_telegram.server import TelegramServer
from tests.support.fake_telegram.traffic import Traffic

PERSON = 7
GROUP = -100
STOP = InlineKeyboardMarkup(inline_keyboard=[[InlineKeyboardButton(text="Stop", callback_data="stop")]])
RETRY = InlineKeyboardMarkup(inline_keyboard=[[InlineKeyboardButton(text="Retry", callback_data="retry:1")]])
EMPTY = "There was no answer."


class Phase(Enum):
    """The phases of a reply, by the names that they have there."""

    RUNNING = auto()
    COMPLETE = auto()
    STOPPED = auto()
    INTERRUPTED = auto()
    FAILED = auto()


class GrowingReply:
    """An answer that tests write."""

    def __init__(self) -> None:
        self.text = ""
        self.phase = Phase.RUNNING
        self.notice: str | None = None
        self.footer: str | None = None
        self.earlier_ids: tuple[int, ...] = ()
        self._news = asyncio.Event()

    def grow(self, piece: str) -> None:
        self.text += piece
        self._tell()

    def end(self, phase: Phase = Phase.COMPLETE, *, notice: str | None = None, footer: str | None = None) -> None:
        self.phase, self.notice, self.footer = phase, notice, footer
        self._tell()

    async def changed(self, seen: int) -> None:
        while len(self.text) <= seen and self.phase is Phase.RUNNING:
            await self._news.wait()

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()


class Stage:
    """One answer on its way into one chat."""

    def __init__(self, delivery: Delivery, clock: ManualClock, server: TelegramServer, traffic: Traffic) -> None:
        self.reply = GrowingReply()
        self.clock = clock
        self.start = clock.time()
        self._delivery = delivery
        self._server = server
        self._traffic = traffic
        self.task: asyncio.Task[None] | None = None
        self.answer: StreamedAnswer | None = None
        self.chat_id = PERSON
        self.noted: list[int] = []
        """The messages that whoever keeps such things was told of, in order."""

    def begin(self, mode: StreamMode = "edit", place: Place | None = None) -> None:
        place = place or Place(PERSON, is_group=False)
        self.chat_id = place.chat_id
        self.answer = StreamedAnswer(
            delivery=self._delivery, clock=self.clock, reply=self.reply, place=place, mode=mode, empty=EMPTY,
            buttons=Buttons(STOP, lambda: RETRY), sent=self._note,
        )  # fmt: skip
        self.task = asyncio.create_task(self.answer.show())

    async def _note(self, message_id: int) -> None:
        self.noted.append(message_id)

    async def pass_time(self, seconds: float) -> None:
        await self._traffic.pass_time(seconds)

    async def end(self, phase: Phase = Phase.COMPLETE, *, within_s: float = 90, **words: str) -> None:
        """The answer ends, and everything of it is delivered."""
        assert self.task is not None
        self.reply.end(phase, **words)
        await self._traffic.settle()
        for _ in range(int(within_s)):
            if self.task.done():
                break
            await self.pass_time(1)
        assert self.task.done(), "the answer is not delivered"
        self.task.result()

    @property
    def texts(self) -> list[str]:
        return self._server.chat(self.chat_id).texts()

    def times(self, method: str) -> list[float]:
        """Seconds after the beginning at which a method was called."""
        return [call.at - self.start for call in self._server.calls_of(method, self.chat_id)]

    def calls(self, method: str) -> int:
        return len(self._server.calls_of(method, self.chat_id))


@pytest.fixture
async def stage(
    delivery: Delivery, clock: ManualClock, server: TelegramServer, traffic: Traffic
) -> AsyncIterator[Stage]:
    """A private chat, until the test says otherwise."""
    stage = Stage(delivery, clock, server, traffic)
    yield stage
    if stage.task is not None and not stage.task.done():
        stage.task.cancel()
        await asyncio.wait([stage.task])


def gaps(times: list[float]) -> list[float]:
    """The pauses between calls."""
    return [round(later - earlier, 3) for earlier, later in itertools.pairwise(times)]


# When something is seen.


async def test_the_first_message_comes_after_a_second(stage: Stage, server: TelegramServer) -> None:
    """Few characters wait for the second to be over; the message carries the Stop button and the reply."""
    question = server.user_says("hi")
    stage.begin(place=Place(PERSON, is_group=False, reply_to=question.id))
    await stage.pass_time(0.5)
    stage.reply.grow("Hello")
    await stage.pass_time(0.25)
    assert stage.texts == []

    await stage.pass_time(0.25)

    [message] = server.chat(PERSON).answers()
    assert (message.text, message.labels, message.reply_to) == ("Hello", ["Stop"], question.id)
    assert stage.times("sendMessage") == [1.0]


@pytest.mark.parametrize(("characters", "shown"), [(79, 0), (80, 1)])
async def test_80_characters_do_not_wait_for_the_second(stage: Stage, characters: int, shown: int) -> None:
    """A fast model is seen at once."""
    stage.begin()
    await stage.pass_time(0.25)
    stage.reply.grow("x" * characters)
    await stage.pass_time(0.25)

    assert len(stage.texts) == shown


async def test_nothing_is_sent_before_there_is_something_to_see(stage: Stage, server: TelegramServer) -> None:
    """White space and a fence without code are no text; the first visible character ends the wait."""
    stage.begin()
    await stage.pass_time(2)
    stage.reply.grow("\n\n")
    await stage.pass_time(2)
    stage.reply.grow("```python\n")
    await stage.pass_time(2)
    assert stage.calls("sendMessage") == 0

    stage.reply.grow("x = 1")
    await stage.pass_time(1)

    assert stage.texts == ["x = 1"]
    assert server.chat(PERSON).answers()[0].entities[0]["type"] == "pre"


@pytest.mark.parametrize(
    ("place", "spacing"),
    [
        pytest.param(Place(PERSON, is_group=False), 1.0, id="private"),
        pytest.param(Place(GROUP, is_group=True), 3.0, id="group"),
    ],
)
async def test_edits_keep_their_distance(stage: Stage, place: Place, spacing: float) -> None:
    """However fast the text grows: a second between edits in private, three in groups."""
    stage.begin(place=place)
    for _ in range(80):
        stage.reply.grow("word ")
        await stage.pass_time(0.25)

    times = sorted([*stage.times("sendMessage"), *stage.times("editMessageText")])

    assert times[0] == 1.0
    assert len(times) == int(19 / spacing) + 1
    assert set(gaps(times)) == {spacing}
    await stage.end()
    assert stage.texts == ["word " * 79 + "word"]


async def test_nothing_visible_changed_means_no_edit(stage: Stage) -> None:
    """Neither silence of the model nor characters that do not show cost a call."""
    stage.begin()
    stage.reply.grow("Hello")
    await stage.pass_time(10)
    for _ in range(5):
        stage.reply.grow("\n")
        await stage.pass_time(2)
    assert stage.calls("editMessageText") == 0

    stage.reply.grow("you")
    await stage.pass_time(2)
    assert stage.calls("editMessageText") == 1


async def test_an_unfinished_mark_is_never_seen(stage: Stage, server: TelegramServer) -> None:
    """Formatting is balanced at every instant."""
    stage.begin()
    stage.reply.grow("A **bo")
    await stage.pass_time(1)
    stage.reply.grow("ld** word")
    await stage.pass_time(1)
    await stage.end()

    message = server.chat(PERSON).answers()[0]
    assert message.text == "A bold word"
    assert message.entities == [{"type": "bold", "offset": 2, "length": 4}]
    assert {call.status for call in server.calls} == {200}


async def test_typing_runs_meanwhile_and_ends(stage: Stage, server: TelegramServer) -> None:
    """Every four and a half seconds from the start, and not once after the end."""
    stage.begin()
    await stage.pass_time(10)
    assert [at - stage.start for at, _ in server.chat(PERSON).actions] == [0, 4.5, 9]

    stage.reply.grow("Hello")
    await stage.end()
    await stage.pass_time(20)
    assert len(server.chat(PERSON).actions) == 3


# How it ends.


async def test_the_end_is_one_edit_with_footer_and_buttons(stage: Stage, server: TelegramServer) -> None:
    """Stop gives way to Retry; the footer stands small under the answer."""
    stage.begin()
    stage.reply.grow("Hello **you**")
    await stage.pass_time(2)
    await stage.end(footer="answered by b")

    [message] = server.chat(PERSON).answers()
    assert (message.text, message.labels) == ("Hello you\n\nanswered by b", ["Retry"])
    assert [entity["type"] for entity in message.entities] == ["bold", "italic"]
    assert stage.calls("editMessageText") == 1


@pytest.mark.parametrize("phase", [Phase.STOPPED, Phase.INTERRUPTED])
async def test_a_broken_off_answer_stays_and_is_marked(stage: Stage, phase: Phase) -> None:
    """What came is kept, with a line that says what happened."""
    stage.begin()
    stage.reply.grow("Half of \N{GRINNING FACE}")
    await stage.pass_time(2)
    await stage.end(phase, notice="Interrupted.", footer="answered by b")

    assert stage.texts == ["Half of \N{GRINNING FACE}\n\nInterrupted.\n\nanswered by b"]


async def test_a_quick_answer_is_one_message(stage: Stage, server: TelegramServer) -> None:
    """Done within the first second: sent once, never edited."""
    stage.begin()
    stage.reply.grow("Yes.")
    await stage.end()

    assert stage.texts == ["Yes."]
    assert server.chat(PERSON).answers()[0].labels == ["Retry"]
    assert (stage.calls("sendMessage"), stage.calls("editMessageText")) == (1, 0)


@pytest.mark.parametrize(
    ("phase", "words", "text"),
    [
        pytest.param(Phase.FAILED, {"notice": "Nobody answers."}, "Nobody answers.", id="failed"),
        pytest.param(Phase.COMPLETE, {}, EMPTY, id="complete and empty"),
        pytest.param(Phase.STOPPED, {"notice": "Stopped."}, "Stopped.", id="stopped at once"),
        pytest.param(Phase.COMPLETE, {"footer": "by b"}, f"{EMPTY}\n\nby b", id="footer"),
    ],
)
async def test_no_text_at_all_is_answered_with_a_line(
    stage: Stage, server: TelegramServer, phase: Phase, words: dict[str, str], text: str
) -> None:
    """A person always gets an answer, with buttons to try again."""
    stage.begin()
    await stage.pass_time(2)
    await stage.end(phase, **words)

    assert stage.texts == [text]
    assert server.chat(PERSON).answers()[0].labels == ["Retry"]


async def test_off_says_everything_once(stage: Stage) -> None:
    """One message when it is done, typing meanwhile."""
    stage.begin("off")
    for _ in range(20):
        stage.reply.grow("word ")
        await stage.pass_time(1)
    assert stage.texts == []
    await stage.end()

    assert stage.texts == ["word " * 19 + "word"]
    assert (stage.calls("sendMessage"), stage.calls("editMessageText")) == (1, 0)
    assert stage.calls("sendChatAction") == 5


# Long answers.


async def test_pages_follow_each_other_and_full_ones_are_left_alone(stage: Stage, server: TelegramServer) -> None:
    """A full page is edited one last time, without Stop; the next message goes on."""
    stage.begin()
    paragraphs = [f"{number} " + "lorem ipsum " * 40 for number in range(30)]
    for paragraph in paragraphs:
        stage.reply.grow(paragraph + "\n\n")
        await stage.pass_time(1)
    await stage.end(footer="answered by b")

    messages = server.chat(PERSON).answers()
    assert len(messages) == 4
    said = "\n\n".join(message.text for message in messages)
    assert said.split() == [*" ".join(paragraphs).split(), "answered", "by", "b"]
    assert [message.labels for message in messages] == [[], [], [], ["Retry"]]
    for earlier, later in itertools.pairwise(messages):
        assert earlier.edits[-1].at <= later.edits[0].at
    assert {call.status for call in server.calls} == {200}


async def test_a_long_answer_at_once_comes_in_order(stage: Stage, server: TelegramServer) -> None:
    """Several pages within the first second: each is sent once, code fences are opened again."""
    stage.begin()
    code = "".join(f"line_{number} = {number}\n" for number in range(600))
    stage.reply.grow(f"```python\n{code}```")
    await stage.end()

    messages = server.chat(PERSON).answers()
    assert len(messages) > 2
    assert "".join(message.text + "\n" for message in messages).split() == code.split()
    assert {entity["type"] for message in messages for entity in message.entities} == {"pre"}
    assert stage.calls("editMessageText") == 0


async def test_4096_astral_characters_arrive_whole(stage: Stage, server: TelegramServer) -> None:
    """Twice as many UTF-16 units as characters: two messages, no half of a pair, nothing lost or doubled."""
    text = "\N{GRINNING FACE}" * 4096
    stage.begin()
    stage.reply.grow(text[:100])
    await stage.pass_time(1)
    stage.reply.grow(text[100:])
    await stage.pass_time(3)
    await stage.end()

    assert "".join(stage.texts) == text
    assert len(stage.texts) == 2
    assert {call.status for call in server.calls} == {200}


@pytest.mark.parametrize("seen", [True, False])
async def test_a_page_after_which_nothing_visible_comes(stage: Stage, server: TelegramServer, *, seen: bool) -> None:
    """A fence that was opened and left empty: what was seen of it goes, and the full page gets the buttons."""
    stage.begin()
    stage.reply.grow("x" * 4095 + "\n\n`")
    await stage.pass_time(3 if seen else 0.5)
    assert len(stage.texts) == (2 if seen else 1)
    stage.reply.grow("``py\n")
    await stage.end()

    [message] = server.chat(PERSON).answers()
    assert (message.text, message.labels) == ("x" * 4095, ["Retry"])


async def test_a_footer_that_does_not_fit_is_a_message_of_its_own(stage: Stage, server: TelegramServer) -> None:
    """A full last page stays whole; buttons go with the footer."""
    stage.begin()
    stage.reply.grow("x" * 4090)
    await stage.end(footer="answered by b")

    assert stage.texts == ["x" * 4090, "answered by b"]
    assert [message.labels for message in server.chat(PERSON).answers()] == [[], ["Retry"]]


# What goes wrong meanwhile.


def too_many(server: TelegramServer, method: str, seconds: int) -> None:
    """One 429."""
    server.fail(method, status=429, description=f"Too Many Requests: retry after {seconds}", retry_after=seconds)


async def test_a_429_on_an_edit_skips_edits_and_loses_nothing(stage: Stage, server: TelegramServer) -> None:
    """While the chat is held there is no call at all; afterwards edits go on, more slowly, in the same message."""
    stage.begin()
    stage.reply.grow("begin ")
    await stage.pass_time(1)
    too_many(server, "editMessageText", 20)
    for _ in range(19):
        stage.reply.grow("word ")
        await stage.pass_time(1)
    assert stage.calls("editMessageText") == 1
    typed = stage.calls("sendChatAction")
    assert typed == 1

    for _ in range(20):
        stage.reply.grow("word ")
        await stage.pass_time(1)
    edits = stage.times("editMessageText")
    assert edits[1] >= 22
    assert set(gaps(edits[1:])) == {2.0}
    await stage.end()
    assert stage.texts == ["begin " + "word " * 38 + "word"]
    assert stage.calls("sendMessage") == 1


async def test_a_429_at_the_end_delays_the_final_text_and_nothing_else(stage: Stage, server: TelegramServer) -> None:
    """The end waits for the hold, then comes as an edit."""
    stage.begin()
    stage.reply.grow("begin")
    await stage.pass_time(2)
    server.flood(PERSON, 30)
    stage.reply.grow(" and end")
    await stage.end()

    assert stage.texts == ["begin and end"]
    assert stage.calls("sendMessage") == 1
    [refused, done] = stage.times("editMessageText")
    assert done - refused >= 30


async def test_a_429_on_the_first_message_is_tried_again_later(stage: Stage, server: TelegramServer) -> None:
    """Refused, so not sent: when the hold is over the answer is seen."""
    too_many(server, "sendMessage", 5)
    stage.begin()
    stage.reply.grow("Hello")
    await stage.pass_time(5)
    assert stage.texts == []
    await stage.pass_time(4)
    assert stage.texts == ["Hello"]
    await stage.end()
    assert stage.texts == ["Hello"]


async def test_the_text_that_was_skipped_is_shown_without_news(stage: Stage, server: TelegramServer) -> None:
    """The model falls silent during a flood: what it said before is shown all the same."""
    stage.begin()
    stage.reply.grow("begin")
    await stage.pass_time(1)
    too_many(server, "editMessageText", 5)
    stage.reply.grow(" and more")
    await stage.pass_time(12)

    assert stage.texts == ["begin and more"]


async def test_a_failed_edit_is_not_repeated_as_it_was(stage: Stage, server: TelegramServer) -> None:
    """A 5xx on an edit costs that edit; the end is delivered through more of them."""
    stage.begin()
    stage.reply.grow("begin")
    await stage.pass_time(1)
    server.fail("editMessageText", status=502)
    stage.reply.grow(" more")
    await stage.pass_time(1)
    assert stage.calls("editMessageText") == 1
    server.fail("editMessageText", 3, status=502)
    stage.reply.grow(" end")
    await stage.end()

    assert stage.texts == ["begin more end"]


async def test_a_first_message_that_was_cut_off_is_not_sent_twice(stage: Stage, server: TelegramServer) -> None:
    """Nobody knows whether it arrived, so the stream stays still until the end."""
    server.drop("sendMessage")
    stage.begin()
    for _ in range(10):
        stage.reply.grow("word ")
        await stage.pass_time(1)
    assert stage.calls("sendMessage") == 1
    await stage.end()

    assert stage.texts == ["word", "word " * 9 + "word"]


async def test_a_message_deleted_meanwhile_comes_back_only_at_the_end(stage: Stage, server: TelegramServer) -> None:
    """No edits into the void, and the answer is not lost."""
    stage.begin()
    stage.reply.grow("begin ")
    await stage.pass_time(1)
    server.chat(PERSON).answers()[0].deleted = True
    for _ in range(5):
        stage.reply.grow("word ")
        await stage.pass_time(1)
    assert stage.calls("editMessageText") == 1
    assert stage.texts == []
    await stage.end()

    assert stage.texts == ["begin " + "word " * 4 + "word"]
    assert server.chat(PERSON).answers()[0].labels == ["Retry"]


async def test_a_person_who_blocked_the_bot_is_left_alone(stage: Stage, server: TelegramServer) -> None:
    """One line in the log, and not one call after it."""
    stage.begin()
    stage.reply.grow("begin ")
    await stage.pass_time(1)
    server.block(PERSON)
    stage.reply.grow("word ")
    await stage.pass_time(1)
    calls = len(server.calls)
    with capture_logs() as logs:
        for _ in range(10):
            stage.reply.grow("word ")
            await stage.pass_time(1)
        await stage.end()

    assert len(server.calls) == calls
    assert logs == []


async def test_a_long_answer_to_a_person_who_blocked_the_bot_costs_one_call(
    stage: Stage, server: TelegramServer
) -> None:
    """The first page finds out; the others are not tried."""
    server.block(PERSON)
    stage.begin("off")
    stage.reply.grow("word " * 3000)
    await stage.end()

    assert stage.calls("sendMessage") == 1


async def test_a_server_without_edits_gets_the_end_as_a_message(stage: Stage, server: TelegramServer) -> None:
    """Some emulators know no more than sending."""
    server.unknown_methods |= {"editMessageText", "sendChatAction"}
    stage.begin()
    stage.reply.grow("begin ")
    await stage.pass_time(1)
    for _ in range(5):
        stage.reply.grow("word ")
        await stage.pass_time(1)
    await stage.end()

    assert stage.texts == ["begin", "begin " + "word " * 4 + "word"]
    assert stage.calls("editMessageText") == 2


async def test_formatting_that_telegram_refuses_goes_out_plain(stage: Stage, server: TelegramServer) -> None:
    """The same words, live and at the end."""
    server.fail("sendMessage", status=400, description="Bad Request: can't parse entities: whatever")
    stage.begin()
    stage.reply.grow("a **bold** word")
    await stage.pass_time(1)
    assert stage.texts == ["a bold word"]
    server.fail("editMessageText", status=400, description="Bad Request: ENTITY_BOUNDS_INVALID")
    await stage.end()

    [message] = server.chat(PERSON).answers()
    assert (message.text, message.entities, message.labels) == ("a bold word", [], ["Retry"])


# Drafts.


async def test_a_draft_grows_and_becomes_a_message(stage: Stage, server: TelegramServer) -> None:
    """Previews with their own stop button, a second apart; one message at the end, no edit."""
    stage.begin("draft")
    for _ in range(5):
        stage.reply.grow("word ")
        await stage.pass_time(1)
    await stage.end()

    drafts = server.chat(PERSON).drafts
    assert [draft.text for draft in drafts] == [" ".join(["word"] * count) for count in range(1, 6)][: len(drafts)]
    assert set(gaps([draft.at for draft in drafts])) == {1.0}
    assert {(draft.draft_id, draft.can_stop) for draft in drafts} == {(stage.answer.draft_id, True)}
    assert stage.texts == ["word word word word word"]
    assert (stage.calls("sendMessage"), stage.calls("editMessageText")) == (1, 0)


async def test_a_draft_is_kept_alive_while_the_model_thinks(stage: Stage, server: TelegramServer) -> None:
    """Telegram forgets drafts after 30 seconds."""
    stage.begin("draft")
    stage.reply.grow("Hello")
    for _ in range(10):
        stage.reply.grow("\n")
        await stage.pass_time(1)
    assert stage.calls("sendMessageDraft") == 1
    await stage.pass_time(60)

    times = [draft.at for draft in server.chat(PERSON).drafts]
    assert len(times) >= 3
    assert max(gaps(times)) < 30


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda server: server.unknown_methods.add("sendMessageDraft"), id="unknown method"),
        pytest.param(
            lambda server: server.fail("sendMessageDraft", status=400, description="Bad Request: DRAFTS_DISABLED"),
            id="refused",
        ),
    ],
)
async def test_without_drafts_a_message_is_edited(
    stage: Stage, server: TelegramServer, spoil: Callable[[TelegramServer], None]
) -> None:
    """At once, and for the rest of the answer."""
    spoil(server)
    stage.begin("draft")
    for _ in range(4):
        stage.reply.grow("word ")
        await stage.pass_time(1)

    assert stage.times("sendMessage") == [1.0]
    assert stage.calls("sendMessageDraft") == 1
    await stage.end()
    assert stage.texts == ["word word word word"]


async def test_groups_have_no_drafts(stage: Stage, server: TelegramServer) -> None:
    """There a message is edited from the start."""
    stage.begin("draft", Place(GROUP, is_group=True))
    stage.reply.grow("Hello")
    await stage.pass_time(1)

    assert stage.texts == ["Hello"]
    assert server.calls_of("sendMessageDraft") == []


async def test_a_429_on_a_draft_never_becomes_an_edit(stage: Stage, server: TelegramServer) -> None:
    """It holds the chat, nothing else is sent instead, and the end is delivered."""
    stage.begin("draft")
    stage.reply.grow("Hello ")
    await stage.pass_time(1)
    too_many(server, "sendMessageDraft", 8)
    for _ in range(8):
        stage.reply.grow("word ")
        await stage.pass_time(1)
    assert (stage.calls("sendMessage"), stage.calls("editMessageText")) == (0, 0)
    await stage.end()

    assert stage.texts == ["Hello " + "word " * 7 + "word"]
    assert stage.calls("editMessageText") == 0


# Cancelled.


async def test_a_cancelled_answer_can_still_be_finished(stage: Stage, server: TelegramServer) -> None:
    """Shutdown: `show` gives way at once, and the turn's end, once marked, is delivered by whoever asks for it."""
    stage.begin()
    stage.reply.grow("begin")
    await stage.pass_time(1)
    assert stage.task is not None
    assert stage.answer is not None
    stage.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stage.task
    await stage.pass_time(10)
    assert stage.calls("sendChatAction") == 1

    stage.reply.end(Phase.INTERRUPTED, notice="Interrupted.")
    await stage.answer.finish()
    await stage.answer.finish()

    assert stage.texts == ["begin\n\nInterrupted."]
    assert stage.calls("editMessageText") == 1


async def test_an_answer_cancelled_in_a_flood_gives_way(stage: Stage, server: TelegramServer) -> None:
    """A wait for the end of a hold is no reason to outlive a shutdown."""
    server.flood(PERSON, 600)
    stage.begin()
    stage.reply.grow("Hello")
    stage.reply.end()
    await stage.pass_time(2)
    assert stage.task is not None
    stage.task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await stage.task


# Begun in an earlier life of the process.


async def test_an_answer_goes_on_in_the_messages_that_it_had(
    stage: Stage, delivery: Delivery, server: TelegramServer
) -> None:
    """Page by page, without a new message; one that is over is taken away, and one that is lacking is sent."""
    before = [sent for text in ("half of", "and a", "rest") if (sent := await delivery.send(PERSON, Rendered(text)))]
    stage.reply.earlier_ids = tuple(each.message_id for each in before)
    stage.begin()
    stage.reply.grow("First page.\n\n" + "word " * 900)
    await stage.end()

    assert [message.id for message in server.chat(PERSON).answers()] == [each.message_id for each in before[:2]]
    assert stage.texts[0].startswith("First page.")
    assert server.chat(PERSON).answers()[1].labels == ["Retry"]
    assert stage.calls("sendMessage") == len(before)


async def test_each_message_is_noted_when_it_stands_and_once(stage: Stage, server: TelegramServer) -> None:
    """Before anything else is said: whoever dies after that must know of it."""
    stage.begin()
    stage.reply.grow("Hello")
    await stage.pass_time(1)
    assert stage.noted == [message.id for message in server.chat(PERSON).answers()]
    stage.reply.grow(" there.\n\n" + "word " * 900)
    await stage.end()
    assert stage.noted == [message.id for message in server.chat(PERSON).answers()]
    assert len(stage.noted) == 2


async def test_the_message_that_takes_the_place_of_a_deleted_one_is_noted(
    stage: Stage, delivery: Delivery, server: TelegramServer
) -> None:
    """A person deleted what an earlier attempt had said: the end comes in a new message."""
    earlier = await delivery.send(PERSON, Rendered("half of"))
    assert earlier is not None
    await delivery.delete(PERSON, earlier.message_id)
    stage.reply.earlier_ids = (earlier.message_id,)
    stage.begin()
    stage.reply.grow("All of it.")
    await stage.end()
    [message] = server.chat(PERSON).answers()
    assert message.text == "All of it."
    assert stage.noted == [message.id]
