"""The console from banner to exit, in this process: real services, loopback servers, piped input."""

import asyncio
import os
import re
import signal
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.fake_llm import server as llm
from tests.support.fake_llm.server import LLMServer, RecordedRequest, refusing_url
from tests.support.sqlite_file import locked_file
from tests.support.terminal import Opener

pytestmark = pytest.mark.integration


def sent_contents(request: RecordedRequest) -> list[str]:
    """Return the contents of a request's messages, without instructions."""
    return [message["content"] for message in request.json["messages"] if message["role"] != "system"]


def stored_turn(tmp_path: Path) -> tuple[str, str]:
    """Return status and messages of the only turn."""
    with closing(sqlite3.connect(tmp_path / "data" / "understudy.db")) as database:
        ((status, messages),) = database.execute("SELECT status, messages FROM turns").fetchall()
    return status, messages


def broadcasts(tmp_path: Path) -> list[tuple[str, str]]:
    """Return text and state of each broadcast, the oldest first."""
    with closing(sqlite3.connect(tmp_path / "data" / "understudy.db")) as database:
        return database.execute("SELECT text, state FROM broadcasts ORDER BY id").fetchall()


def add_private_chat(tmp_path: Path) -> None:
    """Stores a conversation of one person with the Telegram bot, who gets broadcasts."""
    with closing(sqlite3.connect(tmp_path / "data" / "understudy.db")) as database, database:
        database.execute(
            "INSERT INTO threads (surface, chat_id, topic_id, is_current, created_at)"
            " VALUES ('telegram', 7, 0, 1, '2026-11-01 12:00:00.000000')"
        )


