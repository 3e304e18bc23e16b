"""Where an update goes: who is let in, what is kept, and who waits behind whom."""

import json
from collections.abc import Sequence
from typing import Any

import pytest
from aiogram.types import Update
from structlog.testing import capture_logs

from bot.telegram.ingress.access import AccessList
from bot.telegram.ingress.ingest import UpdateIngest
from bot.telegram.jobs.payloads import UpdateArrived, UpdateRejected, parse_payload
from core.errors import StorageError
from core.messages import ConversationKey, Surface
from services.inbox.album_parts import AlbumPart
from services.inbox.job import LARGEST_PRIORITY, Job
from tests.support.clock import ManualClock
from tests.support.fake_telegram.chats import JsonObject, natural_entities
from tests.support.fake_telegram.messages import ANN, BOB, BOT, GROUP, PRIVATE, raw
from tests.support.fake_telegram.traffic import Traffic
from tests.support.stub_moderator import StubModerator

IN_PRIVATE = str(ConversationKey(Surface.TELEGRAM, 7))
IN_GROUP = str(ConversationKey(Surface.TELEGRAM, -100))
NOW = "now:1"


class Shelf:
    """An inbox that only keeps, and has no room for the lanes that a test closes."""

    def __init__(self) -> None:
        self.jobs: dict[str, Job] = {}
        self.full: set[str] = set()
        self.broken = False

    async def put(self, jobs: Sequence[Job]) -> list[Job]:
        if self.broken:
            raise StorageError("the database failed: full")
        refused = [job for job in jobs if job.is_limited and job.lane in self.full]
        self.jobs |= {job.id: job for job in jobs if job not in refused and job.id not in self.jobs}
        return refused


class Parts:
    """Parts of albums, kept."""

    def __init__(self) -> None:
        self.kept: dict[int, AlbumPart] = {}

    async def put(self, parts: Sequence[AlbumPart]) -> None:
        self.kept |= {part.message_id: part for part in parts}


class Entrance:
    """A doorway, and what lies behind it."""

    def __init__(
        self,
        traffic: Traffic,
        clock: ManualClock,
        users: frozenset[int] = frozenset(),
        chats: frozenset[int] = frozenset(),
    ) -> None:
        self.shelf, self.parts, self.moderator = Shelf(), Parts(), StubModerator()
        guests = AccessList(users=users, chats=chats)
        self.doorway = UpdateIngest(
            bot=traffic.bot, inbox=self.shelf, parts=self.parts, clock=clock, moderation=self.moderator, access=guests
        )

    async def take(self, *contents: JsonObject) -> None:
        """A batch of updates, numbered from 1."""
        await self.doorway.take([{"update_id": number, **content} for number, content in enumerate(contents, 1)])

    @property
    def jobs(self) -> list[Job]:
        return list(self.shelf.jobs.values())

    @property
    def kinds(self) -> list[str]:
        """What the jobs are: an update to be handled, or why it is not."""
        payloads = [parse_payload(job) for job in self.jobs]
        return [each.reason if isinstance(each, UpdateRejected) else each.kind for each in payloads]


