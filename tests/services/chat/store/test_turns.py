"""TurnStore: threads, turns, retries, answer messages."""

import asyncio
import sys
from pathlib import Path

import pytest
from sqlalchemy import func, select, update

from core.db.database import Database
from core.db.tables import AttachmentRow, ThreadRow, TurnRow
from core.errors import StorageError
from core.messages import ConversationKey, Surface
from services.chat.store.conversation import TurnStatus
from services.chat.store.turns import TurnStore
from tests.support.clock import ManualClock
from tests.support.turn_store import ALICE, KEY, LARGE_BUDGET, add_turn, answer, pictures, prompt, recalled, texts

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[4]


class TestThreads:
    """The current thread of a chat or topic."""

    async def test_current_creates_the_thread_once(self, turns: TurnStore, replica: Database) -> None:
        """Another process finds the same thread."""
        thread = await turns.current(KEY)
        assert thread.key == KEY
        assert await turns.current(KEY) == thread
        assert await TurnStore(replica, ManualClock()).current(KEY) == thread

    async def test_current_separates_topics_chats_and_surfaces(self, turns: TurnStore) -> None:
        keys = [
            KEY,
            ConversationKey(Surface.TELEGRAM, KEY.chat_id, 4),
            ConversationKey(Surface.TELEGRAM, KEY.chat_id),
            ConversationKey(Surface.TELEGRAM, 5, 3),
            ConversationKey(Surface.CONSOLE, KEY.chat_id, 3),
        ]
        assert len({(await turns.current(key)).id for key in keys}) == len(keys)

    async def test_current_of_two_replicas_creates_one_thread(
        self, turns: TurnStore, replica: Database, clock: ManualClock
    ) -> None:
        other = TurnStore(replica, clock)
        found = await asyncio.gather(*(which.current(KEY) for which in (turns, other) * 5))
        assert len({thread.id for thread in found}) == 1

    async def test_start_new_keeps_the_old_thread(self, turns: TurnStore, database: Database) -> None:
        """The next message goes to the new one."""
        old = await turns.current(KEY)
        await add_turn(turns, old, "hello")
        new = await turns.start_new(KEY)
        assert new.id != old.id
        assert await turns.current(KEY) == new
        assert await recalled(database, new, LARGE_BUDGET) == []
        assert texts(await recalled(database, old, LARGE_BUDGET)) == ["hello", "HELLO"]

    async def test_start_new_and_current_concurrently_leave_one_current_thread(
        self, turns: TurnStore, database: Database, replica: Database, clock: ManualClock
    ) -> None:
        other = TurnStore(replica, clock)
        await asyncio.gather(*(call(KEY) for which in (turns, other) * 4 for call in (which.start_new, which.current)))
        async with database.reading() as session:
            current = select(func.count()).select_from(ThreadRow).where(ThreadRow.is_current)
            assert await session.scalar(current) == 1


class TestRetry:
    """Turns that are answered again."""

    async def test_failed_turn_keeps_its_prompt_with_all_files(self, turns: TurnStore, replica: Database) -> None:
        """After a restart too, and more files than a history includes."""
        thread = await turns.current(KEY)
        asked = prompt("look", *(b"%d" % number for number in range(6)))
        turn = await turns.open_turn(thread, ALICE, asked)
        await turns.close_turn(turn.id, TurnStatus.FAILED)
        failed = await TurnStore(replica, ManualClock()).turn(turn.id)
        assert failed is not None
        assert failed.status is TurnStatus.FAILED
        assert failed.speaker_id == ALICE
        assert failed.thread == thread
        assert failed.prompt is not None
        assert pictures([failed.prompt]) == [b"%d" % number for number in range(6)]
        assert texts([failed.prompt])[0] == "look"

    async def test_answered_retry_supersedes_the_turn(self, turns: TurnStore, database: Database) -> None:
        thread = await turns.current(KEY)
        first = await add_turn(turns, thread, "one", TurnStatus.INTERRUPTED)
        second = await add_turn(turns, thread, "uno", replaces_id=first)
        assert texts(await recalled(database, thread, LARGE_BUDGET)) == ["uno", "UNO"]
        assert (old := await turns.turn(first)) is not None
        assert old.status is TurnStatus.SUPERSEDED
        assert (last := await turns.last_turn(KEY)) is not None
        assert (last.id, last.replaces_id) == (second, first)

    async def test_failed_retry_keeps_the_earlier_answer(self, turns: TurnStore, database: Database) -> None:
        thread = await turns.current(KEY)
        first = await add_turn(turns, thread, "one")
        await add_turn(turns, thread, "one", TurnStatus.FAILED, replaces_id=first)
        assert texts(await recalled(database, thread, LARGE_BUDGET)) == ["one", "ONE"]

    async def test_retry_supersedes_no_turn_of_another_thread(self, turns: TurnStore, database: Database) -> None:
        """Ids come from outside."""
        elsewhere = await turns.current(ConversationKey(Surface.TELEGRAM, 5))
        theirs = await add_turn(turns, elsewhere, "private")
        await add_turn(turns, await turns.current(KEY), "mine", replaces_id=theirs)
        assert texts(await recalled(database, elsewhere, LARGE_BUDGET)) == ["private", "PRIVATE"]

    async def test_turn_with_an_unreadable_prompt_has_none(self, turns: TurnStore, database: Database) -> None:
        turn_id = await add_turn(turns, await turns.current(KEY), "one", TurnStatus.FAILED)
        async with database.session() as session:
            await session.execute(update(TurnRow).values(prompt="{"))
        assert (turn := await turns.turn(turn_id)) is not None
        assert turn.prompt is None

    async def test_lookups_return_none_without_a_turn(self, turns: TurnStore) -> None:
        """No thread, no such turn, a thread without turns."""
        assert await turns.last_turn(KEY) is None
        assert await turns.turn(404) is None
        await add_turn(turns, await turns.current(KEY), "old")
        await turns.start_new(KEY)
        assert await turns.last_turn(KEY) is None


