"""Turns that are stopped, cut off by a shutdown, or resumed by a retried job."""

import asyncio

import pytest

from core.db.database import Database
from core.i18n import Texts
from core.messages import Attachment
from services.chat.reply import ReplyPhase
from services.chat.store.conversation import TurnStatus
from tests.support.chat_harness import (
    ChatHarness,
    SlowNotes,
    blamed_providers,
    can_retry,
    chat_harness,
    locked,
    message,
    opened,
    told,
    unanswered_calls,
)
from tests.support.fake_llm.server import (
    Behaviour,
    LLMServer,
    answer,
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


class TestStop:
    """The user presses Stop."""

    async def test_before_the_first_word(self, bench: ChatHarness, first: LLMServer) -> None:
        """The provider's socket is closed and nobody is blamed; a Retry is offered."""
        first.script(hang())
        reply, turn = bench.begin("Think!")
        request = await first.arrival(1)
        reply.stop()
        await turn
        assert (reply.phase, reply.text, reply.notice, reply.footer) == (
            ReplyPhase.STOPPED,
            "",
            english("stopped"),
            None,
        )
        await asyncio.wait_for(request.abandoned.wait(), 2)
        assert (await bench.row(reply)).status == TurnStatus.STOPPED
        assert can_retry(reply)
        assert blamed_providers(bench) == []

    async def test_in_mid_answer(self, bench: ChatHarness, first: LLMServer) -> None:
        """What was said stays, is saved as stopped, and is told to the next model."""
        first.script(stall(3))
        reply, turn = bench.begin("Talk!")
        await reply.changed(len("The audience hears") - 1)
        reply.stop()
        await turn
        assert (reply.phase, reply.text, reply.notice) == (ReplyPhase.STOPPED, "The audience hears", english("stopped"))
        assert reply.provider == "first"
        await asyncio.wait_for(first.requests[0].abandoned.wait(), 2)
        row = await bench.row(reply)
        assert (row.status, row.provider) == (TurnStatus.STOPPED, "first")
        assert blamed_providers(bench) == []
        await bench.say("Go on")
        assert told(first.requests[-1]) == [
            ("user", "Talk!"),
            ("assistant", "The audience hears"),
            ("user", "Go on"),
        ]

    async def test_before_anybody_was_asked(self, bench: ChatHarness, first: LLMServer) -> None:
        """It costs no request."""
        reply, turn = bench.begin("Think!")
        reply.stop()
        await turn
        assert reply.phase is ReplyPhase.STOPPED
        assert first.requests == []
        assert (await bench.row(reply)).status == TurnStatus.STOPPED

    async def test_after_the_end(self, bench: ChatHarness) -> None:
        """Nothing happens."""
        reply = await bench.say()
        reply.stop()
        assert reply.phase is ReplyPhase.COMPLETE
        assert (await bench.row(reply)).status == TurnStatus.COMPLETE

    async def test_twice_in_a_row_before_the_first_word(self, bench: ChatHarness, first: LLMServer) -> None:
        """The prompts stand side by side then; the answer to the third is saved as any other."""
        for text in ("One", "Two"):
            first.script(hang())
            reply, turn = bench.begin(text)
            await first.arrival(len(first.requests) + 1)
            reply.stop()
            await turn
        reply = await bench.say("Three")
        assert (reply.provider, (await bench.row(reply)).provider) == ("first", "first")
        await bench.say("Four")
        assert told(first.requests[-1]) == [
            ("user", "One"),
            ("user", "Two"),
            ("user", "Three"),
            ("assistant", "Hello"),
            ("user", "Four"),
        ]

    async def test_while_a_tool_works(self, file: Database, first: LLMServer) -> None:
        """The call has no result; the next request holds no call without one."""
        notes = SlowNotes()
        async with chat_harness(file, provider("first", first.url), notes=notes) as bench:
            first.script(tool_call("recall", {}, "Let me think."))
            reply, turn = bench.begin("What do you know?")
            await asyncio.wait_for(notes.asked.wait(), 2)
            reply.stop()
            await turn
            assert (reply.phase, reply.text) == (ReplyPhase.STOPPED, "Let me think.")
            await bench.say("Go on")
        assert unanswered_calls(first) == set()
        assert told(first.requests[-1]) == [
            ("user", "What do you know?"),
            ("assistant", "Let me think."),
            ("user", "Go on"),
        ]

    async def test_after_a_tool_has_worked(self, bench: ChatHarness, first: LLMServer) -> None:
        """The call and its result are told again together, and what comes after them is saved."""
        first.script(tool_call("current_time", {}), hang())
        reply, turn = bench.begin("What time is it?")
        await first.arrival(2)
        reply.stop()
        await turn
        await bench.say("Well?")
        assert unanswered_calls(first) == set()
        assert [role for role, _ in told(first.requests[-1])] == ["user", "assistant", "tool", "user"]
        await bench.say("Thanks")
        assert told(first.requests[-1])[-3:] == [("user", "Well?"), ("assistant", "Hello"), ("user", "Thanks")]


class TestShutdown:
    """The process is told to end."""

    @pytest.mark.parametrize(
        ("behaviour", "text"),
        [
            (hang(), ""),
            (stall(3), "The audience hears"),
        ],
    )
    async def test_in_the_middle(self, bench: ChatHarness, first: LLMServer, behaviour: Behaviour, text: str) -> None:
        """What was said is saved as interrupted, the user is told, the cancellation goes on."""
        first.script(behaviour)
        reply, turn = bench.begin("Talk!")
        await first.arrival(1)
        await reply.changed(len(text) - 1)
        turn.cancel()
        with pytest.raises(asyncio.CancelledError):
            await turn
        assert (reply.phase, reply.text) == (ReplyPhase.INTERRUPTED, text)
        assert reply.notice == english("shutting-down")
        assert (await bench.row(reply)).status == TurnStatus.INTERRUPTED
        await asyncio.wait_for(first.requests[0].abandoned.wait(), 2)
        assert blamed_providers(bench) == []

    async def test_beats_a_stop(self, bench: ChatHarness, first: LLMServer) -> None:
        """Both at the same moment: the caller's cancellation must not be lost."""
        first.script(stall(1))
        reply, turn = bench.begin("Talk!")
        await reply.changed(0)
        reply.stop()
        turn.cancel()
        with pytest.raises(asyncio.CancelledError):
            await turn
        assert reply.phase is ReplyPhase.INTERRUPTED

    async def test_while_the_answer_is_being_saved(self, file: Database, first: LLMServer) -> None:
        """It was read in full: it is saved in full, and the cancellation goes on after that."""
        shown = asyncio.Event()
        first.script(gate(shown, after_pieces=1, then=answer("Hello there")))
        async with (
            opened(file, busy_timeout_s=5) as patient,
            chat_harness(patient, provider("first", first.url)) as bench,
        ):
            reply, turn = bench.begin()
            await reply.changed(0)
            with locked(file) as other:
                shown.set()
                await reply.changed(len("Hello"))
                await asyncio.sleep(0.1)
                turn.cancel()
                await asyncio.sleep(0.1)
                assert not turn.done()
                other.execute("COMMIT")
            with pytest.raises(asyncio.CancelledError):
                await turn
            assert (reply.phase, reply.text, reply.footer) == (ReplyPhase.COMPLETE, "Hello there", None)
            assert (await bench.row(reply)).status == TurnStatus.COMPLETE

    async def test_that_cannot_wait_for_the_database(self, file: Database, first: LLMServer) -> None:
        """A second cancellation ends it at once; nobody is left watching a reply that never ends."""
        first.script(stall(1))
        async with (
            opened(file, busy_timeout_s=1) as patient,
            chat_harness(patient, provider("first", first.url)) as bench,
        ):
            reply, turn = bench.begin()
            await reply.changed(0)
            with locked(file) as other:
                turn.cancel()
                await asyncio.sleep(0.1)
                turn.cancel()
                await asyncio.wait({turn}, timeout=5)
                assert turn.cancelled()
                assert reply.phase is ReplyPhase.INTERRUPTED
                other.execute("COMMIT")


class TestOrigin:
    """A turn of a job, which may be done again after a crash or a shutdown."""

    async def test_one_that_was_begun_goes_on(self, bench: ChatHarness, first: LLMServer) -> None:
        """In the same row and in the messages that it had; nobody is told its prompt twice."""
        await bench.say("Before.")
        first.script(hang())
        reply, turn = bench.begin("Talk!", origin="job")
        await first.arrival(2)
        assert reply.turn_id is not None
        await bench.stores.threads.note_answer(reply.turn_id, [11])
        await bench.stores.threads.note_answer(reply.turn_id, [12])
        turn.cancel()
        with pytest.raises(asyncio.CancelledError):
            await turn

        again = await bench.say("Talk!", origin="job")
        assert (again.phase, again.turn_id, again.earlier_ids) == (ReplyPhase.COMPLETE, reply.turn_id, (11, 12))
        assert told(first.requests[2])[-1] == ("user", "Talk!")
        assert [text for _, text in told(first.requests[2])].count("Talk!") == 1
        assert [(row.status, row.origin) for row in await bench.rows()] == [
            (TurnStatus.COMPLETE, None), (TurnStatus.COMPLETE, "job"),
        ]  # fmt: skip

    async def test_one_that_is_handed_back_stays_open(self, bench: ChatHarness, first: LLMServer) -> None:
        """Its user reads what there is, and that the rest comes by itself; it is not saved as interrupted."""
        first.script(stall(3))
        reply, turn = bench.begin("Talk!", origin="job")
        await reply.changed(len("The audience hears") - 1)
        turn.cancel()
        with pytest.raises(asyncio.CancelledError):
            await turn
        assert (reply.phase, reply.text, reply.is_handed_back) == (ReplyPhase.INTERRUPTED, "The audience hears", True)
        assert reply.notice == english("handed-back")
        row = await bench.row(reply)
        assert (row.status, row.messages) == (TurnStatus.RUNNING, None)

    async def test_one_that_was_answered_is_told_again(self, bench: ChatHarness, first: LLMServer) -> None:
        """By whom and all of it, also after another turn; no model is asked, and nothing of it is saved anew."""
        reply = await bench.say("Talk!", origin="job")
        await bench.say("And then?")
        before = await bench.row(reply)
        again = await bench.say("Talk!", origin="job")
        assert (again.text, again.phase, again.notice) == (reply.text, ReplyPhase.COMPLETE, None)
        assert (again.turn_id, again.provider, again.model) == (reply.turn_id, "first", "first-model")
        assert again.footer == reply.footer
        assert len(first.requests) == 2
        after = await bench.row(again)
        assert (after.messages, after.status, after.output_tokens) == (
            before.messages, before.status, before.output_tokens,
        )  # fmt: skip
        assert len(await bench.rows()) == 2

    async def test_the_footer_is_told_again(self, file: Database, first: LLMServer) -> None:
        """Who answered, and that it is only the demo."""
        async with chat_harness(file, provider("first", first.url), demo_ids=frozenset({"first"})) as bench:
            reply = await bench.say("Talk!", origin="job")
            again = await bench.say("Talk!", origin="job")
        assert reply.footer is not None
        assert again.footer == reply.footer

    async def test_after_a_tool_it_reads_the_same(self, bench: ChatHarness, first: LLMServer) -> None:
        first.script(tool_call("current_time", {"zone": "UTC"}, text="Let me see."), answer("It is late."))
        reply = await bench.say("Talk!", origin="job")
        assert reply.text == "Let me see.\n\nIt is late."
        assert (await bench.say("Talk!", origin="job")).text == reply.text

    @pytest.mark.parametrize(
        ("how", "phase", "key"),
        [
            # Somebody pressed Stop, and the process died before the last words stood there.
            ("stop", ReplyPhase.STOPPED, "stopped"),
            ("error", ReplyPhase.INTERRUPTED, "interrupted"),
        ],
    )
    async def test_how_it_ended_is_told_again(
        self, bench: ChatHarness, first: LLMServer, how: str, phase: ReplyPhase, key: str
    ) -> None:
        first.script(stall(2) if how == "stop" else error_in_stream(2))
        reply, turn = bench.begin("Talk!", origin="job")
        if how == "stop":
            await reply.changed(len("The audience") - 1)
            reply.stop()
        await turn
        assert reply.phase is phase
        again = await bench.say("Talk!", origin="job")
        assert (again.text, again.phase, again.notice) == (reply.text, phase, english(key))
        assert len(first.requests) == 1

    async def test_one_of_which_nothing_came_is_tried_again(self, bench: ChatHarness, first: LLMServer) -> None:
        first.script(status(400))
        reply = await bench.say("Talk!", origin="job")
        assert reply.phase is ReplyPhase.FAILED
        again = await bench.say("Talk!", origin="job")
        assert (again.phase, again.turn_id) == (ReplyPhase.COMPLETE, reply.turn_id)

    async def test_a_retry_is_done_again_as_what_it_was(self, bench: ChatHarness, first: LLMServer) -> None:
        """It takes the place of the same turn, once, and tells the model what was said before that."""
        await bench.say("One.")
        reply = await bench.say("Two.")
        assert reply.turn_id is not None
        turn = await bench.stores.threads.turn(reply.turn_id)
        first.script(hang())
        retry, task = bench.begin(message(""), retry_of=turn, origin="job")
        await first.arrival(3)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        for _ in range(2):
            # Answered by the first of these, and told again by the second.
            turn = await bench.stores.threads.turn(reply.turn_id)
            again = await bench.say(message(""), retry_of=turn, origin="job")
            assert (again.phase, again.turn_id) == (ReplyPhase.COMPLETE, retry.turn_id)
        assert len(first.requests) == 4
        assert [role for role, _ in told(first.requests[3])] == ["user", "assistant", "user"]
        assert [row.status for row in await bench.rows()] == [
            TurnStatus.COMPLETE, TurnStatus.SUPERSEDED, TurnStatus.COMPLETE,
        ]  # fmt: skip

    async def test_two_processes_at_once_make_one_turn(
        self, database: Database, replica: Database, first: LLMServer
    ) -> None:
        """One of them was only slow, and taken for dead: both answer, into one row."""
        async with (
            chat_harness(database, provider("first", first.url)) as one,
            chat_harness(replica, provider("first", first.url)) as two,
        ):
            replies = await asyncio.gather(one.say("Talk!", origin="job"), two.say("Talk!", origin="job"))
            assert {reply.phase for reply in replies} == {ReplyPhase.COMPLETE}
            assert len({reply.turn_id for reply in replies}) == 1
            assert [row.status for row in await one.rows()] == [TurnStatus.COMPLETE]

    async def test_without_an_origin_each_is_a_turn_of_its_own(self, bench: ChatHarness) -> None:
        assert (await bench.say("Talk!")).turn_id != (await bench.say("Talk!")).turn_id

    async def test_a_prompt_that_the_database_did_not_take_is_saved_with_its_origin(
        self, bench: ChatHarness, file: Database
    ) -> None:
        """Later, when it takes anything again; done again after that, it is told again."""
        with locked(file):
            reply = await bench.say("Talk!", origin="job")
        assert reply.phase is ReplyPhase.COMPLETE
        await bench.chat.save_unsaved()
        assert [row.origin for row in await bench.rows()] == ["job"]
        assert (await bench.say("Talk!", origin="job")).text == reply.text
