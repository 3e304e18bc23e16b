"""What the jobs of the inbox do, and what they do when they are done again."""

import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from aiogram import Dispatcher, Router
from aiogram.types import CallbackQuery, Message, Update
from pydantic import ValidationError

from bot.telegram.answers.active_replies import ActiveReplies
from bot.telegram.answers.responder import Responder
from bot.telegram.delivery.delivery import Delivery
from bot.telegram.jobs.payloads import Payload, RegenerateTurn, UpdateArrived, UpdateRejected, create_job, parse_payload
from bot.telegram.jobs.regenerate import RegenerateQueue
from bot.telegram.worker import JobWorker
from core.clock import SystemClock
from core.db.database import Database
from core.errors import StorageError
from core.i18n import Texts
from core.messages import ChatKind, ConversationKey, Speaker, Surface
from services.chat.store.conversation import Turn, TurnStatus
from services.inbox.album_parts import AlbumPart, AlbumParts
from services.inbox.job import Job
from services.inbox.sent_messages import SentMessages
from tests.support.chat_harness import ChatHarness, chat_harness
from tests.support.fake_llm.server import LLMServer, answer
from tests.support.fake_telegram.chats import JsonObject, natural_entities
from tests.support.fake_telegram.messages import ANN, BOT, GROUP, message, raw
from tests.support.fake_telegram.server import TelegramServer
from tests.support.fake_telegram.traffic import Traffic
from tests.support.llm_harness import provider
from tests.support.stub_moderator import StubModerator

english = Texts(strict=True).get
PERSON = 7
SPEAKER = Speaker(PERSON, "Ann Lee", "en")
ANSWER = "This is what the first provider says."


class Shelf:
    """An inbox that only keeps."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []
        self.is_full = False

    async def put(self, jobs: Sequence[Job]) -> list[Job]:
        if self.is_full:
            return list(jobs)
        self.jobs += jobs
        return []


class Handled:
    """A dispatcher, and what reached its handlers."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, list[int], str]] = []
        self.dispatcher = Dispatcher(disable_fsm=True)
        router = Router()

        @router.message()
        async def said(message: Message, album: Sequence[Message], job: str) -> None:
            self.seen.append((message.text or message.caption or "", [part.message_id for part in album], job))

        @router.callback_query()
        async def pressed(query: CallbackQuery, album: Sequence[Message], job: str) -> None:
            self.seen.append((query.data or "", [part.message_id for part in album], job))

        self.dispatcher.include_router(router)


class House:
    """Everything behind the doorway."""

    def __init__(self, traffic: Traffic, bench: ChatHarness, database: Database) -> None:
        clock = SystemClock()
        self.bench, self.threads = bench, bench.stores.threads
        self.said, self.parts = SentMessages(database, clock), AlbumParts(database, clock, quiet_s=0.02)
        self.handled, self.shelf, self.moderator = Handled(), Shelf(), StubModerator()
        self.encore = RegenerateQueue(traffic.bot, self.shelf)
        delivery = Delivery(traffic.bot, clock, self.said)
        texts = Texts(strict=True)
        answering = Responder(
            chat=bench.chat, threads=self.threads, delivery=delivery, live=ActiveReplies(), texts=texts, clock=clock,
            mode="off", providers=["first", "second"],
        )  # fmt: skip
        self.backstage = JobWorker(
            bot=traffic.bot, dispatcher=self.handled.dispatcher, responder=answering, delivery=delivery,
            parts=self.parts, moderation=self.moderator, turns=self.threads, texts=texts,
        )  # fmt: skip

    async def do(self, job: Job) -> None:
        """As the inbox does it."""
        with self.said.sent_by(job.id):
            await self.backstage.handle(job)

    async def apologise(self, job: Job, error: Exception | None) -> None:
        with self.said.sent_by(f"{job.id}!"):
            await self.backstage.notify_failure(job, error)

    async def asked(self, text: str) -> Turn:
        """A turn that was answered."""
        reply = await self.bench.say(text)
        assert reply.turn_id is not None
        turn = await self.threads.turn(reply.turn_id)
        assert turn is not None
        return turn


