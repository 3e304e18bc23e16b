"""Turns that are retried, meet a failing database, or run into bugs."""

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
    told,
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

TEXTS = Texts(strict=True)
english = TEXTS.get
"""A text in English, by its key."""
PHOTO = Attachment(b"\x89PNG not really", "image/png")


class TestRetry:
    """The same message, asked again."""

    async def test_takes_the_place(self, database: Database, first: LLMServer) -> None:
        """The model is told what was said before that turn, and the next one hears the new answer alone."""
        async with chat_harness(database, provider("first", first.url)) as bench:
            first.script(answer("zero"), answer("bad"), answer("good"))
            await bench.say("Before")
            reply = await bench.say("Question")
            again = await bench.retry(reply)
            assert again.text == "good"
            assert told(first.requests[-1]) == [("user", "Before"), ("assistant", "zero"), ("user", "Question")]
            assert (await bench.row(reply)).status == TurnStatus.SUPERSEDED
            await bench.say("After")
            assert told(first.requests[-1])[2:] == [("user", "Question"), ("assistant", "good"), ("user", "After")]

    async def test_of_a_failed_turn(self, bench: ChatHarness, first: LLMServer) -> None:
        """The prompt comes back with its file."""
        first.script(status(529))
        reply = await bench.say(message("What is it?", attachments=(PHOTO,)))
        bench.clock.shift(301)
        again = await bench.retry(reply)
        assert again.phase is ReplyPhase.COMPLETE
        assert told(first.requests[-1]) == [("user", "What is it?\n[an image that you cannot see]")]
        assert (await bench.row(reply)).status == TurnStatus.SUPERSEDED

    async def test_that_fails(self, bench: ChatHarness, first: LLMServer) -> None:
        """The earlier answer stands."""
        reply = await bench.say("Question")
        first.script(status(422))
        assert (await bench.retry(reply)).phase is ReplyPhase.FAILED
        assert (await bench.row(reply)).status == TurnStatus.COMPLETE
        await bench.say("After")
        assert told(first.requests[-1]) == [("user", "Question"), ("assistant", "Hello"), ("user", "After")]

    async def test_of_one_that_failed(self, bench: ChatHarness, first: LLMServer) -> None:
        """It takes the place that the failed one was to take: the question is asked once, and told once."""
        reply = await bench.say("Question")
        first.script(status(422), answer("better"))
        failed = await bench.retry(reply)
        again = await bench.retry(failed)
        assert told(first.requests[-1]) == [("user", "Question")]
        assert again.text == "better"
        assert (await bench.row(reply)).status == TurnStatus.SUPERSEDED
        await bench.say("After")
        assert told(first.requests[-1]) == [("user", "Question"), ("assistant", "better"), ("user", "After")]

    async def test_stopped_before_the_first_word(self, bench: ChatHarness, first: LLMServer) -> None:
        """Nothing came of it: the earlier answer stands."""
        reply = await bench.say("Question")
        first.script(hang())
        assert reply.turn_id is not None
        again, turn = bench.begin(retry_of=await bench.stores.threads.turn(reply.turn_id))
        await first.arrival(2)
        again.stop()
        await turn
        assert again.phase is ReplyPhase.STOPPED
        assert (await bench.row(reply)).status == TurnStatus.COMPLETE
        await bench.say("After")
        assert told(first.requests[-1]) == [("user", "Question"), ("assistant", "Hello"), ("user", "After")]

    async def test_stopped_in_mid_answer(self, bench: ChatHarness, first: LLMServer) -> None:
        """What came of it counts, as with any answer."""
        reply = await bench.say("Question")
        first.script(stall(2))
        assert reply.turn_id is not None
        again, turn = bench.begin(retry_of=await bench.stores.threads.turn(reply.turn_id))
        await again.changed(len("The audience") - 1)
        again.stop()
        await turn
        assert (await bench.row(reply)).status == TurnStatus.SUPERSEDED

    async def test_of_a_prompt_that_cannot_be_read_any_more(self, bench: ChatHarness, first: LLMServer) -> None:
        """What the surface still knows of it is asked."""
        reply = await bench.say("Question")
        assert reply.turn_id is not None
        turn = await bench.stores.threads.turn(reply.turn_id)
        assert turn is not None
        await bench.say(message("The question"), retry_of=replace(turn, prompt=None))
        assert told(first.requests[-1]) == [("user", "The question")]

    async def test_while_the_database_is_locked(self, bench: ChatHarness, file: Database) -> None:
        """Saved late, it takes the place all the same."""
        reply = await bench.say("Question")
        assert reply.turn_id is not None
        turn = await bench.stores.threads.turn(reply.turn_id)
        with locked(file):
            await bench.say(message(""), retry_of=turn)
        await bench.chat.save_unsaved()
        assert [row.status for row in await bench.rows()] == [TurnStatus.SUPERSEDED, TurnStatus.COMPLETE]


