"""An answer that is watched while it is written."""

import asyncio

import pytest

from services.chat.reply import Reply, ReplyPhase
from tests.support.clock import settle

ENDS = [phase for phase in ReplyPhase if phase is not ReplyPhase.RUNNING]


class Watcher:
    """A watcher that is driven by hand, so that every time it is woken is seen."""

    def __init__(self, reply: Reply, seen: int) -> None:
        self._waits = reply.changed(seen)
        self._future = self._waits.send(None)

    @property
    def woken(self) -> bool:
        return self._future.done()

    @property
    def returns(self) -> bool:
        """Whether it has seen enough, now that it is woken."""
        try:
            self._future = self._waits.send(None)
        except StopIteration:
            return True
        return False


class TestWatching:
    """Who is woken, and when."""

    async def test_no_wake_for_a_piece_that_is_not_enough(self) -> None:
        """Eighty pieces of one character wake nobody; the next one does."""
        reply = Reply()
        watcher = Watcher(reply, 80)
        for _ in range(80):
            reply.write("x")
            assert not watcher.woken
        reply.write("x")
        assert watcher.woken
        assert watcher.returns

    async def test_several_watchers_each_at_its_own_length(self) -> None:
        """One who waits for more sleeps on when another is woken, whoever came first."""
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

    async def test_one_that_gave_up_is_forgotten(self) -> None:
        """A watcher that was cancelled wakes nobody and is not kept."""
        reply = Reply()
        impatient = asyncio.create_task(reply.changed(0))
        patient = asyncio.create_task(reply.changed(10))
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

    async def test_what_is_there_already_is_not_waited_for(self) -> None:
        """Text beyond what was seen, or the end, whatever was seen."""
        reply = Reply()
        reply.write("abc")
        await asyncio.wait_for(reply.changed(2), 1)
        reply.end(ReplyPhase.COMPLETE)
        await asyncio.wait_for(reply.changed(100), 1)

    @pytest.mark.parametrize("phase", ENDS)
    async def test_every_end_wakes(self, phase: ReplyPhase) -> None:
        """Nobody waits for an answer that has ended, however it did."""
        reply = Reply()
        watcher = asyncio.create_task(reply.changed(10))
        await settle()
        reply.end(phase, "notice", "footer")
        await asyncio.wait_for(watcher, 1)
        assert (reply.phase, reply.notice, reply.footer) == (phase, "notice", "footer")


class TestWriting:
    """The text and its end."""

    def test_the_text_is_all_pieces(self) -> None:
        """However often it is looked at in between."""
        reply = Reply()
        assert reply.text == ""
        for piece in ("a", "", "b", "c"):
            reply.write(piece)
            assert reply.text.endswith(piece)
        assert reply.text == reply.text == "abc"

    def test_an_end_is_final(self) -> None:
        """What comes after it changes nothing that somebody may have shown already."""
        reply = Reply()
        reply.write("said")
        reply.end(ReplyPhase.STOPPED, "Stopped.")
        reply.write(" more")
        reply.end(ReplyPhase.COMPLETE, None, "footer")
        assert (reply.text, reply.phase, reply.notice, reply.footer) == ("said", ReplyPhase.STOPPED, "Stopped.", None)


class TestStop:
    """The Stop button."""

    def test_acts_once(self) -> None:
        """A second press does not disturb what the first one set going."""
        reply, acts = Reply(), list[str]()
        reply.on_stop(lambda: acts.append("stop"))
        reply.stop()
        reply.stop()
        assert acts == ["stop"]
        assert reply.stop_wanted

    def test_pressed_before_there_is_anything_to_stop(self) -> None:
        """It is not forgotten: what is to be stopped hears of it as soon as it is known."""
        reply, acts = Reply(), list[str]()
        reply.stop()
        reply.on_stop(lambda: acts.append("stop"))
        assert acts == ["stop"]

    def test_pressed_after_the_end(self) -> None:
        """The button may still be there for a moment: nothing happens."""
        reply, acts = Reply(), list[str]()
        reply.on_stop(lambda: acts.append("stop"))
        reply.end(ReplyPhase.COMPLETE)
        reply.stop()
        assert acts == []
        assert not reply.stop_wanted
        assert reply.phase is ReplyPhase.COMPLETE


class TestParts:
    """What is said before and after a tool was used."""

    def test_a_part_is_a_paragraph_of_its_own(self) -> None:
        reply = Reply()
        for part in (("Let me", " see."), ("It is", " eight.")):
            reply.begin_part()
            for piece in part:
                reply.write(piece)
        assert reply.text == "Let me see.\n\nIt is eight."

    def test_a_part_without_text_leaves_no_gap(self) -> None:
        """Some providers begin one with an empty piece, and some say nothing after that."""
        reply = Reply()
        for piece in ("", "Hello.", ""):
            reply.begin_part()
            reply.write(piece)
        assert reply.text == "Hello."

    async def test_a_gap_counts_for_who_watches(self) -> None:
        """The length that watchers go by is that of the text."""
        reply = Reply()
        reply.write("x")
        watcher = Watcher(reply, 3)
        reply.begin_part()
        reply.write("y")
        assert len(reply.text) == 4
        assert watcher.woken
        assert watcher.returns