@pytest.fixture
async def house(
    traffic: Traffic,
    file: Database,
    first: LLMServer,
    second: LLMServer,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[House]:
    first.default, second.default = answer(ANSWER), answer("The second one says this.")
    async with chat_harness(file, provider("first", first.url), provider("second", second.url)) as bench:
        yield House(traffic, bench, file)


def job(payload: Payload, number: int = 1) -> Job:
    return create_job(int(str(BOT["id"])), number, None, payload)


def arrived(number: int = 1, **content: object) -> Job:
    return job(UpdateArrived(update={"update_id": number, **content}), number)


class TestUpdates:
    """An update is handled with what the inbox knows it by."""

    async def test_a_message_and_a_press(self, house: House) -> None:
        pressed = {"id": "1", "from": ANN, "chat_instance": "1", "data": "x"}
        await house.do(arrived(1, message=raw("hello")))
        await house.do(arrived(2, callback_query=pressed))
        assert house.handled.seen == [("hello", [], "tg-42-000000000001"), ("x", [], "tg-42-000000000002")]

    async def test_half_a_character_arrives(self, house: House) -> None:
        await house.do(arrived(message=raw("half \ud83d")))
        assert [text for text, *_ in house.handled.seen] == ["half \ud83d"]

    async def test_what_nobody_can_read_is_done(self, house: House) -> None:
        """It was put aside with a line for the operator, and holds nobody up."""
        await house.do(arrived(callback_query={"id": 5}))
        assert house.handled.seen == []

    async def test_what_a_handler_raises_is_for_the_inbox(self, house: House) -> None:
        router = Router()

        @router.edited_message()
        async def fail(message: Message) -> None:
            raise StorageError("the database failed: full")

        house.handled.dispatcher.include_router(router)
        with pytest.raises(StorageError):
            await house.do(arrived(edited_message=raw("hello", edit_date=2)))

    @pytest.mark.parametrize(
        "payload",
        ['{"kind": "telepathy", "text": "what somebody wrote"}', '{"kind": "update", "update": "what somebody wrote"}',
         '{"kind": "again", "turn": "what somebody wrote"}', "{}", "[]"],
    )  # fmt: skip
    async def test_a_job_of_another_version_is_for_the_dead_letters(self, house: House, payload: str) -> None:
        """It fails each time, and its apology does not: whatever it was, nobody knows whom it concerns."""
        strange = Job("tg-42-000000000001", "lane", 1, payload)
        with pytest.raises(ValidationError) as raised:
            await house.do(strange)
        # It is logged.
        assert "somebody wrote" not in str(raised.value)
        await house.apologise(strange, None)

    async def test_what_is_unknown_within_a_job_does_no_harm(self, house: House) -> None:
        """A newer replica may know more of it."""
        fields = {**UpdateArrived(update={"update_id": 1, "message": raw("hello")}).model_dump(), "mood": "good"}
        await house.do(Job("x", "lane", 1, json.dumps(fields)))
        assert [text for text, *_ in house.handled.seen] == ["hello"]


class TestAlbums:
    """The parts of an album are handled as one message."""

    def part(self, number: int) -> dict[str, Any]:
        return {"update_id": number, "message": raw(None, message_id=number, media_group_id="x", caption=f"{number}")}

    async def put(self, house: House, *numbers: int) -> None:
        await house.parts.put([AlbumPart(PERSON, "x", each, json.dumps(self.part(each))) for each in numbers])

    def arrived(self, number: int) -> Job:
        return job(UpdateArrived(update=self.part(number)), number)

    async def test_by_the_first_job_that_is_done(self, house: House) -> None:
        """With the parts that came in another batch; the other jobs have nothing left to do."""
        await self.put(house, 11)
        await self.put(house, 12, 13)
        for number in (11, 12, 13):
            await house.do(self.arrived(number))
        assert house.handled.seen == [("11", [11, 12, 13], "tg-42-000000000011")]

    async def test_a_part_that_comes_later_is_a_message_of_its_own(self, house: House) -> None:
        await self.put(house, 11)
        await house.do(self.arrived(11))
        await self.put(house, 12)
        await house.do(self.arrived(12))
        assert [parts for _, parts, _ in house.handled.seen] == [[11], [12]]

    async def test_done_again_it_has_the_same_parts(self, house: House) -> None:
        await self.put(house, 11, 12)
        for _ in range(2):
            await house.do(self.arrived(11))
        assert [parts for _, parts, _ in house.handled.seen] == [[11, 12], [11, 12]]

    async def test_done_once_more_after_it_was_given_up_it_has_them_too(self, house: House) -> None:
        await self.put(house, 11, 12)
        await house.do(self.arrived(11))
        await house.do(self.arrived(11).replay(5))
        assert [parts for _, parts, _ in house.handled.seen] == [[11, 12], [11, 12]]

    async def test_after_so_long_that_they_are_forgotten_it_is_the_message_alone(self, house: House) -> None:
        await house.do(self.arrived(11).replay(5))
        assert [parts for _, parts, _ in house.handled.seen] == [[11]]


class TestTurnedAway:
    """Who is turned away is told why, once."""

    @pytest.mark.parametrize("reason", ["queue-full", "not-allowed"])
    async def test_in_their_chat(self, house: House, server: TelegramServer, reason: Any) -> None:  # noqa: ANN401 - a literal
        away = job(UpdateRejected(update={"update_id": 1, "message": raw("hello")}, reason=reason))
        for _ in range(2):
            await house.do(away)
        assert server.chat(PERSON).texts() == [english(reason)]
        assert house.handled.seen == []

    async def test_on_a_press(self, house: House, server: TelegramServer) -> None:
        server._queries.add("5")
        pressed = {"id": "5", "from": ANN, "chat_instance": "1", "data": "x"}
        await house.do(job(UpdateRejected(update={"update_id": 1, "callback_query": pressed}, reason="not-allowed")))
        assert server.callback_answers["5"]["text"] == english("not-allowed")

    async def test_what_cannot_be_read_concerns_nobody(self, house: House, server: TelegramServer) -> None:
        await house.do(job(UpdateRejected(update={"update_id": 1}, reason="queue-full")))
        assert server.calls_of("sendMessage") == []


class TestApologies:
    """Whom it concerns is told that their message was given up."""

    @pytest.mark.parametrize(
        ("error", "key"),
        [
            (None, "failed-unexpected"),
            (ValueError("x"), "failed-unexpected"),
            (StorageError("the database failed: full"), "failed-storage"),
        ],
    )
    async def test_in_their_chat_once(
        self, house: House, server: TelegramServer, error: Exception | None, key: str
    ) -> None:
        for _ in range(2):
            await house.apologise(arrived(message=raw("hello")), error)
        assert server.chat(PERSON).texts() == [english(key)]

    async def test_who_wanted_an_answer_again(self, house: House, server: TelegramServer) -> None:
        turn = await house.asked("Hello?")
        again = RegenerateTurn(turn=turn.id, speaker=SPEAKER, chat_kind=ChatKind.PRIVATE, only_latest=True)
        await house.apologise(job(again), None)
        assert server.chat(PERSON).texts() == [english("failed-unexpected")]
        await house.apologise(job(again.model_copy(update={"turn": 999})), None)
        assert len(server.chat(PERSON).texts()) == 1


class TestEncores:
    """An answer that is wanted again."""

    async def ask(
        self, house: House, turn: Turn, *, provider: str | None = None, update_id: int = 9, only_latest: bool = True
    ) -> bool:
        pressed = message("the answer")
        update = Update.model_validate({"update_id": update_id})
        return await house.encore.ask(update, turn, pressed, speaker_user(), provider=provider, only_latest=only_latest)

    async def test_it_waits_behind_what_its_conversation_is_at(self, house: House) -> None:
        """The press has a job of its own, which this one must not be taken for."""
        turn = await house.asked("Hello?")
        assert await self.ask(house, turn, provider="second")
        [put] = house.shelf.jobs
        assert (put.lane, put.is_limited, put.priority) == (str(turn.thread.key), True, 10)
        assert put.id != create_job(42, 9, None, UpdateArrived(update={})).id
        assert parse_payload(put) == RegenerateTurn(
            turn=turn.id, speaker=SPEAKER, chat_kind=ChatKind.PRIVATE, provider="second", only_latest=True
        )

    async def test_in_a_group_it_hangs_on_the_question(self, house: House) -> None:
        turn = await house.asked("Hello?")
        pressed = message("the answer", chat=GROUP, reply_to_message=raw("Hello?", message_id=3, chat=GROUP))
        update = Update.model_validate({"update_id": 9})
        await house.encore.ask(update, turn, pressed, speaker_user(), provider=None, only_latest=False)
        payload = parse_payload(house.shelf.jobs[0])
        assert isinstance(payload, RegenerateTurn)
        assert (payload.reply_to, payload.chat_kind, payload.chat_title) == (3, ChatKind.GROUP, "The Group")

    async def test_where_too_many_wait_the_press_says_so(self, house: House) -> None:
        turn = await house.asked("Hello?")
        house.shelf.is_full = True
        assert not await self.ask(house, turn)

    async def test_it_is_answered_by_whom_was_picked_and_once(
        self, house: House, server: TelegramServer, second: LLMServer
    ) -> None:
        """Done again after that it is told again in the same message, and no model is asked."""
        turn = await house.asked("Hello?")
        await self.ask(house, turn, provider="second")
        for _ in range(3):
            await house.do(house.shelf.jobs[0])
        assert server.chat(PERSON).texts() == ["The second one says this."]
        assert len(second.requests) == 1
        assert [row.status for row in await house.bench.rows()] == [TurnStatus.SUPERSEDED, TurnStatus.COMPLETE]

    async def test_of_two_presses_one_counts(self, house: House, server: TelegramServer, first: LLMServer) -> None:
        """The second one came before the buttons were gone."""
        turn = await house.asked("Hello?")
        await self.ask(house, turn, update_id=9)
        await self.ask(house, turn, update_id=10)
        for each in house.shelf.jobs:
            await house.do(each)
        assert len(server.chat(PERSON).texts()) == 1
        assert len(first.requests) == 2

    @pytest.mark.parametrize("only_latest", [True, False])
    async def test_one_that_is_not_the_latest_any_more(
        self, house: House, server: TelegramServer, *, only_latest: bool
    ) -> None:
        """A Retry is for the latest; a message that waited for consent is answered all the same."""
        turn = await house.asked("Hello?")
        await house.asked("And then?")
        await self.ask(house, turn, only_latest=only_latest)
        await house.do(house.shelf.jobs[0])
        assert len(server.chat(PERSON).texts()) == (0 if only_latest else 1)

    async def test_one_that_is_gone_is_left_alone(self, house: House, server: TelegramServer) -> None:
        await house.do(job(RegenerateTurn(turn=999, speaker=SPEAKER, chat_kind=ChatKind.PRIVATE, only_latest=True)))
        assert server.calls_of("sendMessage") == []

    async def test_its_messages_are_noted_as_its_turns(self, house: House, server: TelegramServer) -> None:
        """So that they can be answered again, and that the job finds them when it is done again."""
        turn = await house.asked("Hello?")
        key = ConversationKey(Surface.TELEGRAM, PERSON, 0)
        await self.ask(house, turn)
        await house.do(house.shelf.jobs[0])
        [said] = server.chat(PERSON).answers()
        noted = await house.threads.turn_of_message(key, said.id)
        assert noted is not None
        assert noted.origin == house.shelf.jobs[0].id


def speaker_user() -> Any:  # noqa: ANN401 - aiogram's type, made from JSON
    """Ann, as she pressed."""
    return message("x").from_user


class TestModeration:
    """What is judged before it is answered."""

    @pytest.mark.parametrize(
        ("content", "flags", "handled"),
        [
            # What is left alone goes on to whoever answers it, what is taken away does not.
            ({"message": raw("@understudy_bot hello", chat=GROUP)}, {}, True),
            ({"message": raw("@understudy_bot spam", chat=GROUP)}, {}, False),
            # Whom the bot does not talk to is judged and not answered.
            ({"message": raw("hello", chat=GROUP)}, {"is_for_bot": False, "is_admitted": False}, False),
            ({"edited_message": raw("spam", chat=GROUP, edit_date=2)}, {"is_for_bot": False}, False),
        ],
    )
    async def test_comes_first(
        self, house: House, content: JsonObject, flags: dict[str, bool], *, handled: bool
    ) -> None:
        house.moderator.groups = {-100}
        await house.do(job(UpdateArrived(update={"update_id": 1, **content}, **flags)))
        assert len(house.moderator.moderated) == 1
        assert bool(house.handled.seen) is handled

    async def test_an_album_is_judged_whole_and_answered_by_the_part_that_asks(self, house: House) -> None:
        """Although the job is that of another part."""
        house.moderator.groups = {-100}
        photo = [{"file_id": "f", "file_unique_id": "u", "width": 1, "height": 1}]
        album: JsonObject = {"chat": GROUP, "media_group_id": "x", "photo": photo}
        silent = {"update_id": 1, "message": raw(None, message_id=11, **album)}
        caption = "@understudy_bot look"
        asks = {
            "update_id": 2,
            "message": raw(None, message_id=12, caption=caption, caption_entities=natural_entities(caption), **album),
        }
        await house.parts.put([AlbumPart(-100, "x", 11 + n, json.dumps(each)) for n, each in enumerate((silent, asks))])
        await house.do(job(UpdateArrived(update=silent, is_for_bot=False)))
        await house.do(job(UpdateArrived(update=asks), 2))
        assert house.moderator.moderated == [(11, 2)]
        assert [(text, parts) for text, parts, _ in house.handled.seen] == [(caption, [11, 12])]

    async def test_a_database_that_fails_keeps_nobody_from_being_answered(self, house: House) -> None:
        """What nobody waits for is tried again."""
        house.moderator.groups = {-100}
        house.moderator.is_broken = True
        await house.do(job(UpdateArrived(update={"update_id": 1, "message": raw("/help", chat=GROUP)})))
        assert len(house.handled.seen) == 1
        said = UpdateArrived(update={"update_id": 2, "message": raw("hello", chat=GROUP)}, is_for_bot=False)
        with pytest.raises(StorageError):
            await house.do(job(said, 2))

    async def test_nobody_is_told_that_something_that_they_did_not_ask_for_failed(
        self, house: House, server: TelegramServer
    ) -> None:
        said = UpdateArrived(update={"update_id": 2, "message": raw("hello", chat=GROUP)}, is_for_bot=False)
        await house.apologise(job(said), ValueError("out of tune"))
        assert not server.chat(-100).texts()