class TestAnswerMessages:
    """Messages of the surface that hold an answer."""

    async def test_note_answer_records_each_message_once(self, turns: TurnStore) -> None:
        turn_id = await add_turn(turns, await turns.current(KEY), "one")
        await turns.note_answer(turn_id, [12, 11, 12])
        assert (turn := await turns.turn(turn_id)) is not None
        assert turn.answer_ids == (11, 12)

    async def test_note_answer_separates_chats(self, turns: TurnStore) -> None:
        ours = await add_turn(turns, await turns.current(KEY), "one")
        theirs = await add_turn(turns, await turns.current(ConversationKey(Surface.TELEGRAM, 5, 3)), "two")
        await turns.note_answer(ours, [11])
        await turns.note_answer(theirs, [11])
        found = [await turns.turn(each) for each in (ours, theirs)]
        assert [turn.answer_ids for turn in found if turn is not None] == [(11,), (11,)]

    async def test_note_answer_moves_a_reused_message(self, turns: TurnStore) -> None:
        """A Retry edits the messages of the earlier turn."""
        thread = await turns.current(KEY)
        first, second = await add_turn(turns, thread, "one"), await add_turn(turns, thread, "two")
        await turns.note_answer(first, [11, 12])
        await turns.note_answer(second, [12, 13])
        found = [await turns.turn(each) for each in (first, second)]
        assert [turn.answer_ids for turn in found if turn is not None] == [(11,), (12, 13)]

    async def test_note_answer_ignores_empty_lists_and_missing_turns(self, turns: TurnStore) -> None:
        turn_id = await add_turn(turns, await turns.current(KEY), "one")
        await turns.note_answer(turn_id, [])
        await turns.note_answer(404, [11])
        assert (turn := await turns.turn(turn_id)) is not None
        assert turn.answer_ids == ()


async def test_close_turn_keeps_a_deleted_thread_deleted(turns: TurnStore, database: Database) -> None:
    """Deleting a thread deletes all its rows."""
    thread = await turns.current(KEY)
    turn = await turns.open_turn(thread, ALICE, prompt("look", b"1"))
    await turns.note_answer(turn.id, [11])
    async with database.session() as session:
        await session.delete((await session.scalars(select(ThreadRow))).one())
    await turns.close_turn(turn.id, TurnStatus.COMPLETE, [prompt("look", b"1"), answer("LOOK")])
    async with database.reading() as session:
        for table in (TurnRow, AttachmentRow):
            assert list(await session.scalars(select(table))) == []
    with pytest.raises(StorageError):
        await turns.open_turn(thread, ALICE, prompt("again"))


@pytest.mark.integration
async def test_warm_builds_the_serialisers_without_the_database(tmp_path: Path) -> None:
    """In a fresh interpreter, before the database exists."""
    code = (
        "import asyncio, pathlib, sys\n"
        "from pydantic_ai.messages import ModelMessagesTypeAdapter\n"
        "from core.clock import SystemClock\n"
        "from core.db.database import Database\n"
        "from services.chat.store.turns import TurnStore\n"
        "before = ModelMessagesTypeAdapter.pydantic_complete\n"
        "file = pathlib.Path(sys.argv[1])\n"
        "asyncio.run(TurnStore(Database(f'sqlite:///{file}'), SystemClock()).warm())\n"
        "print(before, ModelMessagesTypeAdapter.pydantic_complete, file.exists())\n"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, str(tmp_path / "new.db"), cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    printed, _ = await process.communicate()
    assert printed.decode().split() == ["False", "True", "False"]
