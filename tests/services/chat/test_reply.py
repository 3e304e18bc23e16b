"""Reply: waking watchers, writing, stop, paragraphs."""

import asyncio

import pytest

from services.chat.reply import Reply, ReplyPhase
from tests.support.clock import settle

ENDS = [phase for phase in ReplyPhase if phase is not ReplyPhase.RUNNING]


class Watcher:
    """A watcher driven by hand, which shows each wake-up."""

    def __init__(self, reply: Reply, seen: int) -> None:
        self._waits = reply.wait_beyond(seen)
        self._future = self._waits.send(None)

    @property
    def woken(self) -> bool:
        return self._future.done()

    @property
    def returns(self) -> bool:
        """Returns whether the woken watcher returns."""
        try:
            self._future = self._waits.send(None)
        except StopIteration:
            return True
        return False


class TestWaitBeyond:
    """Reply.wait_beyond(): which watchers wake, and when."""

    async def test_wait_beyond_wakes_beyond_the_length_only(self) -> None:
        """Eighty pieces of one character wake no watcher of 80; the next one does."""
        reply = Reply()
        watcher = Watcher(reply, 80)
        for _ in range(80):
            reply.write("x")
            assert not watcher.woken
        reply.write("x")
        assert watcher.woken
        assert watcher.returns

    async def test_wait_beyond_wakes_each_watcher_at_its_own_length(self) -> None:
        """Independent of the order in which they came."""
        reply = Reply()
        watchers = {seen: Watcher(reply, seen) for seen in (5, 0, 9, 5)} | {100: Watcher(reply, 100)}
        reply.write("x" * 6)
        assert {seen: watcher.woken for seen, watcher in watchers.items()} == {5: True, 0: True, 9: False, 100: False}
        assert watchers[0].returns
        reply.write("x" * 4)
        assert watchers[9].woken
        assert not watchers[100].woken
        reply.end(ReplyPhase.COMPLETE)
        assert watchers[100].woken
        assert all(watcher.returns for seen, watcher in watchers.items() if seen != 0)

    async def test_wait_beyond_removes_a_cancelled_watcher(self) -> None:
        """The other watchers are not affected."""
        reply = Reply()
        impatient = asyncio.create_task(reply.wait_beyond(0))
        patient = asyncio.create_task(reply.wait_beyond(10))
        await settle()
        impatient.cancel()
        await settle()
        assert len(reply._watchers) == 1
        reply.write("x" * 10)
        await settle()
        assert not patient.done()
        reply.write("x")
        await settle()
        assert patient.done()
        assert reply._watchers == []

    async def test_wait_beyond_returns_at_once_for_existing_text(self) -> None:
        """Also after the end, for any length."""
        reply = Reply()
        reply.write("abc")
        await asyncio.wait_for(reply.wait_beyond(2), 1)
        reply.end(ReplyPhase.COMPLETE)
        await asyncio.wait_for(reply.wait_beyond(100), 1)

    @pytest.mark.parametrize("phase", ENDS)
    async def test_end_wakes_watchers(self, phase: ReplyPhase) -> None:
        """In each final phase."""
        reply = Reply()
        watcher = asyncio.create_task(reply.wait_beyond(10))
        await settle()
        reply.end(phase, "notice", "footer")
        await asyncio.wait_for(watcher, 1)
        assert (reply.phase, reply.notice, reply.footer) == (phase, "notice", "footer")


class TestWrite:
    """Text and end."""

    def test_text_joins_all_pieces(self) -> None:
        """Also when it is read in between."""
        reply = Reply()
        assert reply.text == ""
        for piece in ("a", "", "b", "c"):
            reply.write(piece)
            assert reply.text.endswith(piece)
        assert reply.text == reply.text == "abc"

    def test_end_ignores_later_writes_and_ends(self) -> None:
        """The shown text does not change."""
        reply = Reply()
        reply.write("said")
        reply.end(ReplyPhase.STOPPED, "Stopped.")
        reply.write(" more")
        reply.end(ReplyPhase.COMPLETE, None, "footer")
        assert (reply.text, reply.phase, reply.notice, reply.footer) == ("said", ReplyPhase.STOPPED, "Stopped.", None)


class TestStop:
    """The Stop button."""

    def test_stop_calls_back_once(self) -> None:
        """A second press has no effect."""
        reply, acts = Reply(), list[str]()
        reply.on_stop(lambda: acts.append("stop"))
        reply.stop()
        reply.stop()
        assert acts == ["stop"]
        assert reply.stop_wanted

    def test_stop_before_registration_calls_back_at_registration(self) -> None:
        reply, acts = Reply(), list[str]()
        reply.stop()
        reply.on_stop(lambda: acts.append("stop"))
        assert acts == ["stop"]

    def test_stop_after_the_end_is_ignored(self) -> None:
        """The button may still be visible for a moment."""
        reply, acts = Reply(), list[str]()
        reply.on_stop(lambda: acts.append("stop"))
        reply.end(ReplyPhase.COMPLETE)
        reply.stop()
        assert acts == []
        assert not reply.stop_wanted
        assert reply.phase is ReplyPhase.COMPLETE


class TestBeginPart:
    """Text before and after a tool call."""

    def test_begin_part_starts_a_paragraph(self) -> None:
        reply = Reply()
        for part in (("Let me", " see."), ("It is", " eight.")):
            reply.begin_part()
            for piece in part:
                reply.write(piece)
        assert reply.text == "Let me see.\n\nIt is eight."

    def test_begin_part_without_text_adds_no_gap(self) -> None:
        """Some providers begin a part with an empty piece, or send no text after it."""
        reply = Reply()
        for piece in ("", "Hello.", ""):
            reply.begin_part()
            reply.write(piece)
        assert reply.text == "Hello."

    async def test_gap_counts_for_watchers(self) -> None:
        """Watched lengths include the blank line."""
        reply = Reply()
        reply.write("x")
        watcher = Watcher(reply, 3)
        reply.begin_part()
        reply.write("y")
        assert len(reply.text) == 4
        assert watcher.woken
        assert watcher.returns
