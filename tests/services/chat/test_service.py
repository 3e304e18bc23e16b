"""ChatService: answers, prompts, failover, context window, choice of provider; over real HTTP and a real database."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from pydantic import SecretStr
from pydantic_ai.messages import UserPromptPart
from structlog.testing import capture_logs

from core.config.providers import ProviderKind
from core.config.settings import ProviderSettings
from core.db.database import Database
from core.i18n import Texts
from core.messages import Attachment, Speaker
from services.chat.reply import ReplyPhase
from services.chat.store.conversation import TurnStatus
from services.chat.turn import LIMITS
from services.llm.request import ModelChoice
from tests.support.chat_harness import ANN, BOB, GROUP, ChatHarness, can_retry, chat_harness, message, sent_messages
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

pytestmark = pytest.mark.integration

TEXTS = Texts(strict=True)
english = TEXTS.get
"""A text in English, by its key."""
PHOTO = Attachment(b"\x89PNG not really", "image/png")


class TestAnswer:
    """A turn without failures."""

    async def test_affinity_keeps_a_user_on_the_provider_used_while_the_first_was_busy(
        self, file: Database, first: LLMServer, second: LLMServer
    ) -> None:
        """In all chats of that user, and for no other user."""
        busy = provider("first", first.url, max_concurrency=1)
        async with chat_harness(file, busy, provider("second", second.url)) as harness:
            held = asyncio.Event()
            first.script(gate(held))
            reply, turn = harness.begin(message(speaker=BOB))
            await first.arrival(1)
            assert (await harness.say()).provider == "second"
            held.set()
            await turn

            assert (await harness.say()).provider == "second"
            assert (await harness.say(message(key=GROUP))).provider == "second"
            assert (await harness.say(message(key=GROUP, speaker=BOB))).provider == reply.provider == "first"

    async def test_answer_is_streamed_saved_and_read_after_a_restart(
        self, database: Database, database_url: str, first: LLMServer
    ) -> None:
        """The stored turn has provider, model and tokens."""
        shown = asyncio.Event()
        first.script(gate(shown, after_pieces=2, then=answer("One two three")))
        async with chat_harness(database, provider("first", first.url)) as harness:
            reply, turn = harness.begin("Count!")
            await asyncio.wait_for(reply.wait_beyond(6), 2)
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
        async with chat_harness(reopened, provider("first", first.url)) as harness:
            row = await harness.row(reply)
            assert (row.status, row.provider, row.model) == (TurnStatus.COMPLETE, "first", "first-model")
            assert (row.input_tokens, row.output_tokens, row.speaker_id) == (INPUT_TOKENS, OUTPUT_TOKENS, 7)
            await harness.say("Go on")
        assert sent_messages(first.requests[-1]) == [
            ("user", "Count!"),
            ("assistant", "One two three"),
            ("user", "Go on"),
        ]
        await reopened.close()

    async def test_concurrent_turns_of_two_chats_are_isolated(self, harness: ChatHarness, first: LLMServer) -> None:
        """A topic of a group and a private chat: neither waits for the other or sees its messages."""
        both = asyncio.Event()
        first.script(gate(both, then=answer("to one")), gate(both, then=answer("to the other")))
        private, turn = harness.begin("a secret")
        await first.arrival(1)
        group, other_turn = harness.begin(message("in public", key=GROUP))
        await first.arrival(2)
        both.set()
        await asyncio.gather(turn, other_turn)
        assert (private.text, group.text) == ("to one", "to the other")
        await harness.say(message("and?", key=GROUP))
        assert sent_messages(first.requests[-1]) == [
            ("user", "Ann: in public"),
            ("assistant", "to the other"),
            ("user", "Ann: and?"),
        ]

    @pytest.mark.parametrize("kind", [ProviderKind.OPENAI_COMPATIBLE, ProviderKind.ANTHROPIC])
    async def test_text_before_a_tool_call_is_kept_as_a_paragraph(
        self, file: Database, first: LLMServer, kind: ProviderKind
    ) -> None:
        """In the reply and in the history."""
        first.script(tool_call("current_time", {"time_zone": "UTC"}, "Let me see."), answer("It is eight."))
        url = first.root if kind is ProviderKind.ANTHROPIC else first.url
        settings = provider("first", url, kind=kind, api_key=SecretStr("k"))
        async with chat_harness(file, settings) as harness:
            reply = await harness.say("What time is it?")
            assert reply.text == "Let me see.\n\nIt is eight."
            row = await harness.row(reply)
            assert (row.input_tokens, row.output_tokens) == (2 * INPUT_TOKENS, 2 * OUTPUT_TOKENS)
            await harness.say("Thanks")
        assert [each["role"] for each in first.requests[-1].json["messages"] if each["role"] != "system"][-1] == "user"
        sent = json.dumps(first.requests[-1].json["messages"])
        assert "Let me see." in sent
        assert "08:00:00" in sent
        assert "It is eight." in sent

    async def test_tool_loop_is_limited(self, harness: ChatHarness, first: LLMServer) -> None:
        """Text of the steps stays."""
        first.default = tool_call("current_time", {})
        reply = await harness.say("Loop!")
        assert len(first.requests) == LIMITS.request_limit
        assert (reply.phase, reply.text, reply.footer) == (ReplyPhase.FAILED, "", None)
        assert reply.notice is not None
        assert reply.notice == english("failed-limit")
        first.default = tool_call("current_time", {}, "Again.")
        reply = await harness.say("Loop and talk!")
        assert reply.phase is ReplyPhase.INTERRUPTED
        assert reply.text.count("Again.") == LIMITS.request_limit

    async def test_demo_answer_has_a_footer(self, file: Database) -> None:
        """The demo needs no network."""
        demo = ProviderSettings(id="show", kind=ProviderKind.DEMO, models=("demo",))
        async with chat_harness(file, demo, demo_ids=frozenset({"show"})) as harness:
            reply = await harness.say()
        assert reply.text
        assert reply.footer == english("demo-footer")


class TestPrompt:
    """The prompt that a model receives."""

    async def test_group_prompt_names_the_speaker(self, harness: ChatHarness, first: LLMServer) -> None:
        """In earlier messages as well."""
        await harness.say(message("Tea?", key=GROUP))
        await harness.say(message("Coffee!", key=GROUP, speaker=BOB))
        assert sent_messages(first.requests[-1])[::2] == [("user", "Ann: Tea?"), ("user", "Bob: Coffee!")]

    async def test_private_prompt_is_the_text_alone(self, harness: ChatHarness, first: LLMServer) -> None:
        await harness.say("Tea?")
        assert sent_messages(first.requests[-1]) == [("user", "Tea?")]

    async def test_prompt_separates_the_quoted_message(self, harness: ChatHarness, first: LLMServer) -> None:
        await harness.say(message("Is that true?", key=GROUP, quoted="The moon is cheese"))
        (_, text), *_ = sent_messages(first.requests[-1])
        assert text == "[In reply to this message:]\n The moon is cheese\n[The message itself:]\nAnn: Is that true?"

    @pytest.mark.parametrize(
        ("text", "kinds"),
        [
            ("What is it?", ["text", "image_url"]),
            ("", ["image_url"]),  # no caption: an empty text is refused by some providers
        ],
    )
    async def test_vision_model_gets_the_image(
        self, file: Database, first: LLMServer, text: str, kinds: list[str]
    ) -> None:
        """In this turn and again with the history."""
        async with chat_harness(file, provider("first", first.url, models=("gpt-4o",))) as harness:
            reply = await harness.say(message(text, attachments=(PHOTO,)))
            assert reply.footer is None
            await harness.say("And in it?")
        for request in first.requests:
            content = request.json["messages"][1]["content"]
            assert [item["type"] for item in content] == kinds
            assert content[-1]["image_url"]["url"].startswith("data:image/png;base64,")

    async def test_text_model_gets_a_placeholder_and_the_user_a_footer(
        self, harness: ChatHarness, first: LLMServer
    ) -> None:
        """Only the answer to the image has the footer."""
        reply = await harness.say(message("What is it?", attachments=(PHOTO,)))
        assert "image_url" not in json.dumps(first.requests[-1].json)
        assert sent_messages(first.requests[-1]) == [("user", "What is it?\n[an image that you cannot see]")]
        assert reply.footer == english("cannot-see-image")
        assert (await harness.say("And?")).footer is None

    async def test_image_footer_survives_a_tool_loop(self, harness: ChatHarness, first: LLMServer) -> None:
        """The last request of the loop holds no image."""
        first.script(tool_call("current_time", {}))
        reply = await harness.say(message("What is it?", attachments=(PHOTO,)))
        assert len(first.requests) == 2
        assert reply.footer == english("cannot-see-image")


class TestFailover:
    """Failures of providers."""

    async def test_failover_before_the_first_token_is_recorded_in_the_reply(
        self, duo: ChatHarness, first: LLMServer
    ) -> None:
        """The user sees no notice."""
        first.default = status(529)
        reply = await duo.say()
        assert (reply.phase, reply.provider, reply.model) == (ReplyPhase.COMPLETE, "second", "second-model")
        assert [failed for failed, _ in reply.failed_over] == ["first"]
        assert (reply.notice, reply.footer) == (None, None)

    async def test_failover_in_a_tool_loop_is_recorded_once(
        self, duo: ChatHarness, first: LLMServer, second: LLMServer
    ) -> None:
        """The second step asks no failed provider; the turn still reports the failure of the first."""
        first.default = status(529)
        second.script(tool_call("current_time", {}))
        reply = await duo.say()
        assert len(first.requests) == 1
        assert len(second.requests) == 2
        assert [failed for failed, _ in reply.failed_over] == ["first"]

    @pytest.mark.parametrize(("speaker", "footer"), [(ANN, "answered by second"), (BOB, "ответ от second")])
    async def test_footer_names_the_provider_in_the_users_language(
        self, duo: ChatHarness, first: LLMServer, speaker: Speaker, footer: str
    ) -> None:
        """Only where the chat enabled footers."""
        await duo.stores.preferences.set_footers("telegram:7", shown=True)
        first.default = status(529)
        assert (await duo.say(message(speaker=speaker))).footer == footer
        await duo.stores.preferences.set_footers("telegram:7", shown=False)
        assert (await duo.say(message(speaker=speaker))).footer is None

    async def test_broken_stream_keeps_and_saves_the_partial_answer(self, duo: ChatHarness, first: LLMServer) -> None:
        """The next turn asks another provider."""
        first.script(error_in_stream(3))
        reply = await duo.say("A play?")
        assert (reply.phase, reply.text) == (ReplyPhase.INTERRUPTED, "The audience hears")
        assert reply.notice == english("interrupted")
        assert reply.provider == "first"
        row = await duo.row(reply)
        assert (row.status, row.provider) == (TurnStatus.INTERRUPTED, "first")
        again = await duo.say("Go on")
        assert again.provider == "second"

    async def test_break_in_a_tool_call_is_a_failure(self, harness: ChatHarness, first: LLMServer) -> None:
        """There is no text that could have been interrupted."""
        first.script(replace(tool_call("current_time", {}), breaks_off=lambda exchange: exchange.hang()))
        reply = await harness.say()
        assert (reply.phase, reply.text) == (ReplyPhase.FAILED, "")
        assert reply.notice == english("failed-all-providers")

    async def test_partial_answer_is_part_of_the_history(
        self, duo: ChatHarness, first: LLMServer, second: LLMServer
    ) -> None:
        """Also for another provider."""
        first.script(error_in_stream(3))
        await duo.say("A play?")
        await duo.say("Go on")
        assert sent_messages(second.requests[-1]) == [
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
    async def test_refusal_shows_the_providers_reason(
        self, duo: ChatHarness, first: LLMServer, second: LLMServer, behaviour: Behaviour, reason: str
    ) -> None:
        """No other provider is asked."""
        first.script(behaviour)
        reply = await duo.say("Something wicked")
        assert (reply.phase, reply.text) == (ReplyPhase.FAILED, "")
        assert reply.notice is not None
        assert reply.notice.startswith(english("failed-refused", reason=""))
        assert reason in reply.notice
        assert can_retry(reply)
        assert second.requests == []

    async def test_refusal_in_mid_answer_keeps_the_text(self, harness: ChatHarness, first: LLMServer) -> None:
        first.script(content_filter(("Well,", " you")))
        reply = await harness.say("Something wicked")
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
    async def test_failed_turn_keeps_its_prompt_for_retry_only(
        self, harness: ChatHarness, first: LLMServer, behaviour: Behaviour, notice: str
    ) -> None:
        """One line of text for the user; later turns do not send the prompt."""
        first.default = behaviour
        reply = await harness.say("Unheard")
        first.default = answer()
        assert (reply.phase, reply.text, reply.notice, reply.footer) == (ReplyPhase.FAILED, "", english(notice), None)
        assert can_retry(reply)
        assert (await harness.row(reply)).status == TurnStatus.FAILED
        await harness.say("Heard")
        assert sent_messages(first.requests[-1]) == [("user", "Heard")]
        assert reply.turn_id is not None
        kept = await harness.stores.turns.turn(reply.turn_id)
        assert kept is not None
        assert kept.prompt is not None
        assert [part.content for part in kept.prompt.parts if isinstance(part, UserPromptPart)] == ["Unheard"]

    async def test_failure_notice_is_in_the_users_language(self, file: Database) -> None:
        async with chat_harness(file, provider("first", await stopped_server())) as harness:
            reply = await harness.say(message(speaker=BOB))
        assert reply.notice == TEXTS.get("failed-all-providers", "ru") != english("failed-all-providers")


class TestContextWindow:
    """A history that exceeds the context window."""

    @pytest.fixture
    async def long_harness(self, file: Database, first: LLMServer) -> AsyncIterator[ChatHarness]:
        """A chat with four turns of about 130 tokens each, all within its budget."""
        async with chat_harness(file, provider("first", first.url), history_tokens=600) as harness:
            for number in range(4):
                await harness.say(f"{number} " + "x" * 400)
            first.requests.clear()
            yield harness

    async def test_history_is_halved_until_it_fits(self, long_harness: ChatHarness, first: LLMServer) -> None:
        """Halves the sent history at turn borders; the user sees a normal answer."""
        first.script(context_exceeded(), context_exceeded())
        reply = await long_harness.say("And?")
        assert (reply.phase, reply.text, reply.notice) == (ReplyPhase.COMPLETE, "Hello", None)
        sent = [[text[:2] for role, text in sent_messages(each) if role == "user"] for each in first.requests]
        assert sent[0] == ["0 ", "1 ", "2 ", "3 ", "An"]
        assert len(sent[1]) < len(sent[0])
        assert sent[2] == ["An"]
        row = await long_harness.row(reply)
        assert [each["kind"] for each in json.loads(row.messages or "")] == ["request", "response"]

    async def test_message_that_never_fits_fails_the_turn(self, long_harness: ChatHarness, first: LLMServer) -> None:
        """The notice names a remedy, and the conversation goes on with the next message."""
        first.default = context_exceeded()
        reply = await long_harness.say("And?")
        assert reply.phase is ReplyPhase.FAILED
        assert reply.notice == english("failed-too-long")
        first.default = answer()
        assert (await long_harness.say("Shorter")).phase is ReplyPhase.COMPLETE

    async def test_retry_is_halved_before_the_retried_turn(self, long_harness: ChatHarness, first: LLMServer) -> None:
        reply = await long_harness.say("And?")
        first.script(context_exceeded())
        await long_harness.retry(reply)
        after = [text[:2] for role, text in sent_messages(first.requests[-1]) if role == "user"]
        assert after[-1] == "An"
        assert len(after) < len(sent_messages(first.requests[-2]))


class TestChoice:
    """The provider that is asked first."""

    async def test_choice_of_a_retry_holds_for_one_answer(self, duo: ChatHarness, second: LLMServer) -> None:
        reply = await duo.say()
        elsewhere = await duo.retry(reply, choice=ModelChoice("second", "second-large"))
        assert (elsewhere.provider, elsewhere.model) == ("second", "second-large")
        assert second.requests[-1].model == "second-large"
        assert (await duo.say()).provider == "first"

    async def test_choice_of_a_chat_holds_for_its_answers(self, duo: ChatHarness) -> None:
        """A choice for one answer has precedence."""
        await duo.stores.preferences.set_model("telegram:7", "second", "second-large")
        reply = await duo.say()
        assert (reply.provider, reply.model) == ("second", "second-large")
        assert (await duo.say(message(key=GROUP))).provider == "first"
        assert (await duo.say(choice=ModelChoice("first"))).provider == "first"

    async def test_choice_that_fails_falls_back(self, duo: ChatHarness, second: LLMServer) -> None:
        second.default = status(529)
        reply = await duo.say(choice=ModelChoice("second"))
        assert reply.provider == "first"
        assert [failed for failed, _ in reply.failed_over] == ["second"]

    async def test_choice_no_longer_configured_is_ignored_and_logged(self, duo: ChatHarness) -> None:
        await duo.stores.preferences.set_model("telegram:7", "gone", "model")
        with capture_logs() as logs:
            assert (await duo.say()).provider == "first"
            assert (await duo.say(choice=ModelChoice("gone-too"))).provider == "first"
        gone = [entry["provider"] for entry in logs if entry["event"] == "turn.choice_unavailable"]
        assert gone == ["gone", "gone-too"]
