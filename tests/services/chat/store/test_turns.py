"""Conversations in the database."""

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from pydantic_ai.messages import (
    BinaryContent,
    FilePart,
    ModelMessage,
    ModelRequest,
    ModelResponse,
    TextContent,
    TextPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)
from sqlalchemy import event, func, select, update
from structlog.testing import capture_logs

from core.db.database import Database
from core.db.tables import AttachmentRow, ThreadRow, TurnRow
from core.errors import StorageError
from core.messages import ConversationKey, Surface
from services.chat.store.conversation import Thread, TurnStatus
from services.chat.store.history import KEPT_ATTACHMENTS
from services.chat.store.turns import TurnStore
from services.llm.usage.token_estimates import ATTACHMENT_TOKENS, estimate_tokens
from tests.support.clock import ManualClock

ROOT = Path(__file__).parents[4]
KEY = ConversationKey(Surface.TELEGRAM, -1001234567890, 3)
ALICE = 2**40
PLENTY = 100_000


@pytest.fixture
def threads(database: Database, clock: ManualClock) -> TurnStore:
    """The conversations, on each kind of database."""
    return TurnStore(database, clock)


def prompt(text: str, *images: bytes) -> ModelRequest:
    """What a user sends."""
    files = [BinaryContent(image, media_type="image/jpeg") for image in images]
    return ModelRequest(parts=[UserPromptPart([text, *files] if files else text)])


def answer(text: str) -> ModelResponse:
    """What a model says."""
    return ModelResponse(parts=[TextPart(text)])


async def say(
    threads: TurnStore,
    thread: Thread,
    text: str,
    status: TurnStatus = TurnStatus.COMPLETE,
    *,
    images: Sequence[bytes] = (),
    replaces_id: int | None = None,
) -> int:
    """One turn, opened and closed; the answer is the text in capitals."""
    asked = prompt(text, *images)
    turn = await threads.open_turn(thread, ALICE, asked, replaces_id=replaces_id)
    messages = [] if status is TurnStatus.FAILED else [asked, answer(text.upper())]
    await threads.close_turn(turn.id, status, messages)
    return turn.id


def texts(messages: Sequence[ModelMessage]) -> list[str]:
    """What was said, one string a message."""
    said: list[str] = []
    for message in messages:
        for part in message.parts:
            content = getattr(part, "content", part.part_kind)
            said += [content] if isinstance(content, str) else [str(getattr(i, "content", i)) for i in content]
    return said


def pictures(messages: Sequence[ModelMessage]) -> list[bytes | str]:
    """What stands where pictures were: their bytes, or the text in their place."""
    items = [
        item
        for message in messages
        for part in message.parts
        if isinstance(part, UserPromptPart) and not isinstance(part.content, str)
        for item in part.content
    ]
    return [i.data if isinstance(i, BinaryContent) else i.content for i in items if not isinstance(i, str)]


class TestThreads:
    """Which thread a message belongs to."""

    async def test_made_once_and_kept(self, threads: TurnStore, replica: Database) -> None:
        """First use makes it; another process finds the same one."""
        thread = await threads.current(KEY)
        assert thread.key == KEY
        assert await threads.current(KEY) == thread
        assert await TurnStore(replica, ManualClock()).current(KEY) == thread

    async def test_topics_chats_and_surfaces_are_apart(self, threads: TurnStore) -> None:
        keys = [
            KEY,
            ConversationKey(Surface.TELEGRAM, KEY.chat_id, 4),
            ConversationKey(Surface.TELEGRAM, KEY.chat_id),
            ConversationKey(Surface.TELEGRAM, 5, 3),
            ConversationKey(Surface.CONSOLE, KEY.chat_id, 3),
        ]
        assert len({(await threads.current(key)).id for key in keys}) == len(keys)

    async def test_first_use_by_two_replicas_at_once(
        self, threads: TurnStore, replica: Database, clock: ManualClock
    ) -> None:
        """However many ask at once, one thread is made."""
        other = TurnStore(replica, clock)
        found = await asyncio.gather(*(which.current(KEY) for which in (threads, other) * 5))
        assert len({thread.id for thread in found}) == 1

    async def test_start_new_puts_the_old_one_aside(self, threads: TurnStore) -> None:
        """The next message goes to the new thread; the old one stays with what was said in it."""
        old = await threads.current(KEY)
        await say(threads, old, "hello")
        new = await threads.start_new(KEY)
        assert new.id != old.id
        assert await threads.current(KEY) == new
        assert await threads.history(new, PLENTY) == []
        assert texts(await threads.history(old, PLENTY)) == ["hello", "HELLO"]

    async def test_start_new_and_current_at_once(
        self, threads: TurnStore, database: Database, replica: Database, clock: ManualClock
    ) -> None:
        """Whatever meets whatever, nobody fails and one thread is current in the end."""
        other = TurnStore(replica, clock)
        await asyncio.gather(
            *(call(KEY) for which in (threads, other) * 4 for call in (which.start_new, which.current))
        )
        async with database.reading() as session:
            current = select(func.count()).select_from(ThreadRow).where(ThreadRow.is_current)
            assert await session.scalar(current) == 1


