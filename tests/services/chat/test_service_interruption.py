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
    sent_messages,
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

pytestmark = pytest.mark.integration

TEXTS = Texts(strict=True)
english = TEXTS.get
"""A text in English, by its key."""
PHOTO = Attachment(b"\x89PNG not really", "image/png")


class TestStop:
    """The user presses Stop."""

    async def test_stop_before_the_first_token_closes_the_connection(
        self, harness: ChatHarness, first: LLMServer
    ) -> None:
        """No provider is blamed; Retry is possible."""
        first.script(hang())
        reply, turn = harness.begin("Think!")
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
        assert (await harness.row(reply)).status == TurnStatus.STOPPED
        assert can_retry(reply)
        assert blamed_providers(harness) == []

    async def test_stop_in_mid_answer_keeps_the_text(self, harness: ChatHarness, first: LLMServer) -> None:
        """It is saved as stopped and is part of the history."""
        first.script(stall(3))
        reply, turn = harness.begin("Talk!")
        await reply.wait_beyond(len("The audience hears") - 1)
        reply.stop()
        await turn
        assert (reply.phase, reply.text, reply.notice) == (ReplyPhase.STOPPED, "The audience hears", english("stopped"))
        assert reply.provider == "first"
        await asyncio.wait_for(first.requests[0].abandoned.wait(), 2)
        row = await harness.row(reply)
        assert (row.status, row.provider) == (TurnStatus.STOPPED, "first")
        assert blamed_providers(harness) == []
        await harness.say("Go on")
        assert sent_messages(first.requests[-1]) == [
            ("user", "Talk!"),
            ("assistant", "The audience hears"),
            ("user", "Go on"),
        ]

    async def test_stop_before_the_request_sends_none(self, harness: ChatHarness, first: LLMServer) -> None:
        reply, turn = harness.begin("Think!")
        reply.stop()
        await turn
        assert reply.phase is ReplyPhase.STOPPED
        assert first.requests == []
        assert (await harness.row(reply)).status == TurnStatus.STOPPED

    async def test_stop_after_the_end_changes_nothing(self, harness: ChatHarness) -> None:
        reply = await harness.say()
        reply.stop()
        assert reply.phase is ReplyPhase.COMPLETE
        assert (await harness.row(reply)).status == TurnStatus.COMPLETE

    async def test_history_after_two_stopped_prompts_is_valid(self, harness: ChatHarness, first: LLMServer) -> None:
        """The prompts are adjacent; the answer to the third is saved as usual."""
        for text in ("One", "Two"):
            first.script(hang())
            reply, turn = harness.begin(text)
            await first.arrival(len(first.requests) + 1)
            reply.stop()
            await turn
        reply = await harness.say("Three")
        assert (reply.provider, (await harness.row(reply)).provider) == ("first", "first")
        await harness.say("Four")
        assert sent_messages(first.requests[-1]) == [
            ("user", "One"),
            ("user", "Two"),
            ("user", "Three"),
            ("assistant", "Hello"),
            ("user", "Four"),
        ]

    async def test_stop_during_a_tool_leaves_no_open_call(self, file: Database, first: LLMServer) -> None:
        """The call has no result; the next request does not contain it."""
        notes = SlowNotes()
        async with chat_harness(file, provider("first", first.url), notes=notes) as harness:
            first.script(tool_call("recall", {}, "Let me think."))
            reply, turn = harness.begin("What do you know?")
            await asyncio.wait_for(notes.asked.wait(), 2)
            reply.stop()
            await turn
            assert (reply.phase, reply.text) == (ReplyPhase.STOPPED, "Let me think.")
            await harness.say("Go on")
        assert unanswered_calls(first) == set()
        assert sent_messages(first.requests[-1]) == [
            ("user", "What do you know?"),
            ("assistant", "Let me think."),
            ("user", "Go on"),
        ]

    async def test_stop_after_a_tool_keeps_call_and_result(self, harness: ChatHarness, first: LLMServer) -> None:
        first.script(tool_call("current_time", {}), hang())
        reply, turn = harness.begin("What time is it?")
        await first.arrival(2)
        reply.stop()
        await turn
        await harness.say("Well?")
        assert unanswered_calls(first) == set()
        assert [role for role, _ in sent_messages(first.requests[-1])] == ["user", "assistant", "tool", "user"]
        await harness.say("Thanks")
        assert sent_messages(first.requests[-1])[-3:] == [("user", "Well?"), ("assistant", "Hello"), ("user", "Thanks")]


