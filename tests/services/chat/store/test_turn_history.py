"""The history of a thread: selection of turns, damaged rows, files."""

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
from core.db.tables import AttachmentRow, TurnRow
from services.chat.store.conversation import TurnStatus
from services.chat.store.history import KEPT_ATTACHMENTS, read_history, read_sizes
from services.chat.store.turns import TurnStore
from services.llm.usage import ATTACHMENT_TOKENS, estimate_tokens
from tests.support.clock import ManualClock
from tests.support.turn_store import ALICE, KEY, LARGE_BUDGET, add_turn, answer, pictures, prompt, recalled, texts

pytestmark = pytest.mark.integration


class TestHistory:
    """The history for a model."""

    @pytest.mark.parametrize(
        ("status", "counts"),
        [
            (TurnStatus.COMPLETE, True),
            (TurnStatus.STOPPED, True),
            (TurnStatus.INTERRUPTED, True),
            (TurnStatus.FAILED, False),
            (TurnStatus.SUPERSEDED, False),
        ],
    )
    async def test_history_includes_answered_turns_only(
        self, turns: TurnStore, database: Database, status: TurnStatus, *, counts: bool
    ) -> None:
        thread = await turns.current(KEY)
        await add_turn(turns, thread, "hello", status)
        assert bool(await recalled(database, thread, LARGE_BUDGET)) is counts

    async def test_history_excludes_an_open_turn(self, turns: TurnStore, database: Database) -> None:
        """The process died during the turn: the prompt is saved."""
        thread = await turns.current(KEY)
        await add_turn(turns, thread, "one")
        turn = await turns.open_turn(thread, ALICE, prompt("two"))
        assert texts(await recalled(database, thread, LARGE_BUDGET)) == ["one", "ONE"]
        assert await turns.last_turn(KEY) == turn

    async def test_history_after_a_restart_is_identical(
        self, turns: TurnStore, database: Database, replica: Database
    ) -> None:
        """With tool calls, results, names and usage."""
        thread = await turns.current(KEY)
        messages: list[ModelMessage] = [
            prompt("what time is it?"),
            ModelResponse(parts=[ToolCallPart("clock", {"zone": "UTC"}, "c1")], model_name="m", provider_name="p"),
            ModelRequest(parts=[ToolReturnPart("clock", {"time": "noon"}, "c1")]),
            answer("Noon."),
        ]
        turn = await turns.open_turn(thread, ALICE, prompt("what time is it?"))
        await turns.close_turn(
            turn.id, TurnStatus.COMPLETE, messages, provider="p", model="m", input_tokens=10, output_tokens=3
        )
        await database.close()
        again = TurnStore(replica, ManualClock())
        assert await recalled(replica, await again.current(KEY), LARGE_BUDGET) == messages
        closed = await again.turn(turn.id)
        assert closed is not None
        assert (closed.status, closed.provider, closed.model) == (TurnStatus.COMPLETE, "p", "m")

    async def test_history_returns_the_newest_turns_that_fit(self, turns: TurnStore, database: Database) -> None:
        """Whole turns in order."""
        thread = await turns.current(KEY)
        for number in range(10):
            await add_turn(turns, thread, f"{number}" * 40)
        one = estimate_tokens([prompt("0" * 40), answer("0" * 40)])
        assert texts(await recalled(database, thread, 3 * one)) == [f"{n}" * 40 for n in (7, 7, 8, 8, 9, 9)]
        assert texts(await recalled(database, thread, 3 * one - 1)) == [f"{n}" * 40 for n in (8, 8, 9, 9)]
        assert await recalled(database, thread, 0) == []

    async def test_history_reads_only_the_turns_that_fit(self, turns: TurnStore, database: Database) -> None:
        """Of a thousand."""
        thread = await turns.current(KEY)
        for number in range(3):
            await add_turn(turns, thread, f"{number}" * 40)
        async with database.session() as session:
            row = (await session.scalars(select(TurnRow).order_by(TurnRow.id).limit(1))).one()
            old = {c.name: getattr(row, c.name) for c in TurnRow.__table__.columns if c.name != "id"}
            # Unreadable, so that reading one is logged.
            old |= {"messages": "old", "prompt": "old"}
            await session.execute(database.insert(TurnRow), [old] * 1000)
        for number in range(3, 6):
            await add_turn(turns, thread, f"{number}" * 40)
        statements: list[str] = []
        for engine in database.engines:
            event.listen(engine, "before_cursor_execute", lambda *arguments: statements.append(arguments[2]))
        one = estimate_tokens([prompt("0" * 40), answer("0" * 40)])
        with capture_logs() as logs:
            history = await database.run(
                lambda connection: read_history(connection, thread.id, read_sizes(connection, thread.id), 3 * one)
            )
        assert texts(history) == [f"{n}" * 40 for n in (3, 3, 4, 4, 5, 5)]
        assert logs == []
        assert sum(statement.startswith("SELECT") for statement in statements) == 2

    async def test_history_of_many_turns_has_no_gap_or_repetition(self, turns: TurnStore, database: Database) -> None:
        thread = await turns.current(KEY)
        for number in range(150):
            await add_turn(turns, thread, str(number))
        assert texts(await recalled(database, thread, LARGE_BUDGET))[::2] == [str(number) for number in range(150)]

    async def test_history_shortens_a_newest_turn_beyond_the_budget(self, turns: TurnStore, database: Database) -> None:
        thread = await turns.current(KEY)
        await add_turn(turns, thread, "before")
        await add_turn(turns, thread, "begins " + "x" * 10_000 + " ends")
        history = await recalled(database, thread, 500)
        assert estimate_tokens(history) <= 500
        assert [text[:6] for text in texts(history)] == ["begins", "BEGINS"]
        assert [text[-4:] for text in texts(history)] == ["ends", "ENDS"]

    async def test_history_ends_before_a_given_turn(self, turns: TurnStore, database: Database) -> None:
        thread = await turns.current(KEY)
        await add_turn(turns, thread, "one")
        turn_id = await add_turn(turns, thread, "two")
        await add_turn(turns, thread, "three")
        assert texts(await recalled(database, thread, LARGE_BUDGET, before_turn=turn_id)) == ["one", "ONE"]

    async def test_history_drops_a_call_without_result(self, turns: TurnStore, database: Database) -> None:
        """Providers reject it; the text around it stays."""
        thread = await turns.current(KEY)
        turn = await turns.open_turn(thread, ALICE, prompt("time?"))
        stopped = ModelResponse(parts=[TextPart("Let me see."), ToolCallPart("clock", {}, "c1")])
        await turns.close_turn(turn.id, TurnStatus.STOPPED, [prompt("time?"), stopped])
        assert texts(await recalled(database, thread, LARGE_BUDGET)) == ["time?", "Let me see."]

    async def test_close_turn_prepends_a_missing_prompt(self, turns: TurnStore, database: Database) -> None:
        """A run that got its prompt as history does not list it among its new messages."""
        thread = await turns.current(KEY)
        turn = await turns.open_turn(thread, ALICE, prompt("look", b"1"))
        await turns.close_turn(turn.id, TurnStatus.COMPLETE, [answer("LOOK")])
        history = await recalled(database, thread, LARGE_BUDGET)
        assert len(history) == 2
        assert pictures(history) == [b"1"]

    async def test_close_turn_again_counts_its_prompt_once(self, turns: TurnStore, database: Database) -> None:
        """A commit whose confirmation was lost is repeated."""
        turn = await turns.open_turn(await turns.current(KEY), ALICE, prompt("look", b"1"))
        messages, rows = [answer("LOOK")], list[tuple[str | None, int, int]]()
        for _ in range(2):
            await turns.close_turn(turn.id, TurnStatus.COMPLETE, messages)
            async with database.reading() as session:
                row = (await session.scalars(select(TurnRow))).one()
                rows.append((row.messages, row.estimated_tokens, row.attachment_count))
        assert rows[0] == rows[1]
        assert rows[0][2] == 1

    async def test_close_turn_without_messages_stores_the_prompt(self, turns: TurnStore, database: Database) -> None:
        """Stopped before the first word."""
        thread = await turns.current(KEY)
        turn = await turns.open_turn(thread, ALICE, prompt("one"))
        await turns.close_turn(turn.id, TurnStatus.STOPPED)
        assert texts(await recalled(database, thread, LARGE_BUDGET)) == ["one"]

    @pytest.mark.parametrize("damage", ["", "{", "[]", '[{"kind": "request", "parts": 5}]', "[1]"])
    async def test_history_skips_and_logs_an_unreadable_turn(
        self, turns: TurnStore, database: Database, damage: str
    ) -> None:
        """The log has its id and none of its text."""
        thread = await turns.current(KEY)
        await add_turn(turns, thread, "one")
        turn_id = await add_turn(turns, thread, "two")
        await add_turn(turns, thread, "three")
        async with database.session() as session:
            await session.execute(update(TurnRow).where(TurnRow.id == turn_id).values(messages=damage))
        with capture_logs() as logs:
            assert texts(await recalled(database, thread, LARGE_BUDGET)) == ["one", "ONE", "three", "THREE"]
        assert [(entry["event"], entry["turn_id"]) for entry in logs] == [("turn.unreadable", turn_id)]

    async def test_history_skips_an_unreadable_turn_beyond_the_budget(
        self, turns: TurnStore, database: Database
    ) -> None:
        """The turns before it are returned."""
        thread = await turns.current(KEY)
        await add_turn(turns, thread, "one")
        turn_id = await add_turn(turns, thread, "x" * 10_000)
        async with database.session() as session:
            await session.execute(update(TurnRow).where(TurnRow.id == turn_id).values(messages="{"))
        assert texts(await recalled(database, thread, 500)) == ["one", "ONE"]

    async def test_close_turn_stores_text_that_databases_reject(self, turns: TurnStore, database: Database) -> None:
        """NUL, half a surrogate pair, an arbitrary object as metadata."""
        thread = await turns.current(KEY)
        turn = await turns.open_turn(thread, ALICE, prompt("a\x00b"))
        result = ToolReturnPart("t", "x\x00y", "c1", metadata=object())
        messages: list[ModelMessage] = [
            prompt("a\x00b"),
            ModelResponse(parts=[ToolCallPart("t", {}, "c1")]),
            ModelRequest(parts=[result]),
            answer("\ud83d\ude00 \ud83d."),
        ]
        await turns.close_turn(turn.id, TurnStatus.COMPLETE, messages)
        history = await recalled(database, thread, LARGE_BUDGET)
        assert len(history) == 4
        assert texts(history)[-1] == "\U0001f600 \ufffd."

    async def test_close_turn_drops_instructions(self, turns: TurnStore, database: Database) -> None:
        """They are created for each turn, and may hold notes."""
        thread = await turns.current(KEY)
        turn = await turns.open_turn(thread, ALICE, prompt("hi"))
        request = ModelRequest(parts=[UserPromptPart("hi")], instructions="You are...")
        await turns.close_turn(turn.id, TurnStatus.COMPLETE, [request, answer("HI")])
        assert request.instructions == "You are..."
        first = (await recalled(database, thread, LARGE_BUDGET))[0]
        assert isinstance(first, ModelRequest)
        assert first.instructions is None


