"""ChatService: retries, a failing database, bugs, and the log."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import delete
from structlog.testing import capture_logs

from core.db.database import Database
from core.db.tables import ThreadRow
from core.errors import StorageError
from core.i18n import Texts
from core.messages import Attachment
from services.chat.reply import ReplyPhase
from services.chat.store.conversation import TurnStatus
from tests.support.chat_harness import (
    GROUP,
    PRIVATE,
    BrokenNotes,
    ChatHarness,
    blamed_providers,
    can_retry,
    chat_harness,
    locked,
    message,
    opened,
    sent_messages,
)
from tests.support.fake_llm.server import (
    LLMServer,
    answer,
    content_filter_rejected,
    error_in_stream,
    gate,
    hang,
    stall,
    status,
    tool_call,
)
from tests.support.llm_harness import provider

pytestmark = pytest.mark.integration

TEXTS = Texts(strict=True)
english = TEXTS.get
"""A text in English, by its key."""
PHOTO = Attachment(b"\x89PNG not really", "image/png")


class TestRetry:
    """A turn is answered again."""

    async def test_retry_replaces_the_turn(self, database: Database, first: LLMServer) -> None:
        """The model gets the history before that turn; later turns see the new answer only."""
        async with chat_harness(database, provider("first", first.url)) as harness:
            first.script(answer("zero"), answer("bad"), answer("good"))
            await harness.say("Before")
            reply = await harness.say("Question")
            again = await harness.retry(reply)
            assert again.text == "good"
            assert sent_messages(first.requests[-1]) == [
                ("user", "Before"),
                ("assistant", "zero"),
                ("user", "Question"),
            ]
            assert (await harness.row(reply)).status == TurnStatus.SUPERSEDED
            await harness.say("After")
            assert sent_messages(first.requests[-1])[2:] == [
                ("user", "Question"),
                ("assistant", "good"),
                ("user", "After"),
            ]

    async def test_retry_of_a_failed_turn_restores_its_file(self, harness: ChatHarness, first: LLMServer) -> None:
        first.script(status(529))
        reply = await harness.say(message("What is it?", attachments=(PHOTO,)))
        harness.clock.shift(301)
        again = await harness.retry(reply)
        assert again.phase is ReplyPhase.COMPLETE
        assert sent_messages(first.requests[-1]) == [("user", "What is it?\n[an image that you cannot see]")]
        assert (await harness.row(reply)).status == TurnStatus.SUPERSEDED

    async def test_failed_retry_keeps_the_earlier_answer(self, harness: ChatHarness, first: LLMServer) -> None:
        reply = await harness.say("Question")
        first.script(status(401))
        assert (await harness.retry(reply)).phase is ReplyPhase.FAILED
        assert (await harness.row(reply)).status == TurnStatus.COMPLETE
        await harness.say("After")
        assert sent_messages(first.requests[-1]) == [("user", "Question"), ("assistant", "Hello"), ("user", "After")]

    async def test_retry_of_a_failed_retry_replaces_the_original_turn(
        self, harness: ChatHarness, first: LLMServer
    ) -> None:
        """The history holds the question once."""
        reply = await harness.say("Question")
        first.script(status(401), answer("better"))
        failed = await harness.retry(reply)
        again = await harness.retry(failed)
        assert sent_messages(first.requests[-1]) == [("user", "Question")]
        assert again.text == "better"
        assert (await harness.row(reply)).status == TurnStatus.SUPERSEDED
        await harness.say("After")
        assert sent_messages(first.requests[-1]) == [("user", "Question"), ("assistant", "better"), ("user", "After")]

    async def test_retry_stopped_without_text_keeps_the_earlier_answer(
        self, harness: ChatHarness, first: LLMServer
    ) -> None:
        reply = await harness.say("Question")
        first.script(hang())
        assert reply.turn_id is not None
        again, turn = harness.begin(retry_of=await harness.stores.turns.turn(reply.turn_id))
        await first.arrival(2)
        again.stop()
        await turn
        assert again.phase is ReplyPhase.STOPPED
        assert (await harness.row(reply)).status == TurnStatus.COMPLETE
        await harness.say("After")
        assert sent_messages(first.requests[-1]) == [("user", "Question"), ("assistant", "Hello"), ("user", "After")]

    async def test_retry_stopped_in_mid_answer_replaces_the_turn(self, harness: ChatHarness, first: LLMServer) -> None:
        reply = await harness.say("Question")
        first.script(stall(2))
        assert reply.turn_id is not None
        again, turn = harness.begin(retry_of=await harness.stores.turns.turn(reply.turn_id))
        await again.wait_beyond(len("The audience") - 1)
        again.stop()
        await turn
        assert (await harness.row(reply)).status == TurnStatus.SUPERSEDED

    async def test_retry_of_an_unreadable_prompt_uses_the_message(self, harness: ChatHarness, first: LLMServer) -> None:
        reply = await harness.say("Question")
        assert reply.turn_id is not None
        turn = await harness.stores.turns.turn(reply.turn_id)
        assert turn is not None
        await harness.say(message("The question"), retry_of=replace(turn, prompt=None))
        assert sent_messages(first.requests[-1]) == [("user", "The question")]

    async def test_retry_saved_late_replaces_the_turn(self, harness: ChatHarness, file: Database) -> None:
        reply = await harness.say("Question")
        assert reply.turn_id is not None
        turn = await harness.stores.turns.turn(reply.turn_id)
        with locked(file):
            await harness.say(message(""), retry_of=turn)
        await harness.chat.deferred.flush()
        assert [row.status for row in await harness.rows()] == [TurnStatus.SUPERSEDED, TurnStatus.COMPLETE]


class TestStorage:
    """A database that fails."""

    async def test_locked_database_defers_turns_in_order(
        self, harness: ChatHarness, file: Database, first: LLMServer
    ) -> None:
        """Answers have a footer about it until the turns are saved."""
        await harness.say("Zero")
        with locked(file):
            replies = [await harness.say(text) for text in ("One", "Two", "Three")]
            assert len(await harness.rows()) == 1
        for reply in replies:
            assert (reply.phase, reply.text) == (ReplyPhase.COMPLETE, "Hello")
            assert reply.footer == english("failed-storage-footer")
            assert not can_retry(reply)
        # Reading goes on while another process writes.
        assert sent_messages(first.requests[-1]) == [("user", "Zero"), ("assistant", "Hello"), ("user", "Three")]
        await harness.chat.deferred.flush()
        assert [(row.status, row.provider) for row in await harness.rows()] == [(TurnStatus.COMPLETE, "first")] * 4
        await harness.say("Four")
        said = [text for role, text in sent_messages(first.requests[-1]) if role == "user"]
        assert said == ["Zero", "One", "Two", "Three", "Four"]

    async def test_deferred_turns_are_saved_before_the_next(
        self, harness: ChatHarness, file: Database, first: LLMServer
    ) -> None:
        with locked(file):
            await harness.say("One")
        reply = await harness.say("Two")
        assert reply.footer is None
        assert sent_messages(first.requests[-1]) == [("user", "One"), ("assistant", "Hello"), ("user", "Two")]

    async def test_answer_is_deferred_when_only_the_prompt_was_saved(
        self, harness: ChatHarness, file: Database, first: LLMServer
    ) -> None:
        shown = asyncio.Event()
        first.script(gate(shown, after_pieces=1, then=answer("Hello there")))
        reply, turn = harness.begin("One")
        await reply.wait_beyond(0)
        with locked(file):
            shown.set()
            await turn
            assert reply.footer is not None
            assert (await harness.row(reply)).status == TurnStatus.RUNNING
        assert can_retry(reply)
        await harness.say("Two")
        assert sent_messages(first.requests[-1]) == [("user", "One"), ("assistant", "Hello there"), ("user", "Two")]

    async def test_prompt_is_saved_with_the_answer_after_a_lock(
        self, harness: ChatHarness, file: Database, first: LLMServer
    ) -> None:
        await harness.say("Zero")
        shown = asyncio.Event()
        first.script(gate(shown, then=answer("Hello there")))
        with locked(file):
            reply, turn = harness.begin("One")
            await first.arrival(2)
        shown.set()
        await turn
        assert reply.footer is None
        assert can_retry(reply)
        assert (await harness.row(reply)).status == TurnStatus.COMPLETE

    async def test_concurrent_turns_flush_each_deferred_turn_once(self, harness: ChatHarness, file: Database) -> None:
        with locked(file):
            for text in ("One", "Two", "Three"):
                await harness.say(text)
        await asyncio.gather(*(harness.say(message(key=replace(PRIVATE, chat_id=chat))) for chat in (11, 12, 13)))
        rows = await harness.rows()
        assert len(rows) == 6
        assert [json.loads(row.prompt)[0]["parts"][0]["content"] for row in rows[:3]] == ["One", "Two", "Three"]

    async def test_concurrent_turns_are_answered_during_a_lock(self, harness: ChatHarness, file: Database) -> None:
        """All are saved in the end."""
        with locked(file):
            await harness.say("One")
            chats = [replace(PRIVATE, chat_id=100 + number) for number in range(12)]
            replies = await asyncio.gather(*(harness.say(message(key=chat)) for chat in chats))
        assert {reply.phase for reply in replies} == {ReplyPhase.COMPLETE}
        await harness.chat.deferred.flush()
        assert len(await harness.rows()) == 1 + len(chats)

    async def test_deferred_turn_of_a_deleted_thread_is_dropped(self, harness: ChatHarness, file: Database) -> None:
        """It stays deleted and does not block the others."""
        await harness.say("Zero")
        with locked(file):
            await harness.say("One")
        async with file.session() as session:
            await session.execute(delete(ThreadRow))
        assert (await harness.say("Two")).footer is None
        with locked(file):
            await harness.say("Three")
        await harness.chat.deferred.flush()
        assert [json.loads(row.prompt)[0]["parts"][0]["content"] for row in await harness.rows()] == ["Two", "Three"]

    async def test_missing_database_answers_without_history(
        self, harness: ChatHarness, file: Database, first: LLMServer
    ) -> None:
        """The footer says so, and the turn is saved once the file is back."""
        await harness.say("Zero")
        place = Path(file.name).parent
        aside = place.with_name("aside")
        await file.close()
        place.rename(aside)
        reply = await harness.say("One")
        assert sent_messages(first.requests[-1]) == [("user", "One")]
        assert (reply.phase, reply.text) == (ReplyPhase.COMPLETE, "Hello")
        assert reply.footer == "\n".join(map(english, ("degraded-memory-footer", "failed-storage-footer")))
        await file.close()
        aside.rename(place)
        await harness.say("Two")
        assert [text for role, text in sent_messages(first.requests[-1]) if role == "user"] == ["Zero", "One", "Two"]

    async def test_failed_answer_has_no_storage_footer(
        self, harness: ChatHarness, file: Database, first: LLMServer
    ) -> None:
        first.default = status(529)
        with locked(file):
            reply = await harness.say("One")
        assert (reply.phase, reply.footer, can_retry(reply)) == (ReplyPhase.FAILED, None, False)

    async def test_read_only_database_provides_the_history(self, file: Database, first: LLMServer) -> None:
        """New turns are not saved."""
        async with chat_harness(file, provider("first", first.url)) as harness:
            await harness.say("Zero")
        async with (
            opened(file, "file:{}?mode=ro&uri=true") as read_only,
            chat_harness(read_only, provider("first", first.url)) as harness,
        ):
            reply = await harness.say("One")
        assert reply.phase is ReplyPhase.COMPLETE
        assert sent_messages(first.requests[-1]) == [("user", "Zero"), ("assistant", "Hello"), ("user", "One")]
        assert reply.footer == english("failed-storage-footer")


class TestBugs:
    """Unexpected exceptions."""

    async def test_exception_of_a_tool_fails_the_turn(self, file: Database, first: LLMServer) -> None:
        """The user gets a notice, the log the traceback, and the next turn works."""
        async with chat_harness(file, provider("first", first.url), notes=BrokenNotes()) as harness:
            first.script(tool_call("recall", {}))
            with capture_logs() as logs:
                reply = await harness.say("What do you know?")
            assert reply.phase is ReplyPhase.FAILED
            assert reply.notice == english("failed-unexpected")
            (failed,) = [entry for entry in logs if entry["event"] == "turn.failed"]
            assert isinstance(failed["exc_info"], ZeroDivisionError)
            assert failed["exc_info"].__traceback__ is not None
            assert blamed_providers(harness) == []
            assert (await harness.say("Hello?")).phase is ReplyPhase.COMPLETE

    @pytest.mark.parametrize("place", ["begin", "current", "recall", "open_turn", "close_turn"])
    async def test_exception_of_a_store_ends_the_reply(
        self, harness: ChatHarness, monkeypatch: pytest.MonkeyPatch, place: str
    ) -> None:

        async def broken(*_: object, **__: object) -> None:
            raise ZeroDivisionError

        async def refused(*_: object, **__: object) -> None:
            raise StorageError("the database failed: it is read-only")

        # Where the database accepts only a part of it, the turn begins step by step.
        monkeypatch.setattr(harness.stores.turns, "begin", refused)
        store = harness.stores.memories if place == "recall" else harness.stores.turns
        monkeypatch.setattr(store, place, broken)
        with capture_logs() as logs:
            reply = await asyncio.wait_for(harness.say(), 5)
        assert reply.phase is (ReplyPhase.COMPLETE if place == "close_turn" else ReplyPhase.FAILED)
        assert any(entry.get("exc_info") for entry in logs)

    async def test_model_with_invalid_tool_calls_fails_the_turn(self, harness: ChatHarness, first: LLMServer) -> None:
        """After a few corrections; the log does not quote the model."""
        first.default = tool_call("current_time", {"time_zone": "Xanadu"})
        with capture_logs() as logs:
            reply = await harness.say()
        assert len(first.requests) == 3
        assert (reply.phase, reply.notice) == (ReplyPhase.FAILED, english("failed-unexpected"))
        assert [entry["log_level"] for entry in logs if entry["event"] == "turn.model_misbehaved"] == ["warning"]
        assert "Xanadu" not in repr(logs)


class TestLog:
    """The log of operators."""

    async def test_log_contains_no_message_text(
        self, file: Database, first: LLMServer, second: LLMServer, log: Callable[[], str]
    ) -> None:
        """At level debug, over answers, failures, tools and locks."""
        patience = {"first_token_timeout_s": 5.0, "stall_timeout_s": 5.0}
        providers = (provider("first", first.url, **patience), provider("second", second.url, **patience))
        async with chat_harness(file, *providers) as harness:
            secret = "Xanadu"
            for server in (first, second):
                server.default = answer(secret)
            first.script(
                tool_call("remember", {"note": secret}, secret),
                answer(secret),
                tool_call("current_time", {"time_zone": secret}),
                answer(secret),
                error_in_stream(2, message=secret),
                content_filter_rejected(),
                status(422, {"error": {"message": secret}}),
                status(500, {"error": {"message": secret}}),
            )
            for _ in range(8):
                await harness.say(message(secret, key=GROUP, chat_title=secret, quoted=secret))
            with locked(file):
                await harness.say(secret)
            await harness.say(secret)
            first.default = tool_call("current_time", {"time_zone": secret})
            second.default = first.default
            await harness.say(secret)
        written = log()
        assert "turn.ended" in written
        assert "turn.backlog_flushed" in written
        assert [line for line in written.splitlines() if secret in line] == []
