"""A turn from its message to what is saved of it: real HTTP, a real database."""

import asyncio
import json
import sqlite3
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import SecretStr
from pydantic_ai.messages import ModelMessage, UserPromptPart
from sqlalchemy import delete
from structlog.testing import capture_logs

from core.config.providers import ProviderKind
from core.config.settings import ProviderSettings
from core.db.database import Database
from core.db.tables import ThreadRow
from core.errors import StorageError
from core.i18n import Texts
from core.messages import Attachment, Speaker
from services.chat.agent import LIMITS
from services.chat.reply import ReplyPhase
from services.chat.store.conversation import Thread, TurnStatus
from services.llm.request import ModelChoice
from services.llm.routing.status import ProviderState
from tests.support.chat_harness import ANN, BOB, GROUP, PRIVATE, ChatHarness, chat_harness, message, told
from tests.support.fake_llm.server import (
    Behaviour,
    LLMServer,
    answer,
    content_filter,
    content_filter_rejected,
    context_exceeded,
    error_in_stream,
    gate,
    hang,
    refusal,
    stall,
    status,
    tool_call,
)
from tests.support.fake_llm.wire import INPUT_TOKENS, OUTPUT_TOKENS
from tests.support.llm_harness import provider, stopped_server

TEXTS = Texts(strict=True)
english = TEXTS.get
"""A text in English, by its key."""
PHOTO = Attachment(b"\x89PNG not really", "image/png")


@pytest.fixture
async def bench(file: Database, first: LLMServer) -> AsyncIterator[ChatHarness]:
    """A chat with one provider, on a SQLite file."""
    async with chat_harness(file, provider("first", first.url)) as bench:
        yield bench


@pytest.fixture
async def duo(file: Database, first: LLMServer, second: LLMServer) -> AsyncIterator[ChatHarness]:
    """A chat with two providers."""
    async with chat_harness(file, provider("first", first.url), provider("second", second.url)) as bench:
        yield bench