@pytest.fixture
def entrance(traffic: Traffic, clock: ManualClock) -> Entrance:
    """One that lets everybody in."""
    return Entrance(traffic, clock)


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
         str(ConversationKey(Surface.TELEGRAM, 7, 3))),
        ({"message": said(" ")}, IN_PRIVATE),
        # What is about that answer, or about the bot, does not.
        ({"message": said("/stop")}, NOW),
        ({"message": said("/STOP@understudy_bot")}, NOW),
        ({"message": said("/provider force a")}, NOW),
        ({"message": said("/dead")}, NOW),
        ({"callback_query": {"id": "1", "from": ANN, "chat_instance": "1", "data": "stop:1"}}, NOW),
        ({"stopped_message_generation": {"chat": PRIVATE, "draft_id": 1}}, NOW),
        # What people in a group say to each other is not kept at all.
        ({"message": said("hello Bob", chat=GROUP)}, None),
        # Among that the commands of other bots.
        ({"message": said("/roll 6", chat=GROUP)}, None),
        ({"message": said("/new@another_bot", chat=GROUP)}, None),
        # A text of nothing but spaces.
        ({"message": said("  ", chat=GROUP)}, None),
        # An edit, and a change of members, ask for nothing.
        ({"edited_message": said("hello!", edit_date=2)}, None),
    ],
)  # fmt: skip
async def test_which_way_an_update_goes(entrance: Entrance, content: dict[str, Any], way: str | None) -> None:
    await entrance.take(content)
    assert [(job.lane, job.is_limited) for job in entrance.jobs] == ([] if way is None else [(way, way != NOW)])
    for job in entrance.jobs:
        assert parse_payload(job) == UpdateArrived(update={"update_id": 1, **content}, is_moderated=False)


async def test_a_batch_is_kept_in_the_order_of_its_numbers(entrance: Entrance) -> None:
    """The number of an update is its place in its lane, and tells its job from all others."""
    await entrance.take(*({"message": said(text)} for text in ("one", "two")), {"message": said("/stop")})
    assert [(job.id, job.priority) for job in entrance.jobs] == [
        (f"tg-{BOT['id']}-{number:012d}", number + 1) for number in (1, 2, 3)
    ]


async def test_a_number_that_no_queue_can_order_by_still_has_a_place(entrance: Entrance) -> None:
    await entrance.doorway.take([{"update_id": 2**40, "message": said("one")}])
    assert 1 <= entrance.jobs[0].priority <= LARGEST_PRIORITY


async def test_the_same_update_again_is_the_same_job(entrance: Entrance) -> None:
    for _ in range(2):
        await entrance.take({"message": said("hello")})
    assert len(entrance.jobs) == 1


async def test_half_a_character_is_kept_as_it_came(entrance: Entrance) -> None:
    """Telegram may cut a text within one."""
    await entrance.take({"message": said("half \ud83d")})
    assert parse_payload(entrance.jobs[0]) == UpdateArrived(
        update={"update_id": 1, "message": said("half \ud83d")}, is_moderated=False
    )


async def test_what_the_database_does_not_take_is_not_confirmed(entrance: Entrance) -> None:
    entrance.shelf.broken = True
    with pytest.raises(StorageError):
        await entrance.take({"message": said("hello")})


async def test_what_cannot_be_read_is_put_aside(entrance: Entrance) -> None:
    """A line for the operator without a word of it; what came beside it is kept."""
    with capture_logs() as logs:
        await entrance.take(
            {"message": {"message_id": "x", "text": "a secret"}},
            {"callback_query": {"id": 5}},
            {"message": said("one")},
        )
        await entrance.doorway.take([{"message": said("a secret")}])
    assert [(entry["event"], entry["kinds"]) for entry in logs] == [
        ("update.unreadable", ["message"]),
        ("update.unreadable", ["callback_query"]),
        ("update.unreadable", ["message"]),
    ]
    assert "secret" not in str(logs)
    assert [job.priority for job in entrance.jobs] == [4]


async def test_the_sure_part_of_a_message_is_enough_to_find_its_way(entrance: Entrance) -> None:
    """The whole of it is kept: a later version may read more of it."""
    await entrance.take({"message": said("one", poll={"question": 5})})
    assert [job.lane for job in entrance.jobs] == [IN_PRIVATE]
    assert json.loads(entrance.jobs[0].payload)["update"]["message"]["poll"] == {"question": 5}


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
    clock: ManualClock,
    users: set[int],
    chats: set[int],
    chat: JsonObject,
    person: JsonObject,
    *,
    let_in: bool,
) -> None:
    entrance = Entrance(traffic, clock, frozenset(users), frozenset(chats))
    pressed = {"id": "1", "from": person, "chat_instance": "1", "message": raw("Hi", chat=chat, **{"from": BOT})}
    await entrance.take({"message": said("/help", chat=chat, **{"from": person})}, {"callback_query": pressed})
    assert entrance.kinds.count("update") == (2 if let_in else 0)