class TestHistory:
    """What a model is told again."""

    @pytest.mark.parametrize(
        ("status", "counts"),
        [
            (TurnStatus.COMPLETE, True),
            (TurnStatus.STOPPED, True),  # stays as what it was
            (TurnStatus.INTERRUPTED, True),  # the same
            (TurnStatus.FAILED, False),  # nobody answered
            (TurnStatus.SUPERSEDED, False),
        ],
    )
    async def test_which_turns_count(self, threads: TurnStore, status: TurnStatus, counts: bool) -> None:  # noqa: FBT001  # a parameter
        thread = await threads.current(KEY)
        await say(threads, thread, "hello", status)
        assert bool(await threads.history(thread, PLENTY)) is counts

    async def test_a_turn_that_nobody_closed_does_not_count(self, threads: TurnStore) -> None:
        """The process died in the middle: the prompt is saved, the history goes on without it."""
        thread = await threads.current(KEY)
        await say(threads, thread, "one")
        turn = await threads.open_turn(thread, ALICE, prompt("two"))
        assert texts(await threads.history(thread, PLENTY)) == ["one", "ONE"]
        assert await threads.last_turn(KEY) == turn

    async def test_survives_a_restart_to_the_last_part(
        self, threads: TurnStore, database: Database, replica: Database
    ) -> None:
        """Tool calls, their results, names and usage come back as they were."""
        thread = await threads.current(KEY)
        messages: list[ModelMessage] = [
            prompt("what time is it?"),
            ModelResponse(parts=[ToolCallPart("clock", {"zone": "UTC"}, "c1")], model_name="m", provider_name="p"),
            ModelRequest(parts=[ToolReturnPart("clock", {"time": "noon"}, "c1")]),
            answer("Noon."),
        ]
        turn = await threads.open_turn(thread, ALICE, prompt("what time is it?"))
        await threads.close_turn(
            turn.id, TurnStatus.COMPLETE, messages, provider="p", model="m", input_tokens=10, output_tokens=3
        )
        await database.close()
        again = TurnStore(replica, ManualClock())
        assert await again.history(await again.current(KEY), PLENTY) == messages
        closed = await again.turn(turn.id)
        assert closed is not None
        assert (closed.status, closed.provider, closed.model) == (TurnStatus.COMPLETE, "p", "m")

    async def test_the_newest_turns_that_fit(self, threads: TurnStore) -> None:
        """Whole turns, oldest dropped first, in the order in which they were said."""
        thread = await threads.current(KEY)
        for number in range(10):
            await say(threads, thread, f"{number}" * 40)
        one = estimate_tokens([prompt("0" * 40), answer("0" * 40)])
        assert texts(await threads.history(thread, 3 * one)) == [f"{n}" * 40 for n in (7, 7, 8, 8, 9, 9)]
        assert texts(await threads.history(thread, 3 * one - 1)) == [f"{n}" * 40 for n in (8, 8, 9, 9)]
        assert await threads.history(thread, 0) == []

    async def test_a_long_conversation_is_not_read_whole(self, threads: TurnStore, database: Database) -> None:
        """Of a thousand turns only those that fit are read."""
        thread = await threads.current(KEY)
        for number in range(3):
            await say(threads, thread, f"{number}" * 40)
        async with database.session() as session:
            row = (await session.scalars(select(TurnRow).order_by(TurnRow.id).limit(1))).one()
            old = {c.name: getattr(row, c.name) for c in TurnRow.__table__.columns if c.name != "id"}
            # Unreadable, so that reading one would be seen.
            old |= {"messages": "old", "prompt": "old"}
            await session.execute(database.insert(TurnRow), [old] * 1000)
        for number in range(3, 6):
            await say(threads, thread, f"{number}" * 40)
        statements: list[str] = []
        event.listen(
            database.engine.sync_engine, "before_cursor_execute", lambda *arguments: statements.append(arguments[2])
        )
        one = estimate_tokens([prompt("0" * 40), answer("0" * 40)])
        with capture_logs() as logs:
            assert texts(await threads.history(thread, 3 * one)) == [f"{n}" * 40 for n in (3, 3, 4, 4, 5, 5)]
        assert logs == []
        assert sum(statement.startswith("SELECT") for statement in statements) == 2

    async def test_more_turns_than_a_page(self, threads: TurnStore) -> None:
        """A large budget is filled over several pages, without a gap or a repetition."""
        thread = await threads.current(KEY)
        for number in range(150):
            await say(threads, thread, str(number))
        assert texts(await threads.history(thread, PLENTY))[::2] == [str(number) for number in range(150)]

    async def test_a_newest_turn_that_is_too_long_alone(self, threads: TurnStore) -> None:
        """It comes shortened rather than not at all, and still fits."""
        thread = await threads.current(KEY)
        await say(threads, thread, "before")
        await say(threads, thread, "begins " + "x" * 10_000 + " ends")
        history = await threads.history(thread, 500)
        assert estimate_tokens(history) <= 500
        assert [text[:6] for text in texts(history)] == ["begins", "BEGINS"]
        assert [text[-4:] for text in texts(history)] == ["ends", "ENDS"]

    async def test_before_a_turn(self, threads: TurnStore) -> None:
        """A Retry is told what was said before the turn that it repeats."""
        thread = await threads.current(KEY)
        await say(threads, thread, "one")
        turn_id = await say(threads, thread, "two")
        await say(threads, thread, "three")
        assert texts(await threads.history(thread, PLENTY, before_turn=turn_id)) == ["one", "ONE"]

    async def test_a_tool_call_that_was_stopped_is_not_told(self, threads: TurnStore) -> None:
        """Providers refuse a call without its result; the words around it stay."""
        thread = await threads.current(KEY)
        turn = await threads.open_turn(thread, ALICE, prompt("time?"))
        stopped = ModelResponse(parts=[TextPart("Let me see."), ToolCallPart("clock", {}, "c1")])
        await threads.close_turn(turn.id, TurnStatus.STOPPED, [prompt("time?"), stopped])
        assert texts(await threads.history(thread, PLENTY)) == ["time?", "Let me see."]

    async def test_messages_without_their_prompt_get_it(self, threads: TurnStore) -> None:
        """A run that was handed its prompt as history does not count it among its new messages."""
        thread = await threads.current(KEY)
        turn = await threads.open_turn(thread, ALICE, prompt("look", b"1"))
        await threads.close_turn(turn.id, TurnStatus.COMPLETE, [answer("LOOK")])
        history = await threads.history(thread, PLENTY)
        assert len(history) == 2
        assert pictures(history) == [b"1"]

    @pytest.mark.parametrize("damage", ["", "{", "[]", '[{"kind": "request", "parts": 5}]', "[1]"])
    async def test_a_damaged_turn_is_left_out(self, threads: TurnStore, database: Database, damage: str) -> None:
        """What cannot be read is skipped and logged by its id, never by what it says."""
        thread = await threads.current(KEY)
        await say(threads, thread, "one")
        turn_id = await say(threads, thread, "two")
        await say(threads, thread, "three")
        async with database.session() as session:
            await session.execute(update(TurnRow).where(TurnRow.id == turn_id).values(messages=damage))
        with capture_logs() as logs:
            assert texts(await threads.history(thread, PLENTY)) == ["one", "ONE", "three", "THREE"]
        assert [(entry["event"], entry["turn_id"]) for entry in logs] == [("turn.unreadable", turn_id)]

    async def test_a_damaged_turn_that_would_be_cut(self, threads: TurnStore, database: Database) -> None:
        """The newest is too long and damaged: what was said before it is told instead."""
        thread = await threads.current(KEY)
        await say(threads, thread, "one")
        turn_id = await say(threads, thread, "x" * 10_000)
        async with database.session() as session:
            await session.execute(update(TurnRow).where(TurnRow.id == turn_id).values(messages="{"))
        assert texts(await threads.history(thread, 500)) == ["one", "ONE"]

    async def test_text_that_databases_refuse(self, threads: TurnStore) -> None:
        """NUL, half a character, an object as metadata: the answer is saved whatever it holds."""
        thread = await threads.current(KEY)
        turn = await threads.open_turn(thread, ALICE, prompt("a\x00b"))
        result = ToolReturnPart("t", "x\x00y", "c1", metadata=object())
        messages: list[ModelMessage] = [
            prompt("a\x00b"),
            ModelResponse(parts=[ToolCallPart("t", {}, "c1")]),
            ModelRequest(parts=[result]),
            answer("\ud83d\ude00 \ud83d."),
        ]
        await threads.close_turn(turn.id, TurnStatus.COMPLETE, messages)
        history = await threads.history(thread, PLENTY)
        assert len(history) == 4
        assert texts(history)[-1] == "\U0001f600 \ufffd."

    async def test_instructions_of_the_past_are_not_kept(self, threads: TurnStore) -> None:
        """They are made anew for each turn, and may hold notes."""
        thread = await threads.current(KEY)
        turn = await threads.open_turn(thread, ALICE, prompt("hi"))
        request = ModelRequest(parts=[UserPromptPart("hi")], instructions="You are...")
        await threads.close_turn(turn.id, TurnStatus.COMPLETE, [request, answer("HI")])
        assert request.instructions == "You are..."
        first = (await threads.history(thread, PLENTY))[0]
        assert isinstance(first, ModelRequest)
        assert first.instructions is None