class TestShutdown:
    """The turn is cancelled."""

    @pytest.mark.parametrize(
        ("behaviour", "text"),
        [
            (hang(), ""),
            (stall(3), "The audience hears"),
        ],
    )
    async def test_cancellation_saves_the_partial_answer_and_propagates(
        self, harness: ChatHarness, first: LLMServer, behaviour: Behaviour, text: str
    ) -> None:
        """It is saved as interrupted, and the user gets a notice."""
        first.script(behaviour)
        reply, turn = harness.begin("Talk!")
        await first.arrival(1)
        await reply.wait_beyond(len(text) - 1)
        turn.cancel()
        with pytest.raises(asyncio.CancelledError):
            await turn
        assert (reply.phase, reply.text) == (ReplyPhase.INTERRUPTED, text)
        assert reply.notice == english("shutting-down")
        assert (await harness.row(reply)).status == TurnStatus.INTERRUPTED
        await asyncio.wait_for(first.requests[0].abandoned.wait(), 2)
        assert blamed_providers(harness) == []

    async def test_cancellation_takes_precedence_over_stop(self, harness: ChatHarness, first: LLMServer) -> None:
        """Both at the same moment: the cancellation must propagate."""
        first.script(stall(1))
        reply, turn = harness.begin("Talk!")
        await reply.wait_beyond(0)
        reply.stop()
        turn.cancel()
        with pytest.raises(asyncio.CancelledError):
            await turn
        assert reply.phase is ReplyPhase.INTERRUPTED

    async def test_cancellation_waits_for_the_save_of_a_complete_answer(self, file: Database, first: LLMServer) -> None:
        shown = asyncio.Event()
        first.script(gate(shown, after_pieces=1, then=answer("Hello there")))
        async with (
            opened(file, busy_timeout_s=5) as patient,
            chat_harness(patient, provider("first", first.url)) as harness,
        ):
            reply, turn = harness.begin()
            await reply.wait_beyond(0)
            with locked(file) as other:
                shown.set()
                await reply.wait_beyond(len("Hello"))
                await asyncio.sleep(0.1)
                turn.cancel()
                await asyncio.sleep(0.1)
                assert not turn.done()
                other.execute("COMMIT")
            with pytest.raises(asyncio.CancelledError):
                await turn
            assert (reply.phase, reply.text, reply.footer) == (ReplyPhase.COMPLETE, "Hello there", None)
            assert (await harness.row(reply)).status == TurnStatus.COMPLETE

    async def test_second_cancellation_ends_the_turn_at_once(self, file: Database, first: LLMServer) -> None:
        """The reply ends, so that no watcher hangs."""
        first.script(stall(1))
        async with (
            opened(file, busy_timeout_s=1) as patient,
            chat_harness(patient, provider("first", first.url)) as harness,
        ):
            reply, turn = harness.begin()
            await reply.wait_beyond(0)
            with locked(file) as other:
                turn.cancel()
                await asyncio.sleep(0.1)
                turn.cancel()
                await asyncio.wait({turn}, timeout=5)
                assert turn.cancelled()
                assert reply.phase is ReplyPhase.INTERRUPTED
                other.execute("COMMIT")