@pytest.mark.parametrize(("users", "let_in"), [({7}, True), ({8}, False)])
async def test_the_stop_button_of_a_draft(
    traffic: Traffic, clock: ManualClock, users: set[int], *, let_in: bool
) -> None:
    """Telegram tells the private chat in which it was pressed, and not by whom."""
    entrance = Entrance(traffic, clock, frozenset(users))
    await entrance.take({"stopped_message_generation": {"chat": PRIVATE, "draft_id": 1}})
    assert bool(entrance.jobs) is let_in


async def test_who_is_not_let_in_is_told_in_private_and_on_a_press(traffic: Traffic, clock: ManualClock) -> None:
    """At once: not behind anything that their chat still waits for."""
    entrance = Entrance(traffic, clock, frozenset({1}))
    pressed = {"id": "5", "from": ANN, "chat_instance": "1", "data": "x"}
    await entrance.take({"message": said("hello")}, {"message": said("/help", chat=GROUP)}, {"callback_query": pressed})
    assert [(job.id[-1], job.lane) for job in entrance.jobs] == [("1", "now:1"), ("3", "now:3")]
    assert entrance.kinds == ["not-allowed", "not-allowed"]


# Too much at once.


async def test_the_one_too_many_is_told_so(entrance: Entrance) -> None:
    """At once, and only that one; when it comes again that is no news."""
    entrance.shelf.full = {IN_PRIVATE}
    for _ in range(2):
        await entrance.take({"message": said("hello")}, {"message": said("@understudy_bot hello", chat=GROUP)})
    assert sorted(zip(entrance.kinds, (job.lane for job in entrance.jobs), strict=True)) == [
        ("queue-full", NOW), ("update", IN_GROUP),
    ]  # fmt: skip


async def test_one_that_was_turned_away_is_not_answered_when_it_comes_again(entrance: Entrance) -> None:
    """Its sender was told to send it again."""
    entrance.shelf.full = {IN_PRIVATE}
    await entrance.take({"message": said("hello")})
    entrance.shelf.full = set()
    await entrance.take({"message": said("hello")})
    assert entrance.kinds == ["queue-full"]


# Albums.


def part(number: int, caption: str | None = None, **fields: object) -> JsonObject:
    """A part of an album."""
    said = {"caption": caption, "caption_entities": natural_entities(caption)} if caption else {}
    photo = [{"file_id": "f", "file_unique_id": "u", "width": 1, "height": 1}]
    return {"message": raw(None, message_id=number, media_group_id="x", photo=photo, **said, **fields)}


async def test_each_part_of_an_album_is_kept_and_has_a_job(entrance: Entrance) -> None:
    """Whichever of them is done first answers all of them."""
    await entrance.take(part(11), part(12))
    assert sorted(entrance.parts.kept) == [11, 12]
    assert [job.lane for job in entrance.jobs] == [IN_PRIVATE, IN_PRIVATE]


async def test_of_an_album_in_a_group_the_part_that_is_for_the_bot_has_a_job(entrance: Entrance) -> None:
    """The others are kept with it, those before it too; of an album that is for nobody nothing is kept."""
    await entrance.take(part(11, chat=GROUP), part(12, "@understudy_bot look", chat=GROUP), part(13, chat=GROUP))
    await entrance.take({"message": part(21, chat=GROUP)["message"] | {"media_group_id": "y"}})
    assert sorted(entrance.parts.kept) == [11, 12, 13]
    assert [job.priority for job in entrance.jobs] == [3]


