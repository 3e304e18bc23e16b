"""A turn from its message to what is saved of it: real HTTP, a real database."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from pydantic import SecretStr
from pydantic_ai.messages import ModelMessage, UserPromptPart
from structlog.testing import capture_logs

from core.config.providers import ProviderKind
from core.config.settings import ProviderSettings
from core.db.database import Database
from core.errors import StorageError
from core.i18n import Texts
from core.messages import Attachment, Speaker
from services.chat.agent import LIMITS
from services.chat.reply import ReplyPhase
from services.chat.store.conversation import Thread, TurnStatus
from services.llm.request import ModelChoice
from tests.support.chat_harness import ANN, BOB, GROUP, ChatHarness, can_retry, chat_harness, message, told
from tests.support.fake_llm.server import (
    Behaviour,
    LLMServer,
    answer,
    content_filter,
    content_filter_rejected,
    context_exceeded,
    error_in_stream,
    gate,
    refusal,
    status,
    tool_call,
)
from tests.support.fake_llm.wire import INPUT_TOKENS, OUTPUT_TOKENS
from tests.support.llm_harness import provider, stopped_server

TEXTS = Texts(strict=True)
english = TEXTS.get
"""A text in English, by its key."""
PHOTO = Attachment(b"\x89PNG not really", "image/png")


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
            assert not can_retry(reply)
            shown.set()
            await turn
        assert (reply.text, reply.phase) == ("One two three", ReplyPhase.COMPLETE)
        assert (reply.notice, reply.footer, reply.failed_over) == (None, None, ())
        assert (reply.provider, reply.model) == ("first", "first-model")
        assert can_retry(reply)
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
        async with chat_harness(file, demo, demo_ids=frozenset({"show"})) as bench:
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
        assert can_retry(reply)
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
        assert can_retry(reply)
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