class TestFiles:
    """Pictures of users in the history."""

    async def test_history_restores_the_newest_files(self, turns: TurnStore, database: Database) -> None:
        """Older ones are placeholders, and their bytes are not read."""
        thread = await turns.current(KEY)
        for number in range(KEPT_ATTACHMENTS + 2):
            await add_turn(turns, thread, f"look {number}", images=[b"%d" % number])
        kept = [b"%d" % number for number in range(2, KEPT_ATTACHMENTS + 2)]
        assert pictures(await recalled(database, thread, LARGE_BUDGET)) == ["[image]", "[image]", *kept]

    async def test_history_restores_the_last_files_of_an_album(self, turns: TurnStore, database: Database) -> None:
        thread = await turns.current(KEY)
        await add_turn(turns, thread, "older", images=[b"0"])
        await add_turn(turns, thread, "album", images=[b"%d" % number for number in range(1, 7)])
        assert pictures(await recalled(database, thread, LARGE_BUDGET)) == ["[image]"] * 3 + [b"3", b"4", b"5", b"6"]

    async def test_files_count_against_the_budget(self, turns: TurnStore, database: Database) -> None:
        """Two pictures do not fit in one and a half estimates."""
        thread = await turns.current(KEY)
        for number in range(3):
            await add_turn(turns, thread, f"look {number}", images=[b"%d" % number])
        assert pictures(await recalled(database, thread, ATTACHMENT_TOKENS * 3 // 2)) == [b"2"]

    async def test_file_beyond_the_budget_becomes_a_placeholder(self, turns: TurnStore, database: Database) -> None:
        """The text about the picture stays."""
        thread = await turns.current(KEY)
        await add_turn(turns, thread, "look", images=[b"1"])
        history = await recalled(database, thread, ATTACHMENT_TOKENS // 2)
        assert pictures(history) == ["[image]"]
        assert texts(history)[-1] == "LOOK"

    async def test_file_is_stored_once_per_turn(self, turns: TurnStore, database: Database) -> None:
        """Prompt and turn share the bytes, and the JSON holds none."""
        thread = await turns.current(KEY)
        await add_turn(turns, thread, "look", images=[b"picture" * 1000])
        async with database.reading() as session:
            assert await session.scalar(select(func.count()).select_from(AttachmentRow)) == 1
            row = (await session.scalars(select(TurnRow))).one()
        assert len(row.prompt) + len(row.messages or "") < 2000

    async def test_files_of_tools_and_models_become_placeholders(self, turns: TurnStore, database: Database) -> None:
        thread = await turns.current(KEY)
        picture = BinaryContent(b"x" * 1000, media_type="image/png")
        turn = await turns.open_turn(thread, ALICE, prompt("draw"))
        messages: list[ModelMessage] = [
            prompt("draw"),
            ModelResponse(parts=[ToolCallPart("t", {}, "c1")]),
            ModelRequest(parts=[ToolReturnPart("t", ["seen", {"shot": picture}, picture], "c1")]),
            ModelResponse(parts=[FilePart(picture)]),
        ]
        await turns.close_turn(turn.id, TurnStatus.COMPLETE, messages)
        result, drawn = (await recalled(database, thread, LARGE_BUDGET))[2:]
        assert result.parts[0].content == ["seen", {"shot": "[image]"}, "[image]"]
        assert drawn.parts == [TextPart("[image]")]

    async def test_text_with_foreign_metadata_is_kept(self, turns: TurnStore, database: Database) -> None:
        thread = await turns.current(KEY)
        request = ModelRequest(parts=[UserPromptPart([TextContent("[image]", metadata={"attachment": 5}), "x"])])
        turn = await turns.open_turn(thread, ALICE, request)
        await turns.close_turn(turn.id, TurnStatus.COMPLETE, [request, answer("X")])
        assert texts(await recalled(database, thread, LARGE_BUDGET)) == ["[image]", "x", "X"]