class TestBanner:
    """The lines before the first input."""

    async def test_banner_shows_providers_and_missing_settings(self, opened: Opener, server: LLMServer) -> None:
        with refusing_url() as url:
            async with opened({"a": url, "openai": server.url, "b": server.url}) as session:
                pass
        lines = session.text.splitlines()
        assert "a: connection refused" in lines
        assert "b: ready (m)" in lines
        assert "openai is left out: OPENAI_API_KEY is not set" in lines
        assert "demo" not in session.text
        assert sum("REDIS_URL is not set" in line for line in lines) == 1

    async def test_server_without_a_model_list_is_ready(self, opened: Opener, server: LLMServer) -> None:
        """Many small servers have none, and answer all the same."""
        server.models_behaviour = llm.status(404)
        async with opened({"b": server.url}) as session:
            pass
        assert "b: ready (m)" in session.text.splitlines()
        assert "demo" not in session.text

    async def test_console_uses_the_language_of_the_environment(
        self, opened: Opener, server: LLMServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("LC_ALL", "ru_RU.UTF-8")
        async with opened({"a": server.url}) as session:
            session.type("/nonsense")
        assert "a: готов (m)" in session.text
        assert "Неизвестная команда" in session.text

    async def test_banner_shows_an_ollama_without_its_model(self, opened: Opener) -> None:
        """The command that installs it; the demo is added."""
        async with LLMServer(models=["llama3.2:latest"]) as server, opened({"ollama": server.url}) as session:
            session.type("/provider test demo")
            await session.until("demo works")
            session.type("/privacy")
            await session.until("No external provider is configured")
        assert "model m is not installed (ollama pull m)" in session.text
        assert "the built-in demo answers instead" in session.text


class TestMessages:
    """Lines without a slash."""

    async def test_message_without_a_provider_fails_over_to_the_demo(self, opened: Opener) -> None:
        """No provider answers the probe: the demo is the last candidate."""
        with refusing_url() as url:
            async with opened({"ollama": url}) as session:
                assert "the built-in demo answers instead" in session.text
                session.type("hello there")
                await session.until("You wrote “hello there”")
                await session.until("ollama: connection refused -> demo answered\n")
                await session.until("This is the built-in demo, not an AI model.")

    async def test_message_shows_a_failover_between_providers(self, opened: Opener, server: LLMServer) -> None:
        """The demo is not added."""
        server.default = llm.answer("Here I am.")
        with refusing_url() as url:
            async with opened({"a": url, "b": server.url}) as session:
                session.type("hello")
                assert "Here I am.\na: connection refused -> b answered\n" in await session.until("b answered\n")
                session.type("and again")
                # The second request goes straight to the provider that answered.
                assert "connection refused" not in await session.until("Here I am.\n\n")
                session.type("/provider", "/new")
                await session.until("Started a new conversation")
        assert "demo" not in session.text

    async def test_message_streams_the_answer(self, opened: Opener, server: LLMServer) -> None:
        held = asyncio.Event()
        server.default = llm.gate(held, after_pieces=1, then=llm.answer("First second."))
        async with opened({"a": server.url}) as session:
            session.type("hello")
            await session.until("First")
            assert "second" not in session.text
            held.set()
            await session.until(" second.\n")

    async def test_messages_are_one_conversation_answered_in_order(self, opened: Opener, server: LLMServer) -> None:
        """Typed at once; blank lines are ignored."""
        server.script(llm.answer("one", delay_s=0.05), llm.answer("two"))
        async with opened({"a": server.url}) as session:
            session.type("first", "", "   ", "second")
            await session.until("two\n")
        assert [sent_contents(request) for request in server.requests] == [["first"], ["first", "one", "second"]]

    async def test_last_line_without_newline_is_a_message(self, opened: Opener, server: LLMServer) -> None:
        async with opened({"a": server.url}) as session:
            os.write(session._writing, "Grüße".encode())
            assert await session.leave() == 0
        assert sent_contents(server.requests[0]) == ["Grüße"]

    async def test_message_without_an_answer_can_be_retried(self, opened: Opener, server: LLMServer) -> None:
        server.script(llm.status(401))
        async with opened({"a": server.url}) as session:
            session.type("hello")
            await session.until("All AI providers are unavailable right now")
            session.type("/retry")
            await session.until("Hello\n")

    async def test_answer_loses_control_characters(self, opened: Opener, server: LLMServer) -> None:
        """Escape sequences could rewrite the screen or the clipboard."""
        server.default = llm.answer(pieces=["a\x1b]52;c;", "aGk=\x07b\r\n", "\tc\x9b2J", "d"])
        async with opened({"a": server.url}) as session:
            session.type("hello")
            await session.until("a]52;c;aGk=b\n\tc2Jd\n")

    async def test_console_survives_an_unexpected_exception(
        self, opened: Opener, server: LLMServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def broken(*_: object, **__: object) -> None:
            raise RuntimeError

        async with opened({"a": server.url}) as session:
            with monkeypatch.context() as patch:
                patch.setattr("services.chat.service.ChatService.respond", broken)
                session.type("hello")
                await session.until("Something went wrong on our side")
            session.type("hello")
            await session.until("Hello\n")


class TestCommands:
    """Lines with a slash."""

    async def test_new_starts_a_thread(self, opened: Opener, server: LLMServer) -> None:
        async with opened({"a": server.url}) as session:
            session.type("first", "/new", "second")
            await session.until("Started a new conversation")
            await session.until("Hello\n")
        assert sent_contents(server.requests[-1]) == ["second"]

    async def test_conversation_continues_after_a_restart(self, opened: Opener, server: LLMServer) -> None:
        for line in ("first", "second"):
            async with opened({"a": server.url}) as session:
                session.type(line)
                await session.until("Hello\n")
        assert sent_contents(server.requests[-1]) == ["first", "Hello", "second"]

    async def test_model_lists_configured_and_live_models(self, opened: Opener, server: LLMServer) -> None:
        """With the reason where there is no live list."""
        with refusing_url() as url:
            server.models = ["m", "x", *(f"y{n}" for n in range(20))]
            async with opened({"a": server.url, "b": url}) as session:
                session.type("/model")
                shown = await session.until("/model auto")
        assert "Current: automatic" in shown
        assert "  a: m, n; also available: x, y0, " in shown
        assert ", …, +9\n" in shown
        assert "  b: m, n (connection refused)\n" in shown

    async def test_model_sets_and_clears_the_choice(self, opened: Opener, server: LLMServer) -> None:
        """The default model, a configured model, a model of the live list."""
        server.models = ["m", "n", "x"]
        async with opened({"a": server.url, "b": server.url}) as session:
            for arguments, current in {"b": "b m", "B n": "b n", "b x": "b x", "auto": "automatic"}.items():
                session.type(f"/model {arguments}", "hello", "/model")
                await session.until(f"Current: {current}")
        assert [request.model for request in server.requests] == ["m", "n", "x", "m"]

    @pytest.mark.parametrize(
        ("arguments", "answer"),
        [
            ("c", "Unknown provider c. Configured: a."),
            ("a nonsense", "a has no model nonsense. Available: m, n."),
        ],
    )
    async def test_model_rejects_unknown_names(
        self, opened: Opener, server: LLMServer, arguments: str, answer: str
    ) -> None:
        async with opened({"a": server.url}) as session:
            session.type(f"/model {arguments}", "/model")
            await session.until(answer)
            await session.until("Current: automatic")

    async def test_retry_asks_the_given_provider(self, opened: Opener, server: LLMServer) -> None:
        """The earlier answer is replaced."""
        async with LLMServer() as other, opened({"a": server.url, "b": other.url}) as session:
            other.default = llm.answer("Better")
            session.type("/retry")
            await session.until("nothing to retry")
            session.type("hello", "/retry b", "/retry c", "more")
            await session.until("Better\n")
            await session.until("Unknown provider c")
            await session.until("Hello\n")
        assert [sent_contents(request) for request in other.requests] == [["hello"]]
        assert sent_contents(server.requests[-1]) == ["hello", "Better", "more"]

    async def test_provider_commands_need_no_permission(self, opened: Opener, server: LLMServer) -> None:
        async with opened({"a": server.url, "b": server.url}) as session:
            session.type("/provider force b 10m", "/provider", "/provider test a", "/provider help")
            await session.until("b is asked first")
            await session.until("2. b: forced until")
            await session.until("a works: m answered in")
            await session.until("Usage: /provider")

    @pytest.mark.parametrize("line", ["/nonsense", "/", "/etc/passwd"])
    async def test_unknown_command_is_not_sent_to_a_model(self, opened: Opener, server: LLMServer, line: str) -> None:
        async with opened({"a": server.url}) as session:
            session.type(line)
            await session.until("Unknown command.")
        assert server.requests == []

    @pytest.mark.parametrize(
        ("line", "meant"),
        [("/modle", "/model"), ("/exitt", "/exit"), ("/Provders a", "/provider"), ("/shedule", "/schedule")],
    )
    async def test_mistyped_command_gets_a_suggestion(
        self, opened: Opener, server: LLMServer, line: str, meant: str
    ) -> None:
        async with opened({"a": server.url}) as session:
            session.type(line)
            await session.until(f"Did you mean {meant}?")
        assert server.requests == []

    async def test_commands_of_operators_work(self, opened: Opener, server: LLMServer) -> None:
        async with opened({"a": server.url}) as session:
            session.type("/ban_user 9 spam", "/unban_user 9", "/audit operation", "/stats")
            await session.until("9 is banned")
            await session.until("The ban of 9 is lifted")
            assert "banned: telegram:9 (spam)" in await session.until("moderated groups: 0, bans: 0")

    async def test_broadcast_is_counted_and_confirmed(self, opened: Opener, server: LLMServer, tmp_path: Path) -> None:
        opening = opened({"a": server.url})
        add_private_chat(tmp_path)
        async with opening as session:
            session.type("/broadcast send")
            await session.until("This broadcast no longer exists.")
            session.type("/broadcast Hello to all", "/broadcast")
            await session.until("This message would go to one person")
            await session.until("Nothing is sent yet.")
            assert "“Hello to all”\nThis message would go to" in await session.until("/broadcast <text> writes")
            session.type(
                "/broadcast send", "/broadcast discard", "/broadcast stop", "/broadcast send", "/broadcast stop"
            )
            await session.until("shares this database sends it")
            assert "Nothing was sent" not in await session.until("Stopped at 0 of 1.")
            await session.until("Stopped at 0 of 1.")
            session.type("/broadcast Another", "/broadcast discard", f"/broadcast {'x' * 4097}", "/audit operation")
            await session.until("Nothing was sent.")
            await session.until("1 to 4,096 characters")
            await session.until("stopped a broadcast")
        assert server.requests == []

    async def test_broadcast_to_no_chat_cannot_be_sent(self, opened: Opener, server: LLMServer, tmp_path: Path) -> None:
        async with opened({"a": server.url}) as session:
            session.type("/broadcast Hello to all", "/broadcast send")
            await session.until("There is no one to send it to.")
            assert "/broadcast send" not in await session.until("There is no one to send it to.")
            assert broadcasts(tmp_path) == [("Hello to all", "draft")]

    async def test_broadcast_of_another_session_is_shown_before_it_is_sent(
        self, opened: Opener, server: LLMServer, tmp_path: Path
    ) -> None:
        opening = opened({"a": server.url})
        add_private_chat(tmp_path)
        async with opening as session:
            session.type("/broadcast From this terminal")
            await session.until("Nothing is sent yet.")
            with closing(sqlite3.connect(tmp_path / "data" / "understudy.db")) as database, database:
                columns = ", ".join(
                    row[1] for row in database.execute("PRAGMA table_info(broadcasts)") if row[1] != "id"
                )
                values = columns.replace("text", "'From another'", 1)
                database.execute(f"INSERT INTO broadcasts ({columns}) SELECT {values} FROM broadcasts")
            session.type("/broadcast send")
            await session.until("shares this database sends it")
            assert broadcasts(tmp_path) == [("From this terminal", "running"), ("From another", "draft")]
        async with opened({"a": server.url}) as session:
            session.type("/broadcast send")
            await session.until("“From another”")
            await session.until("drafted in another session")
            assert broadcasts(tmp_path)[1] == ("From another", "draft")
            session.type("/broadcast stop", "/broadcast send")
            await session.until("Stopped at 0 of 1.")
            await session.until("shares this database sends it")
            assert broadcasts(tmp_path) == [("From this terminal", "stopped"), ("From another", "running")]

    async def test_compare_prints_both_answers_and_takes_a_vote(
        self, opened: Opener, server: LLMServer, second: LLMServer
    ) -> None:
        server.default, second.default = llm.answer("From the first"), llm.answer("From the second")
        async with opened({"a": server.url, "b": second.url}) as session:
            session.type("/compare Hello?", "/vote b", "/compare stats")
            assert "A\nFrom the first\nB\nFrom the second\n" in await session.until("Type /vote a")
            await session.until("You chose B.\nA: a/m")
            await session.until("b/m\n100% of comparisons")

    async def test_help_lists_exactly_the_commands(self, opened: Opener, server: LLMServer) -> None:
        async with opened({"a": server.url}) as session:
            session.type("/HELP")
            shown = await session.until("Ctrl-D exits.")
            session.type("help")
            assert "Ctrl-D exits." in await session.until("Ctrl-D exits.")
        assert not server.requests
        listed = re.findall(r"^/(\w+)", shown, re.MULTILINE)
        chat = {"new", "threads", "compact", "model", "retry"}
        operator = {"compare", "stats", "audit", "broadcast", "ban_user"}
        assert set(listed) == {
            *chat,
            *operator,
            "provider",
            "usage",
            "image",
            "settings",
            "budget",
            "privacy",
            "forget",
            "language",
            "persona",
            "quit",
        }

    async def test_image_is_saved_as_a_file_until_it_is_forgotten(
        self, opened: Opener, server: LLMServer, tmp_path: Path
    ) -> None:
        async with opened({"a": server.url}, IMAGE_PROVIDERS='{"a": ["draw"]}') as session:
            session.type("/image", "/image a fox in the snow")
            await session.until("Describe the picture after the command")
            shown = await session.until(".png\n")
            (picture,) = (tmp_path / "data" / "console.pictures").iterdir()
            assert f"Saved the picture as {picture}\n" in shown
            assert picture.read_bytes() == llm.PNG
            assert picture.stat().st_mode & 0o777 == 0o600
            server.script(llm.tool_call("draw_picture", {"description": "a red fox"}), llm.answer("Here it is."))
            session.type("Draw me a fox", "/forget yes")
            await session.until("Here it is.\nSaved the picture as ")
            await session.until("erased")
            assert not picture.parent.exists()

    async def test_commands_of_telegram_and_settings_are_answered(self, opened: Opener, server: LLMServer) -> None:
        async with opened({"a": server.url}) as session:
            session.type("/schedule tomorrow", "/ask something", "/image a fox", "/stop", "/settings")
            await session.until("/schedule works in Telegram only.")
            await session.until("/ask works in Telegram only.")
            await session.until("Drawing is not set up on this bot.")
            await session.until("Nothing is running.")
            await session.until("Language: English (/language)\nPersona: Standard (/persona)\nWho answered: hidden (")
        assert not server.requests

    async def test_usage_shows_own_and_all_usage(self, opened: Opener, server: LLMServer) -> None:
        async with opened({"a": server.url}) as session:
            session.type("hello", "/usage")
            shown = await session.until("All users this month, by provider:\na: ")
        assert "You today: one answer, 18 tokens, $0\n" in shown

    async def test_threads_lists_switches_renames_and_deletes(self, opened: Opener, server: LLMServer) -> None:
        async with opened({"a": server.url}) as session:
            session.type("of Peru", "/threads rename Peru", "/new", "of bread", "/threads rename Bread", "/threads")
            await session.until("* 1. Bread\n  2. Peru\n")
            session.type("/threads 2", "and its capital?")
            await session.until("Continuing “Peru”.")
            await server.arrival(3)
            assert sent_contents(server.requests[-1]) == ["of Peru", "Hello", "and its capital?"]
            session.type("/threads delete 1", "/threads")
            await session.until("Deleted.")
            await session.until("* 1. Peru\n/threads <number>")
            session.type("/threads 7")
            await session.until("/threads <number> continues a conversation")

    async def test_model_footers_are_shown_and_hidden(self, opened: Opener, server: LLMServer) -> None:
        async with opened({"a": server.url}) as session:
            session.type("/model footers on", "hello")
            await session.until("answered by a")
            session.type("/model footers off")
            await session.until("no longer show who gave them")
            session.type("/model footers")
            await session.until("/model footers on|off")

    async def test_command_reports_a_database_error(self, opened: Opener, server: LLMServer, tmp_path: Path) -> None:
        async with opened({"a": server.url}) as session:
            async with locked_file(tmp_path / "data" / "understudy.db") as database:
                database.execute("DROP TABLE preferences")
            session.type("/model auto", "hello")
            await session.until("Database error: ")
            await session.until("Hello\n")


class TestExit:
    """Quit, end of input, signals."""

    @pytest.mark.parametrize("line", ["/quit", " /QUIT ", "/exit", "quit", "Exit"])
    async def test_quit_ends_the_session(self, opened: Opener, server: LLMServer, line: str) -> None:
        async with opened({"a": server.url}) as session:
            session.type(line, "never read")
            assert await session.leave() == 0
        assert server.requests == []

    async def test_interrupt_stops_answer_command_or_session(
        self, opened: Opener, server: LLMServer, tmp_path: Path
    ) -> None:
        """In this order of precedence."""
        server.default = llm.stall(after_pieces=2)
        async with opened({"a": server.url}) as session:
            session.type("hello")
            await session.until("The audience")
            os.kill(os.getpid(), signal.SIGINT)
            await session.until("\nStopped.\n")
            server.default = llm.hang()
            session.type("/provider test a")
            await server.arrival(2)
            os.kill(os.getpid(), signal.SIGINT)
            await session.until("Stopped.\n")
            session.type("/new")
            await session.until("Started a new conversation")
            await asyncio.sleep(0.05)
            os.kill(os.getpid(), signal.SIGINT)
            assert await session._run == 0
        assert stored_turn(tmp_path)[0] == "stopped"

    async def test_termination_saves_the_partial_answer(
        self, opened: Opener, server: LLMServer, tmp_path: Path
    ) -> None:
        """As interrupted, like a shutdown of the daemon."""
        server.default = llm.stall(after_pieces=2)
        async with opened({"a": server.url}) as session:
            session.type("hello")
            await session.until("The audience")
            os.kill(os.getpid(), signal.SIGTERM)
            assert await session._run == 0
        status, messages = stored_turn(tmp_path)
        assert status == "interrupted"
        assert "The audience" in messages