class TestStorage:
    """The database is not what it should be."""

    async def test_locked(self, bench: ChatHarness, file: Database, first: LLMServer) -> None:
        """Answers are given and say that they are not saved; when the lock is gone they are, in order."""
        await bench.say("Zero")
        with locked(file):
            replies = [await bench.say(text) for text in ("One", "Two", "Three")]
            assert len(await bench.rows()) == 1
        for reply in replies:
            assert (reply.phase, reply.text) == (ReplyPhase.COMPLETE, "Hello")
            assert reply.footer == english("failed-storage-footer")
            assert not can_retry(reply)
        # Reading goes on while another process writes.
        assert told(first.requests[-1]) == [("user", "Zero"), ("assistant", "Hello"), ("user", "Three")]
        await bench.chat.save_unsaved()
        assert [(row.status, row.provider) for row in await bench.rows()] == [(TurnStatus.COMPLETE, "first")] * 4
        await bench.say("Four")
        said = [text for role, text in told(first.requests[-1]) if role == "user"]
        assert said == ["Zero", "One", "Two", "Three", "Four"]

    async def test_saved_before_the_next_turn(self, bench: ChatHarness, file: Database, first: LLMServer) -> None:
        """Nobody has to ask for it."""
        with locked(file):
            await bench.say("One")
        reply = await bench.say("Two")
        assert reply.footer is None
        assert told(first.requests[-1]) == [("user", "One"), ("assistant", "Hello"), ("user", "Two")]

    async def test_locked_in_the_middle(self, bench: ChatHarness, file: Database, first: LLMServer) -> None:
        """The prompt is there, the answer is not; both are in the end."""
        shown = asyncio.Event()
        first.script(gate(shown, after_pieces=1, then=answer("Hello there")))
        reply, turn = bench.begin("One")
        await reply.changed(0)
        with locked(file):
            shown.set()
            await turn
            assert reply.footer is not None
            assert (await bench.row(reply)).status == TurnStatus.RUNNING
        assert can_retry(reply)
        await bench.say("Two")
        assert told(first.requests[-1]) == [("user", "One"), ("assistant", "Hello there"), ("user", "Two")]

    async def test_free_again_in_the_middle(self, bench: ChatHarness, file: Database, first: LLMServer) -> None:
        """The prompt was not taken, the answer is, and with it the prompt: all is well."""
        await bench.say("Zero")
        shown = asyncio.Event()
        first.script(gate(shown, then=answer("Hello there")))
        with locked(file):
            reply, turn = bench.begin("One")
            await first.arrival(2)
        shown.set()
        await turn
        assert reply.footer is None
        assert can_retry(reply)
        assert (await bench.row(reply)).status == TurnStatus.COMPLETE

    async def test_a_crowd_when_the_lock_is_gone(self, bench: ChatHarness, file: Database) -> None:
        """Several chats begin at once, each of them wants to save what waits: it is saved once."""
        with locked(file):
            for text in ("One", "Two", "Three"):
                await bench.say(text)
        await asyncio.gather(*(bench.say(message(key=replace(PRIVATE, chat_id=chat))) for chat in (11, 12, 13)))
        rows = await bench.rows()
        assert len(rows) == 6
        assert [json.loads(row.prompt)[0]["parts"][0]["content"] for row in rows[:3]] == ["One", "Two", "Three"]

    async def test_a_crowd_before_a_lock(self, bench: ChatHarness, file: Database) -> None:
        """All are answered, and all is saved in the end."""
        with locked(file):
            await bench.say("One")
            chats = [replace(PRIVATE, chat_id=100 + number) for number in range(12)]
            replies = await asyncio.gather(*(bench.say(message(key=chat)) for chat in chats))
        assert {reply.phase for reply in replies} == {ReplyPhase.COMPLETE}
        await bench.chat.save_unsaved()
        assert len(await bench.rows()) == 1 + len(chats)

    async def test_erased_while_it_waited(self, bench: ChatHarness, file: Database) -> None:
        """What a user had erased stays erased, and keeps nobody else waiting."""
        await bench.say("Zero")
        with locked(file):
            await bench.say("One")
        async with file.session() as session:
            await session.execute(delete(ThreadRow))
        assert (await bench.say("Two")).footer is None
        with locked(file):
            await bench.say("Three")
        await bench.chat.save_unsaved()
        assert [json.loads(row.prompt)[0]["parts"][0]["content"] for row in await bench.rows()] == ["Two", "Three"]

    async def test_gone(self, bench: ChatHarness, file: Database, first: LLMServer) -> None:
        """Nothing can be read or written: an answer without memory, which says so; nothing of it is lost."""
        await bench.say("Zero")
        place = Path(file.name).parent
        aside = place.with_name("aside")
        await file.close()
        place.rename(aside)
        reply = await bench.say("One")
        assert told(first.requests[-1]) == [("user", "One")]
        assert (reply.phase, reply.text) == (ReplyPhase.COMPLETE, "Hello")
        assert reply.footer == "\n".join(map(english, ("degraded-memory-footer", "failed-storage-footer")))
        await file.close()
        aside.rename(place)
        await bench.say("Two")
        assert [text for role, text in told(first.requests[-1]) if role == "user"] == ["Zero", "One", "Two"]

    async def test_gone_and_nobody_answers(self, bench: ChatHarness, file: Database, first: LLMServer) -> None:
        """One thing at a time: where there is no answer, nothing is said about saving it."""
        first.default = status(529)
        with locked(file):
            reply = await bench.say("One")
        assert (reply.phase, reply.footer, can_retry(reply)) == (ReplyPhase.FAILED, None, False)

    async def test_read_only(self, file: Database, first: LLMServer) -> None:
        """The conversation is known, and does not grow."""
        async with chat_harness(file, provider("first", first.url)) as bench:
            await bench.say("Zero")
        async with (
            opened(file, "file:{}?mode=ro&uri=true") as read_only,
            chat_harness(read_only, provider("first", first.url)) as bench,
        ):
            reply = await bench.say("One")
        assert reply.phase is ReplyPhase.COMPLETE
        assert told(first.requests[-1]) == [("user", "Zero"), ("assistant", "Hello"), ("user", "One")]
        assert reply.footer == english("failed-storage-footer")