class TestOrigin:
    """A turn of a job, which is retried after a crash or a shutdown."""

    async def test_retried_job_continues_its_turn(self, harness: ChatHarness, first: LLMServer) -> None:
        """In the same row and messages; the prompt is sent once."""
        await harness.say("Before.")
        first.script(hang())
        reply, turn = harness.begin("Talk!", origin="job")
        await first.arrival(2)
        assert reply.turn_id is not None
        await harness.stores.turns.note_answer(reply.turn_id, [11])
        await harness.stores.turns.note_answer(reply.turn_id, [12])
        turn.cancel()
        with pytest.raises(asyncio.CancelledError):
            await turn

        again = await harness.say("Talk!", origin="job")
        assert (again.phase, again.turn_id, again.earlier_ids) == (ReplyPhase.COMPLETE, reply.turn_id, (11, 12))
        assert sent_messages(first.requests[2])[-1] == ("user", "Talk!")
        assert [text for _, text in sent_messages(first.requests[2])].count("Talk!") == 1
        assert [(row.status, row.origin) for row in await harness.rows()] == [
            (TurnStatus.COMPLETE, None), (TurnStatus.COMPLETE, "job"),
        ]  # fmt: skip

    async def test_cancelled_job_leaves_its_turn_running(self, harness: ChatHarness, first: LLMServer) -> None:
        """The notice says that the answer continues; the turn is not saved as interrupted."""
        first.script(stall(3))
        reply, turn = harness.begin("Talk!", origin="job")
        await reply.wait_beyond(len("The audience hears") - 1)
        turn.cancel()
        with pytest.raises(asyncio.CancelledError):
            await turn
        assert (reply.phase, reply.text, reply.is_handed_back) == (ReplyPhase.INTERRUPTED, "The audience hears", True)
        assert reply.notice == english("handed-back")
        row = await harness.row(reply)
        assert (row.status, row.messages) == (TurnStatus.RUNNING, None)

    async def test_retried_job_replays_an_answered_turn(self, harness: ChatHarness, first: LLMServer) -> None:
        """Also after another turn; no model is asked and nothing is saved."""
        reply = await harness.say("Talk!", origin="job")
        await harness.say("And then?")
        before = await harness.row(reply)
        again = await harness.say("Talk!", origin="job")
        assert (again.text, again.phase, again.notice) == (reply.text, ReplyPhase.COMPLETE, None)
        assert (again.turn_id, again.provider, again.model) == (reply.turn_id, "first", "first-model")
        assert again.footer == reply.footer
        assert len(first.requests) == 2
        after = await harness.row(again)
        assert (after.messages, after.status, after.output_tokens) == (
            before.messages, before.status, before.output_tokens,
        )  # fmt: skip
        assert len(await harness.rows()) == 2

    async def test_replay_repeats_the_footer(self, file: Database, first: LLMServer) -> None:
        async with chat_harness(file, provider("first", first.url), demo_ids=frozenset({"first"})) as harness:
            reply = await harness.say("Talk!", origin="job")
            again = await harness.say("Talk!", origin="job")
        assert reply.footer is not None
        assert again.footer == reply.footer

    async def test_replay_after_a_tool_call_has_the_same_text(self, harness: ChatHarness, first: LLMServer) -> None:
        first.script(tool_call("current_time", {"zone": "UTC"}, text="Let me see."), answer("It is late."))
        reply = await harness.say("Talk!", origin="job")
        assert reply.text == "Let me see.\n\nIt is late."
        assert (await harness.say("Talk!", origin="job")).text == reply.text

    @pytest.mark.parametrize(
        ("how", "phase", "key"),
        [
            # Stop was pressed, and the process died before the last edit.
            ("stop", ReplyPhase.STOPPED, "stopped"),
            ("error", ReplyPhase.INTERRUPTED, "interrupted"),
        ],
    )
    async def test_replay_repeats_the_notice(
        self, harness: ChatHarness, first: LLMServer, how: str, phase: ReplyPhase, key: str
    ) -> None:
        first.script(stall(2) if how == "stop" else error_in_stream(2))
        reply, turn = harness.begin("Talk!", origin="job")
        if how == "stop":
            await reply.wait_beyond(len("The audience") - 1)
            reply.stop()
        await turn
        assert reply.phase is phase
        again = await harness.say("Talk!", origin="job")
        assert (again.text, again.phase, again.notice) == (reply.text, phase, english(key))
        assert len(first.requests) == 1

    async def test_retried_job_answers_a_failed_turn(self, harness: ChatHarness, first: LLMServer) -> None:
        first.script(status(401))
        reply = await harness.say("Talk!", origin="job")
        assert reply.phase is ReplyPhase.FAILED
        again = await harness.say("Talk!", origin="job")
        assert (again.phase, again.turn_id) == (ReplyPhase.COMPLETE, reply.turn_id)

    async def test_retried_job_of_a_retry_replaces_the_turn_once(self, harness: ChatHarness, first: LLMServer) -> None:
        """The model gets the history before the replaced turn."""
        await harness.say("One.")
        reply = await harness.say("Two.")
        assert reply.turn_id is not None
        turn = await harness.stores.turns.turn(reply.turn_id)
        first.script(hang())
        retry, task = harness.begin(message(""), retry_of=turn, origin="job")
        await first.arrival(3)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        for _ in range(2):
            # The first answers, the second replays.
            turn = await harness.stores.turns.turn(reply.turn_id)
            again = await harness.say(message(""), retry_of=turn, origin="job")
            assert (again.phase, again.turn_id) == (ReplyPhase.COMPLETE, retry.turn_id)
        assert len(first.requests) == 4
        assert [role for role, _ in sent_messages(first.requests[3])] == ["user", "assistant", "user"]
        assert [row.status for row in await harness.rows()] == [
            TurnStatus.COMPLETE, TurnStatus.SUPERSEDED, TurnStatus.COMPLETE,
        ]  # fmt: skip

    async def test_two_processes_with_one_job_share_the_turn(
        self, database: Database, replica: Database, first: LLMServer
    ) -> None:
        """A slow process was considered dead: both answer, into one row."""
        async with (
            chat_harness(database, provider("first", first.url)) as one,
            chat_harness(replica, provider("first", first.url)) as two,
        ):
            replies = await asyncio.gather(one.say("Talk!", origin="job"), two.say("Talk!", origin="job"))
            assert {reply.phase for reply in replies} == {ReplyPhase.COMPLETE}
            assert len({reply.turn_id for reply in replies}) == 1
            assert [row.status for row in await one.rows()] == [TurnStatus.COMPLETE]

    async def test_turns_without_an_origin_are_separate(self, harness: ChatHarness) -> None:
        assert (await harness.say("Talk!")).turn_id != (await harness.say("Talk!")).turn_id

    async def test_deferred_turn_is_saved_with_its_origin(self, harness: ChatHarness, file: Database) -> None:
        """Once the database accepts it; a retry of the job replays it."""
        with locked(file):
            reply = await harness.say("Talk!", origin="job")
        assert reply.phase is ReplyPhase.COMPLETE
        await harness.chat.deferred.flush()
        assert [row.origin for row in await harness.rows()] == ["job"]
        assert (await harness.say("Talk!", origin="job")).text == reply.text