async def test_a_batch_that_comes_again_takes_no_room_in_an_album(entrance: Entrance) -> None:
    """The database was full for a while: the last of ten parts has its place all the same."""
    entrance.shelf.broken = True
    for _ in range(4):
        with pytest.raises(StorageError):
            await entrance.take(part(11), part(12), part(13))
    entrance.shelf.broken = False
    await entrance.take(*(part(number) for number in range(11, 21)))
    assert sorted(entrance.parts.kept) == list(range(11, 21))


async def test_an_album_that_is_too_much_is_told_of_once(entrance: Entrance) -> None:
    entrance.shelf.full = {IN_PRIVATE}
    await entrance.take(part(11), part(12), part(13))
    assert entrance.kinds == ["queue-full"]


async def test_an_album_of_which_a_part_has_its_place_is_answered_whole(entrance: Entrance) -> None:
    """The lane is full after that part: the others are answered with it, and nobody is told otherwise."""
    await entrance.take(part(11))
    entrance.shelf.full = {IN_PRIVATE}
    await entrance.doorway.take([{"update_id": 2, **part(12)}])
    assert entrance.kinds == ["update"]
    assert sorted(entrance.parts.kept) == [11, 12]


# Moderated groups.

BY_ANN, BY_BOB = "group:-100:7", "group:-100:8"


@pytest.mark.parametrize(
    ("content", "lane", "for_bot"),
    [
        # Everything that people say is kept, each person's in order, edits too.
        ({"message": said("hello Bob", chat=GROUP)}, BY_ANN, False),
        ({"message": said("hello Ann", chat=GROUP, **{"from": BOB})}, BY_BOB, False),
        ({"edited_message": said("hello!", chat=GROUP, edit_date=2)}, BY_ANN, False),
        # What is for the bot goes where it always goes, and is judged there.
        ({"message": said("@understudy_bot hello", chat=GROUP)}, IN_GROUP, True),
        ({"message": said("/report", chat=GROUP)}, NOW, True),
        # Elsewhere nobody is judged.
        ({"message": said("hello")}, IN_PRIVATE, True),
        ({"edited_message": said("hello!", edit_date=2)}, None, None),
    ],
)
async def test_in_a_moderated_group(
    entrance: Entrance, content: dict[str, Any], lane: str | None, *, for_bot: bool | None
) -> None:
    entrance.moderator.groups = {-100}
    await entrance.take(content)
    assert [job.lane for job in entrance.jobs] == ([] if lane is None else [lane])
    assert [parse_payload(job).is_for_bot for job in entrance.jobs] == ([] if lane is None else [for_bot])


async def test_strangers_in_a_moderated_group_are_judged_and_not_answered(traffic: Traffic, clock: ManualClock) -> None:
    entrance = Entrance(traffic, clock, users=frozenset({8}))
    entrance.moderator.groups = {-100}
    await entrance.take(
        {"message": said("@understudy_bot hello", chat=GROUP)}, {"message": said("hello", chat=GROUP, **{"from": BOB})}
    )
    assert [parse_payload(job).is_admitted for job in entrance.jobs] == [False, True]


async def test_an_album_in_a_moderated_group_is_kept_whole_and_in_one_lane(entrance: Entrance) -> None:
    """Whichever part comes first: the one that is for the bot is answered by whoever takes the album."""
    entrance.moderator.groups = {-100}
    await entrance.take(part(11, chat=GROUP), part(12, "@understudy_bot look", chat=GROUP))
    assert sorted(entrance.parts.kept) == [11, 12]
    assert {job.lane for job in entrance.jobs} == {IN_GROUP}


async def test_a_database_that_does_not_say_who_is_moderated_confirms_nothing(entrance: Entrance) -> None:
    async def fails(_: Update) -> bool:
        raise StorageError("the database failed: it is locked")

    entrance.moderator.concerns = fails  # type: ignore[method-assign]
    with pytest.raises(StorageError):
        await entrance.take({"message": said("hello Bob", chat=GROUP)})
    assert not entrance.jobs