@contextmanager
def locked(database: Database) -> Generator[sqlite3.Connection]:
    """Another process holds the file's lock."""
    with closing(sqlite3.connect(database.name, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        yield other


@asynccontextmanager
async def opened(file: Database, path: str = "{}", busy_timeout_s: float = 0.2) -> AsyncGenerator[Database]:
    """The same file, opened in another way."""
    database = Database(f"sqlite:///{path.format(file.name)}", busy_timeout_s=busy_timeout_s)
    try:
        yield database
    finally:
        await database.close()


class TestAnswer:
    """The ordinary turn."""

    async def test_who_was_moved_because_somebody_was_busy_stays_there(
        self, file: Database, first: LLMServer, second: LLMServer
    ) -> None:
        """In all chats, and nobody else does."""
        busy = provider("first", first.url, max_concurrency=1)
        async with chat_harness(file, busy, provider("second", second.url)) as bench:
            held = asyncio.Event()
            first.script(gate(held))
            reply, turn = bench.begin(message(speaker=BOB))
            await first.arrival(1)
            assert (await bench.say()).provider == "second"
            held.set()
            await turn

            assert (await bench.say()).provider == "second"
            assert (await bench.say(message(key=GROUP))).provider == "second"
            assert (await bench.say(message(key=GROUP, speaker=BOB))).provider == reply.provider == "first"

    async def test_streamed_saved_and_read_back_after_a_restart(
        self, database: Database, database_url: str, first: LLMServer
    ) -> None:
        """Watchers see it grow; the database holds who gave it and what it cost; a new process knows all of it."""
        shown = asyncio.Event()
        first.script(gate(shown, after_pieces=2, then=answer("One two three")))
        async with chat_harness(database, provider("first", first.url)) as bench:
            reply, turn = bench.begin("Count!")
            await asyncio.wait_for(reply.changed(6), 2)
            assert (reply.text, reply.phase) == ("One two", ReplyPhase.RUNNING)
            assert not reply.retryable
            shown.set()
            await turn
        assert (reply.text, reply.phase) == ("One two three", ReplyPhase.COMPLETE)
        assert (reply.notice, reply.footer, reply.failed_over) == (None, None, ())
        assert (reply.provider, reply.model) == ("first", "first-model")
        assert reply.retryable
        await database.close()

        reopened = Database(database_url)
        await reopened.start()
        async with chat_harness(reopened, provider("first", first.url)) as bench:
            row = await bench.row(reply)
            assert (row.status, row.provider, row.model) == (TurnStatus.COMPLETE, "first", "first-model")
            assert (row.input_tokens, row.output_tokens, row.speaker_id) == (INPUT_TOKENS, OUTPUT_TOKENS, 7)
            await bench.say("Go on")
        assert told(first.requests[-1]) == [("user", "Count!"), ("assistant", "One two three"), ("user", "Go on")]
        await reopened.close()

    async def test_conversations_side_by_side(self, bench: ChatHarness, first: LLMServer) -> None:
        """Two turns at once, of a group's topic and of a private chat: neither waits for the other or hears of it."""
        both = asyncio.Event()
        first.script(gate(both, then=answer("to one")), gate(both, then=answer("to the other")))
        private, turn = bench.begin("a secret")
        await first.arrival(1)
        group, other_turn = bench.begin(message("in public", key=GROUP))
        await first.arrival(2)
        both.set()
        await asyncio.gather(turn, other_turn)
        assert (private.text, group.text) == ("to one", "to the other")
        await bench.say(message("and?", key=GROUP))
        assert told(first.requests[-1]) == [
            ("user", "Ann: in public"),
            ("assistant", "to the other"),
            ("user", "Ann: and?"),
        ]

    @pytest.mark.parametrize("kind", [ProviderKind.OPENAI_COMPATIBLE, ProviderKind.ANTHROPIC])
    async def test_words_before_a_tool_call(self, file: Database, first: LLMServer, kind: ProviderKind) -> None:
        """They are kept, in a paragraph of their own, on the screen and in the history."""
        first.script(tool_call("current_time", {"time_zone": "UTC"}, "Let me see."), answer("It is eight."))
        url = first.root if kind is ProviderKind.ANTHROPIC else first.url
        settings = provider("first", url, kind=kind, api_key=SecretStr("k"))
        async with chat_harness(file, settings) as bench:
            reply = await bench.say("What time is it?")
            assert reply.text == "Let me see.\n\nIt is eight."
            row = await bench.row(reply)
            assert (row.input_tokens, row.output_tokens) == (2 * INPUT_TOKENS, 2 * OUTPUT_TOKENS)
            await bench.say("Thanks")
        assert [each["role"] for each in first.requests[-1].json["messages"] if each["role"] != "system"][-1] == "user"
        sent = json.dumps(first.requests[-1].json["messages"])
        assert "Let me see." in sent
        assert "08:00:00" in sent
        assert "It is eight." in sent

    async def test_a_loop_that_finds_no_end(self, bench: ChatHarness, first: LLMServer) -> None:
        """So many steps and no more; what was said in them stays."""
        first.default = tool_call("current_time", {})
        reply = await bench.say("Loop!")
        assert len(first.requests) == LIMITS.request_limit
        assert (reply.phase, reply.text, reply.footer) == (ReplyPhase.FAILED, "", None)
        assert reply.notice is not None
        assert reply.notice == english("failed-limit")
        first.default = tool_call("current_time", {}, "Again.")
        reply = await bench.say("Loop and talk!")
        assert reply.phase is ReplyPhase.INTERRUPTED
        assert reply.text.count("Again.") == LIMITS.request_limit

    async def test_the_demo_says_what_it_is(self, file: Database) -> None:
        """Its footer tells how to get a real model; the demo needs no network."""
        demo = ProviderSettings(id="show", kind=ProviderKind.DEMO, models=("demo",))
        async with chat_harness(file, demo, demos=frozenset({"show"})) as bench:
            reply = await bench.say()
        assert reply.text
        assert reply.footer == english("demo-footer")


class TestPrompt:
    """What of a message a model reads."""

    async def test_a_group_names_its_speakers(self, bench: ChatHarness, first: LLMServer) -> None:
        """Each message says whose it is, the earlier ones too."""
        await bench.say(message("Tea?", key=GROUP))
        await bench.say(message("Coffee!", key=GROUP, speaker=BOB))
        assert told(first.requests[-1])[::2] == [("user", "Ann: Tea?"), ("user", "Bob: Coffee!")]

    async def test_a_private_chat_does_not(self, bench: ChatHarness, first: LLMServer) -> None:
        """There is nobody to be mistaken for."""
        await bench.say("Tea?")
        assert told(first.requests[-1]) == [("user", "Tea?")]

    async def test_what_a_message_replies_to_is_quoted(self, bench: ChatHarness, first: LLMServer) -> None:
        """Told apart from the message itself."""
        await bench.say(message("Is that true?", key=GROUP, quoted="The moon is cheese"))
        (_, text), *_ = told(first.requests[-1])
        assert text == "[In reply to this message:]\nThe moon is cheese\n[The message itself:]\nAnn: Is that true?"

    @pytest.mark.parametrize(
        ("text", "kinds"),
        [
            ("What is it?", ["text", "image_url"]),
            ("", ["image_url"]),  # no caption: an empty text is refused by some providers
        ],
    )
    async def test_a_model_that_sees_gets_the_image(
        self, file: Database, first: LLMServer, text: str, kinds: list[str]
    ) -> None:
        """The bytes go out, once for this turn and again with the history."""
        async with chat_harness(file, provider("first", first.url, models=("gpt-4o",))) as bench:
            reply = await bench.say(message(text, attachments=(PHOTO,)))
            assert reply.footer is None
            await bench.say("And in it?")
        for request in first.requests:
            content = request.json["messages"][1]["content"]
            assert [item["type"] for item in content] == kinds
            assert content[-1]["image_url"]["url"].startswith("data:image/png;base64,")

    async def test_a_model_that_does_not_see_gets_a_remark(self, bench: ChatHarness, first: LLMServer) -> None:
        """And the user is told, but only under the answer to the image."""
        reply = await bench.say(message("What is it?", attachments=(PHOTO,)))
        assert "image_url" not in json.dumps(first.requests[-1].json)
        assert told(first.requests[-1]) == [("user", "What is it?\n[an image that you cannot see]")]
        assert reply.footer == english("cannot-see-image")
        assert (await bench.say("And?")).footer is None

    async def test_unseen_also_behind_a_tool_call(self, bench: ChatHarness, first: LLMServer) -> None:
        """The last request of a tool loop holds no image; the answer is one to an image all the same."""
        first.script(tool_call("current_time", {}))
        reply = await bench.say(message("What is it?", attachments=(PHOTO,)))
        assert len(first.requests) == 2
        assert reply.footer == english("cannot-see-image")


class TestFailover:
    """Another provider goes on."""

    async def test_before_a_word_was_heard(self, duo: ChatHarness, first: LLMServer) -> None:
        """The reply says who failed and why; the user reads nothing of it."""
        first.default = status(529)
        reply = await duo.say()
        assert (reply.phase, reply.provider, reply.model) == (ReplyPhase.COMPLETE, "second", "second-model")
        assert [failed for failed, _ in reply.failed_over] == ["first"]
        assert (reply.notice, reply.footer) == (None, None)

    async def test_in_any_step_of_a_tool_loop(self, duo: ChatHarness, first: LLMServer, second: LLMServer) -> None:
        """The step after it meets nobody who fails; the turn did."""
        first.default = status(529)
        second.script(tool_call("current_time", {}))
        reply = await duo.say()
        assert len(first.requests) == 1
        assert len(second.requests) == 2
        assert [failed for failed, _ in reply.failed_over] == ["first"]

    @pytest.mark.parametrize(("speaker", "footer"), [(ANN, "answered by second"), (BOB, "ответ от second")])
    async def test_footers(self, duo: ChatHarness, first: LLMServer, speaker: Speaker, footer: str) -> None:
        """A chat that wants footers reads who answered, in the language of the one who asked."""
        await duo.stores.preferences.set_footers("telegram:7", shown=True)
        first.default = status(529)
        assert (await duo.say(message(speaker=speaker))).footer == footer
        await duo.stores.preferences.set_footers("telegram:7", shown=False)
        assert (await duo.say(message(speaker=speaker))).footer is None

    async def test_interrupted(self, duo: ChatHarness, first: LLMServer) -> None:
        """What was said stays, marked and saved as what it was, and the next model is told it."""
        first.script(error_in_stream(3))
        reply = await duo.say("A play?")
        assert (reply.phase, reply.text) == (ReplyPhase.INTERRUPTED, "The audience hears")
        assert reply.notice == english("interrupted")
        assert reply.provider == "first"
        row = await duo.row(reply)
        assert (row.status, row.provider) == (TurnStatus.INTERRUPTED, "first")
        again = await duo.say("Go on")
        assert again.provider == "second"

    async def test_interrupted_in_a_tool_call(self, bench: ChatHarness, first: LLMServer) -> None:
        """Nothing was said that could have been broken off: to the user nobody answered."""
        first.script(replace(tool_call("current_time", {}), breaks_off=lambda exchange: exchange.hang()))
        reply = await bench.say()
        assert (reply.phase, reply.text) == (ReplyPhase.FAILED, "")
        assert reply.notice == english("failed-all-providers")

    async def test_the_next_turn_knows_the_partial_answer(
        self, duo: ChatHarness, first: LLMServer, second: LLMServer
    ) -> None:
        """It is told as an answer, and by whom it was given makes no difference."""
        first.script(error_in_stream(3))
        await duo.say("A play?")
        await duo.say("Go on")
        assert told(second.requests[-1]) == [
            ("user", "A play?"),
            ("assistant", "The audience hears"),
            ("user", "Go on"),
        ]

    @pytest.mark.parametrize(
        ("behaviour", "reason"),
        [
            (refusal("I can't help with that."), "I can't help with that."),  # the provider's own words
            (content_filter(), "its content filter stopped the answer"),
            (content_filter_rejected(), "content management policy"),  # Azure refuses the prompt with a 400
        ],
    )
    async def test_refused(
        self, duo: ChatHarness, first: LLMServer, second: LLMServer, behaviour: Behaviour, reason: str
    ) -> None:
        """The provider's reason; nobody else is asked behind its back."""
        first.script(behaviour)
        reply = await duo.say("Something wicked")
        assert (reply.phase, reply.text) == (ReplyPhase.FAILED, "")
        assert reply.notice is not None
        assert reply.notice.startswith(english("failed-refused", reason=""))
        assert reason in reply.notice
        assert reply.retryable
        assert second.requests == []

    async def test_refused_in_mid_answer(self, bench: ChatHarness, first: LLMServer) -> None:
        """What was said before stays."""
        first.script(content_filter(("Well,", " you")))
        reply = await bench.say("Something wicked")
        assert (reply.phase, reply.text) == (ReplyPhase.INTERRUPTED, "Well, you")
        assert reply.notice is not None
        assert reply.notice.startswith(english("failed-refused", reason=""))

    @pytest.mark.parametrize(
        ("behaviour", "notice"),
        [
            (status(529), "failed-all-providers"),
            (status(422), "failed-rejected"),
            (context_exceeded(), "failed-too-long"),
        ],
    )
    async def test_nobody_answers(
        self, bench: ChatHarness, first: LLMServer, behaviour: Behaviour, notice: str
    ) -> None:
        """One friendly line; the prompt waits for Retry, and no model hears of it in the next turn."""
        first.script(behaviour)
        reply = await bench.say("Unheard")
        assert (reply.phase, reply.text, reply.notice, reply.footer) == (ReplyPhase.FAILED, "", english(notice), None)
        assert reply.retryable
        assert (await bench.row(reply)).status == TurnStatus.FAILED
        await bench.say("Heard")
        assert told(first.requests[-1]) == [("user", "Heard")]
        assert reply.turn_id is not None
        kept = await bench.stores.threads.turn(reply.turn_id)
        assert kept is not None
        assert kept.prompt is not None
        assert [part.content for part in kept.prompt.parts if isinstance(part, UserPromptPart)] == ["Unheard"]

    async def test_told_in_the_users_language(self, file: Database) -> None:
        """Bob reads Russian."""
        async with chat_harness(file, provider("first", await stopped_server())) as bench:
            reply = await bench.say(message(speaker=BOB))
        assert reply.notice == TEXTS.get("failed-all-providers", "ru") != english("failed-all-providers")


class TestWindow:
    """A history that is too long for the models."""

    @pytest.fixture
    async def long_bench(self, file: Database, first: LLMServer) -> AsyncIterator[ChatHarness]:
        """A chat that has four turns of some 130 tokens behind it, and room for them."""
        async with chat_harness(file, provider("first", first.url), history_tokens=600) as bench:
            for number in range(4):
                await bench.say(f"{number} " + "x" * 400)
            first.requests.clear()
            yield bench

    async def test_halved_once(self, long_bench: ChatHarness, first: LLMServer) -> None:
        """The newest turns that fit half the budget are told, and the user reads an answer and no more."""
        first.script(context_exceeded())
        reply = await long_bench.say("And?")
        assert (reply.phase, reply.text, reply.notice) == (ReplyPhase.COMPLETE, "Hello", None)
        before, after = ([text[:2] for role, text in told(each) if role == "user"] for each in first.requests)
        assert before == ["0 ", "1 ", "2 ", "3 ", "An"]
        assert after == ["2 ", "3 ", "An"]
        row = await long_bench.row(reply)
        assert [each["kind"] for each in json.loads(row.messages or "")] == ["request", "response"]

    async def test_and_no_more_than_once(self, long_bench: ChatHarness, first: LLMServer) -> None:
        """Then the user is told what helps."""
        first.script(context_exceeded(), context_exceeded())
        reply = await long_bench.say("And?")
        assert len(first.requests) == 2
        assert reply.phase is ReplyPhase.FAILED
        assert reply.notice == english("failed-too-long")

    async def test_a_retry_is_halved_too(self, long_bench: ChatHarness, first: LLMServer) -> None:
        """With what was said before the turn that it takes the place of."""
        reply = await long_bench.say("And?")
        first.script(context_exceeded())
        await long_bench.retry(reply)
        assert [text[:2] for role, text in told(first.requests[-1]) if role == "user"] == ["2 ", "3 ", "An"]

    async def test_the_history_cannot_be_read_a_second_time(
        self, long_bench: ChatHarness, first: LLMServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """An answer without memory is better than none."""
        histories = iter([long_bench.stores.threads.history])

        async def history(thread: Thread, token_budget: int, **options: int | None) -> list[ModelMessage]:
            read = next(histories, None)
            if read is None:
                raise StorageError("the database failed: it is unreachable")
            return await read(thread, token_budget, **options)

        monkeypatch.setattr(long_bench.stores.threads, "history", history)
        first.script(context_exceeded())
        reply = await long_bench.say("And?")
        assert told(first.requests[-1]) == [("user", "And?")]
        assert reply.phase is ReplyPhase.COMPLETE
        assert reply.footer == english("degraded-memory-footer")


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
        assert reply.retryable
        assert _blamed(bench) == []

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
        assert _blamed(bench) == []
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
        assert _unanswered_calls(first) == set()
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
        assert _unanswered_calls(first) == set()
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
        assert _blamed(bench) == []

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
        async with chat_harness(file, provider("first", first.url), demos=frozenset({"first"})) as bench:
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


class TestChoice:
    """Who is asked first."""

    async def test_for_one_answer(self, duo: ChatHarness, second: LLMServer) -> None:
        """Retry elsewhere: this answer, not the next."""
        reply = await duo.say()
        elsewhere = await duo.retry(reply, choice=ModelChoice("second", "second-large"))
        assert (elsewhere.provider, elsewhere.model) == ("second", "second-large")
        assert second.requests[-1].model == "second-large"
        assert (await duo.say()).provider == "first"

    async def test_of_a_chat(self, duo: ChatHarness) -> None:
        """All answers there and none elsewhere; a choice for one answer comes before it."""
        await duo.stores.preferences.set_model("telegram:7", "second", "second-large")
        reply = await duo.say()
        assert (reply.provider, reply.model) == ("second", "second-large")
        assert (await duo.say(message(key=GROUP))).provider == "first"
        assert (await duo.say(choice=ModelChoice("first"))).provider == "first"

    async def test_one_that_fails(self, duo: ChatHarness, second: LLMServer) -> None:
        """The others follow."""
        second.default = status(529)
        reply = await duo.say(choice=ModelChoice("second"))
        assert reply.provider == "first"
        assert [failed for failed, _ in reply.failed_over] == ["second"]

    async def test_one_that_is_not_configured_any_more(self, duo: ChatHarness) -> None:
        """The order of the configuration, as if nothing had been chosen; the log says so."""
        await duo.stores.preferences.set_model("telegram:7", "gone", "model")
        with capture_logs() as logs:
            assert (await duo.say()).provider == "first"
            assert (await duo.say(choice=ModelChoice("gone-too"))).provider == "first"
        gone = [entry["provider"] for entry in logs if entry["event"] == "turn.choice_unavailable"]
        assert gone == ["gone", "gone-too"]


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
            assert not reply.retryable
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
        assert reply.retryable
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
        assert reply.retryable
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
        assert (reply.phase, reply.footer, reply.retryable) == (ReplyPhase.FAILED, None, False)

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
            assert _blamed(bench) == []
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


def _blamed(bench: ChatHarness) -> list[str]:
    states = bench.fallback.get_provider_status().providers
    return [each.provider for each in states if each.state is ProviderState.COOLING or each.failures]


def _unanswered_calls(server: LLMServer) -> set[str]:
    """Tool calls of the last request that have no result in it."""
    sent = server.requests[-1].json["messages"]
    calls = {call["id"] for each in sent for call in each.get("tool_calls") or ()}
    return calls ^ {each["tool_call_id"] for each in sent if each["role"] == "tool"}


class SlowNotes:
    """Notes whose reading never comes to an end."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()

    async def recall(self, *_: object) -> list[str]:
        self.asked.set()
        await asyncio.Event().wait()
        return []


class BrokenNotes:
    """Notes with a bug."""

    async def recall(self, *_: object) -> list[str]:
        raise ZeroDivisionError