class TestFiles:
    """Pictures of users."""

    async def test_the_newest_few_come_back(self, threads: TurnStore) -> None:
        """Older ones are the text that stands for them, in order, and their bytes are not read."""
        thread = await threads.current(KEY)
        for number in range(KEPT_ATTACHMENTS + 2):
            await say(threads, thread, f"look {number}", images=[b"%d" % number])
        kept = [b"%d" % number for number in range(2, KEPT_ATTACHMENTS + 2)]
        assert pictures(await threads.history(thread, PLENTY)) == ["[image]", "[image]", *kept]

    async def test_of_an_album_the_last_few(self, threads: TurnStore) -> None:
        thread = await threads.current(KEY)
        await say(threads, thread, "older", images=[b"0"])
        await say(threads, thread, "album", images=[b"%d" % number for number in range(1, 7)])
        assert pictures(await threads.history(thread, PLENTY)) == ["[image]"] * 3 + [b"3", b"4", b"5", b"6"]

    async def test_they_count_against_the_budget(self, threads: TurnStore) -> None:
        """A picture costs its estimate; two do not fit where one and a half would."""
        thread = await threads.current(KEY)
        for number in range(3):
            await say(threads, thread, f"look {number}", images=[b"%d" % number])
        assert pictures(await threads.history(thread, ATTACHMENT_TOKENS * 3 // 2)) == [b"2"]

    async def test_a_picture_too_many_for_the_budget_becomes_text(self, threads: TurnStore) -> None:
        """A small budget tells what was said about the picture rather than nothing."""
        thread = await threads.current(KEY)
        await say(threads, thread, "look", images=[b"1"])
        history = await threads.history(thread, ATTACHMENT_TOKENS // 2)
        assert pictures(history) == ["[image]"]
        assert texts(history)[-1] == "LOOK"

    async def test_bytes_are_stored_once_a_turn(self, threads: TurnStore, database: Database) -> None:
        """The prompt and the whole turn share them, and the JSON holds none."""
        thread = await threads.current(KEY)
        await say(threads, thread, "look", images=[b"picture" * 1000])
        async with database.reading() as session:
            assert await session.scalar(select(func.count()).select_from(AttachmentRow)) == 1
            row = (await session.scalars(select(TurnRow))).one()
        assert len(row.prompt) + len(row.messages or "") < 2000

    async def test_files_of_tools_and_models_become_text(self, threads: TurnStore) -> None:
        """A screenshot that a tool took, a picture that a model made: told, not sent again."""
        thread = await threads.current(KEY)
        picture = BinaryContent(b"x" * 1000, media_type="image/png")
        turn = await threads.open_turn(thread, ALICE, prompt("draw"))
        messages: list[ModelMessage] = [
            prompt("draw"),
            ModelResponse(parts=[ToolCallPart("t", {}, "c1")]),
            ModelRequest(parts=[ToolReturnPart("t", ["seen", {"shot": picture}, picture], "c1")]),
            ModelResponse(parts=[FilePart(picture)]),
        ]
        await threads.close_turn(turn.id, TurnStatus.COMPLETE, messages)
        result, drawn = (await threads.history(thread, PLENTY))[2:]
        assert result.parts[0].content == ["seen", {"shot": "[image]"}, "[image]"]
        assert drawn.parts == [TextPart("[image]")]

    async def test_what_a_user_writes_is_not_taken_for_a_file(self, threads: TurnStore) -> None:
        """Text with foreign metadata stays what it is."""
        thread = await threads.current(KEY)
        request = ModelRequest(parts=[UserPromptPart([TextContent("[image]", metadata={"attachment": 5}), "x"])])
        turn = await threads.open_turn(thread, ALICE, request)
        await threads.close_turn(turn.id, TurnStatus.COMPLETE, [request, answer("X")])
        assert texts(await threads.history(thread, PLENTY)) == ["[image]", "x", "X"]


class TestRetry:
    """Turns that are asked again."""

    async def test_a_failed_turn_keeps_its_prompt(self, threads: TurnStore, replica: Database) -> None:
        """Every file of it, also after a restart, also more than a history would show."""
        thread = await threads.current(KEY)
        asked = prompt("look", *(b"%d" % number for number in range(6)))
        turn = await threads.open_turn(thread, ALICE, asked)
        await threads.close_turn(turn.id, TurnStatus.FAILED)
        failed = await TurnStore(replica, ManualClock()).turn(turn.id)
        assert failed is not None
        assert failed.status is TurnStatus.FAILED
        assert failed.speaker_id == ALICE
        assert failed.thread == thread
        assert failed.prompt is not None
        assert pictures([failed.prompt]) == [b"%d" % number for number in range(6)]
        assert texts([failed.prompt])[0] == "look"

    async def test_an_answered_retry_takes_the_place(self, threads: TurnStore) -> None:
        """The history holds the new answer alone."""
        thread = await threads.current(KEY)
        first = await say(threads, thread, "one", TurnStatus.INTERRUPTED)
        second = await say(threads, thread, "uno", replaces_id=first)
        assert texts(await threads.history(thread, PLENTY)) == ["uno", "UNO"]
        assert (old := await threads.turn(first)) is not None
        assert old.status is TurnStatus.SUPERSEDED
        assert (last := await threads.last_turn(KEY)) is not None
        assert (last.id, last.replaces_id) == (second, first)

    async def test_a_failed_retry_leaves_the_old_answer(self, threads: TurnStore) -> None:
        """Nobody answered the second time: what was said the first time still stands."""
        thread = await threads.current(KEY)
        first = await say(threads, thread, "one")
        await say(threads, thread, "one", TurnStatus.FAILED, replaces_id=first)
        assert texts(await threads.history(thread, PLENTY)) == ["one", "ONE"]

    async def test_a_retry_reaches_no_other_conversation(self, threads: TurnStore) -> None:
        """An id from outside cannot strike a turn from somebody else's thread."""
        elsewhere = await threads.current(ConversationKey(Surface.TELEGRAM, 5))
        theirs = await say(threads, elsewhere, "private")
        await say(threads, await threads.current(KEY), "mine", replaces_id=theirs)
        assert texts(await threads.history(elsewhere, PLENTY)) == ["private", "PRIVATE"]

    async def test_a_damaged_prompt(self, threads: TurnStore, database: Database) -> None:
        """The turn is still known; that it cannot be asked again, the caller sees."""
        turn_id = await say(threads, await threads.current(KEY), "one", TurnStatus.FAILED)
        async with database.session() as session:
            await session.execute(update(TurnRow).values(prompt="{"))
        assert (turn := await threads.turn(turn_id)) is not None
        assert turn.prompt is None

    async def test_nothing_to_find(self, threads: TurnStore) -> None:
        """No such thread, no such turn, a thread without turns."""
        assert await threads.last_turn(KEY) is None
        assert await threads.turn(404) is None
        await say(threads, await threads.current(KEY), "old")
        await threads.start_new(KEY)
        assert await threads.last_turn(KEY) is None


class TestAnswers:
    """Which message on the surface belongs to which turn."""

    async def test_each_message_is_recorded_once(self, threads: TurnStore) -> None:
        turn_id = await say(threads, await threads.current(KEY), "one")
        await threads.note_answer(turn_id, [12, 11, 12])
        assert (turn := await threads.turn(turn_id)) is not None
        assert turn.answer_ids == (11, 12)

    async def test_same_number_in_another_chat_is_another_message(self, threads: TurnStore) -> None:
        ours = await say(threads, await threads.current(KEY), "one")
        theirs = await say(threads, await threads.current(ConversationKey(Surface.TELEGRAM, 5, 3)), "two")
        await threads.note_answer(ours, [11])
        await threads.note_answer(theirs, [11])
        found = [await threads.turn(each) for each in (ours, theirs)]
        assert [turn.answer_ids for turn in found if turn is not None] == [(11,), (11,)]

    async def test_reused_message_moves_to_the_new_turn(self, threads: TurnStore) -> None:
        """A Retry edits the message of the turn before."""
        thread = await threads.current(KEY)
        first, second = await say(threads, thread, "one"), await say(threads, thread, "two")
        await threads.note_answer(first, [11, 12])
        await threads.note_answer(second, [12, 13])
        found = [await threads.turn(each) for each in (first, second)]
        assert [turn.answer_ids for turn in found if turn is not None] == [(11,), (12, 13)]

    async def test_nothing_to_record(self, threads: TurnStore) -> None:
        """No messages, or a turn that is gone."""
        turn_id = await say(threads, await threads.current(KEY), "one")
        await threads.note_answer(turn_id, [])
        await threads.note_answer(404, [11])
        assert (turn := await threads.turn(turn_id)) is not None
        assert turn.answer_ids == ()


async def test_a_turn_erased_meanwhile_stays_erased(threads: TurnStore, database: Database) -> None:
    """Everything of a thread goes with it, and closing a turn of it does not bring it back."""
    thread = await threads.current(KEY)
    turn = await threads.open_turn(thread, ALICE, prompt("look", b"1"))
    await threads.note_answer(turn.id, [11])
    async with database.session() as session:
        await session.delete((await session.scalars(select(ThreadRow))).one())
    await threads.close_turn(turn.id, TurnStatus.COMPLETE, [prompt("look", b"1"), answer("LOOK")])
    async with database.reading() as session:
        for table in (TurnRow, AttachmentRow):
            assert list(await session.scalars(select(table))) == []
    with pytest.raises(StorageError):
        await threads.open_turn(thread, ALICE, prompt("again"))


async def test_warm_builds_the_serialisers_without_the_database(tmp_path: Path) -> None:
    """Before the database was ever opened; a message that cannot be stored would be noticed here."""
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
