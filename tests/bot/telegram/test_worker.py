"""JobWorker: updates, albums, rejections, failure notices and moderation; every job may be repeated."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiogram import Router
from aiogram.types import Message
from pydantic import ValidationError

from bot.telegram.jobs import RegenerateTurn, RejectionReason, UpdateArrived, UpdateRejected
from bot.telegram.worker import OUTSIDE_FAULTS
from core.db.database import Database
from core.errors import StorageError, UnreadableUpdate
from core.i18n import Texts
from core.messages import ChatKind, Speaker
from services.inbox.album_parts import AlbumPart
from services.inbox.job import Job
from tests.support.chat_harness import chat_harness
from tests.support.fake_llm.server import LLMServer
from tests.support.fake_telegram.chats import JsonObject, natural_entities
from tests.support.fake_telegram.messages import ANN, GROUP, raw
from tests.support.fake_telegram.server import TelegramServer
from tests.support.fake_telegram.traffic import Traffic
from tests.support.llm_harness import provider
from tests.support.worker_harness import WorkerHarness, job_of, update_job

pytestmark = pytest.mark.integration

text = Texts(strict=True).get
PERSON = 7
SPEAKER = Speaker(PERSON, "Ann Lee", "en")


@pytest.fixture
async def harness(traffic: Traffic, file: Database, first: LLMServer) -> AsyncIterator[WorkerHarness]:
    """A worker with one provider."""
    async with chat_harness(file, provider("first", first.url)) as chat:
        yield WorkerHarness(traffic, chat, file)


class TestUpdates:
    """An update reaches its handler with the id of its job."""

    async def test_messages_and_presses_reach_their_handlers(self, harness: WorkerHarness) -> None:
        pressed = {"id": "1", "from": ANN, "chat_instance": "1", "data": "x"}
        await harness.handle(update_job(1, message=raw("hello")))
        await harness.handle(update_job(2, callback_query=pressed))
        assert harness.handlers.calls == [("hello", [], "tg-42-000000000001"), ("x", [], "tg-42-000000000002")]

    async def test_a_prompt_is_answered_without_asking_filters(
        self, harness: WorkerHarness, server: TelegramServer
    ) -> None:
        payload = UpdateArrived(update={"update_id": 1, "message": raw("hello")}, is_prompt=True)
        await harness.handle(job_of(payload))
        assert harness.handlers.calls == []
        assert len(server.chat(7).texts()) == 1

    async def test_a_lone_surrogate_is_replaced(self, harness: WorkerHarness) -> None:
        """No provider can be sent one."""
        await harness.handle(update_job(message=raw("half \ud83d")))
        assert [text for text, *_ in harness.handlers.calls] == ["half \ufffd"]

    async def test_an_unreadable_update_is_given_up(self, harness: WorkerHarness) -> None:
        """A dead letter that is replayed by a version that cannot read it either is not lost."""
        with pytest.raises(UnreadableUpdate) as caught:
            await harness.handle(update_job(callback_query={"id": 5}))
        assert not isinstance(caught.value, OUTSIDE_FAULTS)
        assert harness.handlers.calls == []

    async def test_an_exception_of_a_handler_reaches_the_inbox(self, harness: WorkerHarness) -> None:
        router = Router()

        @router.edited_message()
        async def fail(message: Message) -> None:
            raise StorageError("the database failed: full")

        harness.handlers.dispatcher.include_router(router)
        with pytest.raises(StorageError):
            await harness.handle(update_job(edited_message=raw("hello", edit_date=2)))

    @pytest.mark.parametrize(
        "payload",
        ['{"kind": "telepathy", "text": "the text of a user"}', '{"kind": "update", "update": "the text of a user"}',
         '{"kind": "again", "turn": "the text of a user"}', "{}", "[]"],
    )  # fmt: skip
    async def test_an_unknown_payload_fails_without_quoting_it(self, harness: WorkerHarness, payload: str) -> None:
        """Each try fails, so the job becomes a dead letter; the failure notice has no addressee and does nothing."""
        unknown = Job("tg-42-000000000001", "lane", 1, payload)
        with pytest.raises(ValidationError) as raised:
            await harness.handle(unknown)
        # It is logged.
        assert "the text of a user" not in str(raised.value)
        await harness.notify_failure(unknown, None)

    async def test_unknown_fields_of_a_payload_are_ignored(self, harness: WorkerHarness) -> None:
        """A newer replica may have stored them."""
        fields = {**UpdateArrived(update={"update_id": 1, "message": raw("hello")}).model_dump(), "mood": "good"}
        await harness.handle(Job("x", "lane", 1, json.dumps(fields)))
        assert [text for text, *_ in harness.handlers.calls] == ["hello"]


class TestAlbums:
    """The parts of an album are handled as one message."""

    def part(self, number: int) -> dict[str, Any]:
        return {"update_id": number, "message": raw(None, message_id=number, media_group_id="x", caption=f"{number}")}

    async def store(self, harness: WorkerHarness, *numbers: int) -> None:
        await harness.parts.put([AlbumPart(PERSON, "x", each, json.dumps(self.part(each))) for each in numbers])

    def update_job(self, number: int) -> Job:
        return job_of(UpdateArrived(update=self.part(number)), number)

    async def test_the_first_job_handles_all_parts(self, harness: WorkerHarness) -> None:
        """Parts of another batch included; the other jobs do nothing."""
        await self.store(harness, 11)
        await self.store(harness, 12, 13)
        for number in (11, 12, 13):
            await harness.handle(self.update_job(number))
        assert harness.handlers.calls == [("11", [11, 12, 13], "tg-42-000000000011")]

    async def test_a_late_part_is_a_message_of_its_own(self, harness: WorkerHarness) -> None:
        await self.store(harness, 11)
        await harness.handle(self.update_job(11))
        await self.store(harness, 12)
        await harness.handle(self.update_job(12))
        assert [parts for _, parts, _ in harness.handlers.calls] == [[11], [12]]

    async def test_a_repeated_job_gets_the_same_parts(self, harness: WorkerHarness) -> None:
        await self.store(harness, 11, 12)
        for _ in range(2):
            await harness.handle(self.update_job(11))
        assert [parts for _, parts, _ in harness.handlers.calls] == [[11, 12], [11, 12]]

    async def test_a_replayed_dead_letter_gets_the_same_parts(self, harness: WorkerHarness) -> None:
        await self.store(harness, 11, 12)
        await harness.handle(self.update_job(11))
        await harness.handle(self.update_job(11).replay(5))
        assert [parts for _, parts, _ in harness.handlers.calls] == [[11, 12], [11, 12]]

    async def test_a_replay_after_the_parts_expired_handles_the_message_alone(self, harness: WorkerHarness) -> None:
        await harness.handle(self.update_job(11).replay(5))
        assert [parts for _, parts, _ in harness.handlers.calls] == [[11]]


class TestRejections:
    """The sender of a rejected update gets the reason, once."""

    @pytest.mark.parametrize("reason", ["queue-full", "not-allowed"])
    async def test_the_reason_is_sent_to_the_chat(
        self, harness: WorkerHarness, server: TelegramServer, reason: RejectionReason
    ) -> None:
        rejected = job_of(UpdateRejected(update={"update_id": 1, "message": raw("hello")}, reason=reason))
        for _ in range(2):
            await harness.handle(rejected)
        assert server.chat(PERSON).texts() == [text(reason)]
        assert harness.handlers.calls == []

    async def test_the_reason_answers_a_press(self, harness: WorkerHarness, server: TelegramServer) -> None:
        server._queries.add("5")
        pressed = {"id": "5", "from": ANN, "chat_instance": "1", "data": "x"}
        await harness.handle(
            job_of(UpdateRejected(update={"update_id": 1, "callback_query": pressed}, reason="not-allowed"))
        )
        assert server.callback_answers["5"]["text"] == text("not-allowed")

    async def test_an_unreadable_update_gets_no_reply(self, harness: WorkerHarness, server: TelegramServer) -> None:
        await harness.handle(job_of(UpdateRejected(update={"update_id": 1}, reason="queue-full")))
        assert server.calls_of("sendMessage") == []


class TestFailureNotices:
    """The sender of a job that was given up is notified, once."""

    @pytest.mark.parametrize(
        ("error", "key"),
        [
            (None, "failed-unexpected"),
            (ValueError("x"), "failed-unexpected"),
            (StorageError("the database failed: full"), "failed-storage"),
        ],
    )
    async def test_the_notice_is_sent_once_to_the_chat(
        self, harness: WorkerHarness, server: TelegramServer, error: Exception | None, key: str
    ) -> None:
        for _ in range(2):
            await harness.notify_failure(update_job(message=raw("hello")), error)
        assert server.chat(PERSON).texts() == [text(key)]

    async def test_a_failed_regeneration_is_notified(self, harness: WorkerHarness, server: TelegramServer) -> None:
        turn = await harness.complete_turn("Hello?")
        again = RegenerateTurn(turn=turn.id, speaker=SPEAKER, chat_kind=ChatKind.PRIVATE, only_latest=True)
        await harness.notify_failure(job_of(again), None)
        assert server.chat(PERSON).texts() == [text("failed-unexpected")]
        await harness.notify_failure(job_of(again.model_copy(update={"turn": 999})), None)
        assert len(server.chat(PERSON).texts()) == 1


class TestModeration:
    """Moderation comes before the answer."""

    @pytest.mark.parametrize(
        ("content", "flags", "handled"),
        [
            # A message that is kept is handled, a deleted one is not.
            ({"message": raw("@understudy_bot hello", chat=GROUP)}, {}, True),
            ({"message": raw("@understudy_bot spam", chat=GROUP)}, {}, False),
            # Messages of denied users and edits are judged and not handled.
            ({"message": raw("hello", chat=GROUP)}, {"is_for_bot": False, "is_admitted": False}, False),
            ({"edited_message": raw("spam", chat=GROUP, edit_date=2)}, {"is_for_bot": False}, False),
        ],
    )
    async def test_a_message_is_moderated_before_it_is_handled(
        self, harness: WorkerHarness, content: JsonObject, flags: dict[str, bool], *, handled: bool
    ) -> None:
        harness.moderator.groups = {-100}
        await harness.handle(job_of(UpdateArrived(update={"update_id": 1, **content}, **flags)))
        assert len(harness.moderator.moderated) == 1
        assert bool(harness.handlers.calls) is handled

    async def test_an_album_is_judged_as_one_and_handled_by_the_part_for_the_bot(self, harness: WorkerHarness) -> None:
        """Even if the job is another part's."""
        harness.moderator.groups = {-100}
        photo = [{"file_id": "f", "file_unique_id": "u", "width": 1, "height": 1}]
        album: JsonObject = {"chat": GROUP, "media_group_id": "x", "photo": photo}
        silent = {"update_id": 1, "message": raw(None, message_id=11, **album)}
        caption = "@understudy_bot look"
        asks = {
            "update_id": 2,
            "message": raw(None, message_id=12, caption=caption, caption_entities=natural_entities(caption), **album),
        }
        await harness.parts.put(
            [AlbumPart(-100, "x", 11 + n, json.dumps(each)) for n, each in enumerate((silent, asks))]
        )
        await harness.handle(job_of(UpdateArrived(update=silent, is_for_bot=False)))
        await harness.handle(job_of(UpdateArrived(update=asks), 2))
        assert harness.moderator.moderated == [(11, 2)]
        assert [(text, parts) for text, parts, _ in harness.handlers.calls] == [(caption, [11, 12])]

    async def test_a_moderation_failure_does_not_prevent_the_answer(self, harness: WorkerHarness) -> None:
        """A message that is only moderated is retried."""
        harness.moderator.groups = {-100}
        harness.moderator.is_broken = True
        await harness.handle(job_of(UpdateArrived(update={"update_id": 1, "message": raw("/help", chat=GROUP)})))
        assert len(harness.handlers.calls) == 1
        payload = UpdateArrived(update={"update_id": 2, "message": raw("hello", chat=GROUP)}, is_for_bot=False)
        with pytest.raises(StorageError):
            await harness.handle(job_of(payload, 2))

    async def test_no_failure_notice_for_a_message_that_was_only_moderated(
        self, harness: WorkerHarness, server: TelegramServer
    ) -> None:
        payload = UpdateArrived(update={"update_id": 2, "message": raw("hello", chat=GROUP)}, is_for_bot=False)
        await harness.notify_failure(job_of(payload), ValueError("boom"))
        assert not server.chat(-100).texts()

    @pytest.mark.parametrize(
        ("is_moderated", "moderations"),
        [
            (True, 1),
            (False, 0),
            # Stored by an earlier version: the worker classifies it.
            (None, 1),
        ],
    )
    async def test_the_classification_of_the_job_decides(
        self, harness: WorkerHarness, *, is_moderated: bool | None, moderations: int
    ) -> None:
        harness.moderator.groups = {-100}
        update = {"update_id": 1, "message": raw("/help", chat=GROUP)}
        await harness.handle(job_of(UpdateArrived(update=update, is_moderated=is_moderated)))
        assert len(harness.moderator.moderated) == moderations
        assert len(harness.handlers.calls) == 1