class TestBugs:
    """Something that nobody foresaw."""

    async def test_a_tool_raises(self, file: Database, first: LLMServer) -> None:
        """The user gets a friendly line, the log the traceback, and the next turn works."""
        async with chat_harness(file, provider("first", first.url), notes=BrokenNotes()) as bench:
            first.script(tool_call("recall", {}))
            with capture_logs() as logs:
                reply = await bench.say("What do you know?")
            assert reply.phase is ReplyPhase.FAILED
            assert reply.notice == english("failed-unexpected")
            (failed,) = [entry for entry in logs if entry["event"] == "turn.failed"]
            assert isinstance(failed["exc_info"], ZeroDivisionError)
            assert failed["exc_info"].__traceback__ is not None
            assert blamed_providers(bench) == []
            assert (await bench.say("Hello?")).phase is ReplyPhase.COMPLETE

    @pytest.mark.parametrize("place", ["current", "history", "open_turn", "close_turn"])
    async def test_in_the_stores(self, bench: ChatHarness, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
        """Whatever breaks, the reply ends: nobody watches it for ever."""

        async def broken(*_: object, **__: object) -> None:
            raise ZeroDivisionError

        monkeypatch.setattr(bench.stores.threads, place, broken)
        with capture_logs() as logs:
            reply = await asyncio.wait_for(bench.say(), 5)
        assert reply.phase is (ReplyPhase.COMPLETE if place == "close_turn" else ReplyPhase.FAILED)
        assert any(entry.get("exc_info") for entry in logs)

    async def test_a_model_that_never_calls_a_tool_right(self, bench: ChatHarness, first: LLMServer) -> None:
        """It is told its mistake a few times, then the user is told; the log does not quote the model."""
        first.default = tool_call("current_time", {"time_zone": "Xanadu"})
        with capture_logs() as logs:
            reply = await bench.say()
        assert len(first.requests) == 3
        assert (reply.phase, reply.notice) == (ReplyPhase.FAILED, english("failed-unexpected"))
        assert [entry["log_level"] for entry in logs if entry["event"] == "turn.model_misbehaved"] == ["warning"]
        assert "Xanadu" not in repr(logs)


class TestLog:
    """What an operator may read."""

    async def test_no_word_of_a_conversation(
        self, file: Database, first: LLMServer, second: LLMServer, log: Callable[[], str]
    ) -> None:
        """Answers, failures, tools, locks: at the most talkative level, nothing that anybody said."""
        patience = {"first_token_timeout_s": 5.0, "stall_timeout_s": 5.0}
        providers = (provider("first", first.url, **patience), provider("second", second.url, **patience))
        async with chat_harness(file, *providers) as bench:
            said = "Xanadu"
            for server in (first, second):
                server.default = answer(said)
            first.script(
                tool_call("remember", {"note": said}, said),
                answer(said),
                tool_call("current_time", {"time_zone": said}),
                answer(said),
                error_in_stream(2, message=said),
                content_filter_rejected(),
                status(422, {"error": {"message": said}}),
                status(500, {"error": {"message": said}}),
            )
            for _ in range(8):
                await bench.say(message(said, key=GROUP, chat_title=said, quoted=said))
            with locked(file):
                await bench.say(said)
            await bench.say(said)
            first.default = tool_call("current_time", {"time_zone": said})
            second.default = first.default
            await bench.say(said)
        written = log()
        assert "turn.ended" in written
        assert "turn.backlog_flushed" in written
        assert [line for line in written.splitlines() if said in line] == []
