"""The console from the greeting to the end, in this process: real services, loopback servers, a pipe for a keyboard."""

import asyncio
import os
import signal
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, closing
from pathlib import Path

import pytest

from tests.support.fake_llm import server as llm
from tests.support.fake_llm.server import LLMServer, RecordedRequest, refusing_url
from tests.support.settings import settings_for
from tests.support.sqlite_file import locked_file
from tests.support.terminal import Console, console

Opener = Callable[..., AbstractAsyncContextManager[Console]]


@pytest.fixture
def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Opener:
    """Opens a console on providers named by their base URLs."""
    monkeypatch.setenv("LC_ALL", "en_GB.UTF-8")

    def opening(providers: dict[str, str], **variables: str) -> AbstractAsyncContextManager[Console]:
        return console(settings_for(tmp_path / "data", providers, **variables), monkeypatch)

    return opening


@pytest.fixture
async def server() -> AsyncIterator[LLMServer]:
    """A provider's server."""
    async with LLMServer() as started:
        started.naming = llm.answer("A name for it")
        yield started


def asked(request: RecordedRequest) -> list[str]:
    """What a model was told by the user and by itself, without instructions."""
    return [message["content"] for message in request.json["messages"] if message["role"] != "system"]


def saved(tmp_path: Path) -> tuple[str, str]:
    """Status and messages of the one turn."""
    with closing(sqlite3.connect(tmp_path / "data" / "understudy.db")) as database:
        ((status, messages),) = database.execute("SELECT status, messages FROM turns").fetchall()
    return status, messages


class TestGreeting:
    """What is said before anything is typed."""

    async def test_who_answers_and_what_is_missing(self, opened: Opener, server: LLMServer) -> None:
        with refusing_url() as nobody:
            async with opened({"a": nobody, "openai": server.url, "b": server.url}) as seen:
                pass
        lines = seen.text.splitlines()
        assert "a: connection refused" in lines
        assert "b: ready (m)" in lines
        assert "openai is left out: OPENAI_API_KEY is not set" in lines
        assert "demo" not in seen.text
        assert sum("REDIS_URL is not set" in line for line in lines) == 1

    async def test_in_the_language_of_the_environment(
        self, opened: Opener, server: LLMServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("LC_ALL", "ru_RU.UTF-8")
        async with opened({"a": server.url}) as seen:
            seen.type("/nonsense")
        assert "a: готов (m)" in seen.text
        assert "Неизвестная команда" in seen.text

    async def test_ollama_without_its_model_is_not_ready(self, opened: Opener) -> None:
        """The commonest state of a newcomer's machine: the line says what to do, and the demo stands in."""
        async with LLMServer(models=["llama3.2:latest"]) as server, opened({"ollama": server.url}) as seen:
            seen.type("/provider test demo")
            await seen.until("demo works")
            seen.type("/privacy")
            await seen.until("No external provider is configured")
        assert "model m is not installed (ollama pull m)" in seen.text
        assert "the built-in demo answers instead" in seen.text


class TestAnswers:
    """A line is a message."""

    async def test_a_newcomers_first_message_shows_a_failover(self, opened: Opener) -> None:
        """Nobody answers the probe: the demo is the last candidate, after the real one was tried."""
        with refusing_url() as nobody:
            async with opened({"ollama": nobody}) as seen:
                assert "the built-in demo answers instead" in seen.text
                seen.type("hello there")
                await seen.until("You wrote “hello there”")
                await seen.until("ollama: connection refused -> demo answered\n")
                await seen.until("This is the built-in demo, not an AI model.")

    async def test_a_failover_between_real_providers_is_shown_and_the_demo_stays_away(
        self, opened: Opener, server: LLMServer
    ) -> None:
        server.default = llm.answer("Here I am.")
        with refusing_url() as nobody:
            async with opened({"a": nobody, "b": server.url}) as seen:
                seen.type("hello")
                assert "Here I am.\na: connection refused -> b answered\n" in await seen.until("b answered\n")
                seen.type("and again")
                # The second goes straight to who answers.
                assert "connection refused" not in await seen.until("Here I am.\n\n")
                seen.type("/provider", "/new")
                await seen.until("Started a new conversation")
        assert "demo" not in seen.text

    async def test_pieces_are_shown_as_they_come(self, opened: Opener, server: LLMServer) -> None:
        held = asyncio.Event()
        server.default = llm.gate(held, after_pieces=1, then=llm.answer("First second."))
        async with opened({"a": server.url}) as seen:
            seen.type("hello")
            await seen.until("First")
            assert "second" not in seen.text
            held.set()
            await seen.until(" second.\n")

    async def test_lines_are_one_conversation_answered_in_order(self, opened: Opener, server: LLMServer) -> None:
        """Typed at once, all of them; empty ones are nothing."""
        server.script(llm.answer("one", delay_s=0.05), llm.answer("two"))
        async with opened({"a": server.url}) as seen:
            seen.type("first", "", "   ", "second")
            await seen.until("two\n")
        assert [asked(request) for request in server.requests] == [["first"], ["first", "one", "second"]]

    async def test_a_last_line_without_an_end_counts(self, opened: Opener, server: LLMServer) -> None:
        async with opened({"a": server.url}) as seen:
            os.write(seen._writing, "Grüße".encode())
            assert await seen.leave() == 0
        assert asked(server.requests[0]) == ["Grüße"]

    async def test_when_everybody_fails_that_is_said_and_the_console_goes_on(
        self, opened: Opener, server: LLMServer
    ) -> None:
        server.script(llm.status(401))
        async with opened({"a": server.url}) as seen:
            seen.type("hello")
            await seen.until("All AI providers are unavailable right now")
            seen.type("/retry")
            await seen.until("Hello\n")

    async def test_what_moves_a_terminal_is_taken_out_of_an_answer(self, opened: Opener, server: LLMServer) -> None:
        """A model that was talked into it could otherwise rewrite the screen or the clipboard."""
        server.default = llm.answer(pieces=["a\x1b]52;c;", "aGk=\x07b\r\n", "\tc\x9b2J", "d"])
        async with opened({"a": server.url}) as seen:
            seen.type("hello")
            await seen.until("a]52;c;aGk=b\n\tc2Jd\n")

    async def test_a_fault_of_ours_is_told_and_the_console_goes_on(
        self, opened: Opener, server: LLMServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def broken(*_: object, **__: object) -> None:
            raise RuntimeError

        async with opened({"a": server.url}) as seen:
            with monkeypatch.context() as patch:
                patch.setattr("services.chat.service.ChatService.respond", broken)
                seen.type("hello")
                await seen.until("Something went wrong on our side")
            seen.type("hello")
            await seen.until("Hello\n")


class TestCommands:
    """A line with a slash."""

    async def test_new_forgets(self, opened: Opener, server: LLMServer) -> None:
        async with opened({"a": server.url}) as seen:
            seen.type("first", "/new", "second")
            await seen.until("Started a new conversation")
            await seen.until("Hello\n")
        assert asked(server.requests[-1]) == ["second"]

    async def test_a_conversation_outlives_the_process(self, opened: Opener, server: LLMServer) -> None:
        for line in ("first", "second"):
            async with opened({"a": server.url}) as seen:
                seen.type(line)
                await seen.until("Hello\n")
        assert asked(server.requests[-1]) == ["first", "Hello", "second"]

    async def test_model_lists_what_there_is(self, opened: Opener, server: LLMServer) -> None:
        """What is configured, what the live list has besides, and why there is no live list."""
        with refusing_url() as nobody:
            server.models = ["m", "x", *(f"y{n}" for n in range(20))]
            async with opened({"a": server.url, "b": nobody}) as seen:
                seen.type("/model")
                shown = await seen.until("/model auto")
        assert "Current: automatic" in shown
        assert "  a: m, n; also available: x, y0, " in shown
        assert ", …, +9\n" in shown
        assert "  b: m, n (connection refused)\n" in shown

    async def test_model_picks_and_gives_back(self, opened: Opener, server: LLMServer) -> None:
        """A provider with its default model, one of its models, one of its live list; then nobody in particular."""
        server.models = ["m", "n", "x"]
        async with opened({"a": server.url, "b": server.url}) as seen:
            for arguments, current in {"b": "b m", "B n": "b n", "b x": "b x", "auto": "automatic"}.items():
                seen.type(f"/model {arguments}", "hello", "/model")
                await seen.until(f"Current: {current}")
        assert [request.model for request in server.requests] == ["m", "n", "x", "m"]

    @pytest.mark.parametrize(
        ("arguments", "answer"),
        [
            ("c", "Unknown provider c. Configured: a."),
            ("a nonsense", "a has no model nonsense. Available: m, n."),
        ],
    )
    async def test_model_refuses_what_is_not_there(
        self, opened: Opener, server: LLMServer, arguments: str, answer: str
    ) -> None:
        async with opened({"a": server.url}) as seen:
            seen.type(f"/model {arguments}", "/model")
            await seen.until(answer)
            await seen.until("Current: automatic")

    async def test_retry_asks_the_same_again_elsewhere_if_wanted(self, opened: Opener, server: LLMServer) -> None:
        """The former answer gives way: the model is not told of it."""
        async with LLMServer() as other, opened({"a": server.url, "b": other.url}) as seen:
            other.default = llm.answer("Better")
            seen.type("/retry")
            await seen.until("nothing to retry")
            seen.type("hello", "/retry b", "/retry c", "more")
            await seen.until("Better\n")
            await seen.until("Unknown provider c")
            await seen.until("Hello\n")
        assert [asked(request) for request in other.requests] == [["hello"]]
        assert asked(server.requests[-1]) == ["hello", "Better", "more"]

    async def test_provider_is_for_whoever_sits_there(self, opened: Opener, server: LLMServer) -> None:
        async with opened({"a": server.url, "b": server.url}) as seen:
            seen.type("/provider force b 10m", "/provider", "/provider test a", "/provider help")
            await seen.until("b is asked first")
            await seen.until("2. b: forced until")
            await seen.until("a works: m answered in")
            await seen.until("Usage: /provider")

    @pytest.mark.parametrize("line", ["/nonsense", "/", "/ask something", "/etc/passwd"])
    async def test_an_unknown_command_is_no_message(self, opened: Opener, server: LLMServer, line: str) -> None:
        async with opened({"a": server.url}) as seen:
            seen.type(line)
            await seen.until("Unknown command.")
        assert server.requests == []

    async def test_help_names_every_command(self, opened: Opener, server: LLMServer) -> None:
        async with opened({"a": server.url}) as seen:
            seen.type("/HELP")
            shown = await seen.until("Ctrl-D exits.")
        assert all(f"\n/{name}" in shown for name in ("new", "threads", "model", "retry", "provider", "usage", "quit"))

    async def test_usage(self, opened: Opener, server: LLMServer) -> None:
        """Whoever sits at the console of a bot sees everything."""
        async with opened({"a": server.url}) as seen:
            seen.type("hello", "/usage")
            shown = await seen.until("All users this month, by provider:\na: ")
        assert "You today: one answer, 18 tokens, $0\n" in shown

    async def test_threads(self, opened: Opener, server: LLMServer) -> None:
        """Gone on in, renamed, thrown away."""
        async with opened({"a": server.url}) as seen:
            seen.type("of Peru", "/threads rename Peru", "/new", "of bread", "/threads rename Bread", "/threads")
            await seen.until("* 1. Bread\n  2. Peru\n")
            seen.type("/threads 2", "and its capital?")
            await seen.until("Continuing “Peru”.")
            await server.arrival(3)
            assert asked(server.requests[-1]) == ["of Peru", "Hello", "and its capital?"]
            seen.type("/threads delete 1", "/threads")
            await seen.until("Deleted.")
            await seen.until("* 1. Peru\n/threads <number>")
            seen.type("/threads 7")
            await seen.until("/threads <number> continues a conversation")

    async def test_footers_are_switched_on_and_off(self, opened: Opener, server: LLMServer) -> None:
        async with opened({"a": server.url}) as seen:
            seen.type("/model footers on", "hello")
            await seen.until("answered by a")
            seen.type("/model footers off")
            await seen.until("no longer show who gave them")
            seen.type("/model footers")
            await seen.until("/model footers on|off")

    async def test_a_database_that_fails_is_told_and_the_console_goes_on(
        self, opened: Opener, server: LLMServer, tmp_path: Path
    ) -> None:
        async with opened({"a": server.url}) as seen:
            async with locked_file(tmp_path / "data" / "understudy.db") as database:
                database.execute("DROP TABLE preferences")
            seen.type("/model auto", "hello")
            await seen.until("Database error: ")
            await seen.until("Hello\n")


class TestLeaving:
    """However it ends, it ends well."""

    @pytest.mark.parametrize("line", ["/quit", " /QUIT "])
    async def test_quit_leaves_at_once(self, opened: Opener, server: LLMServer, line: str) -> None:
        async with opened({"a": server.url}) as seen:
            seen.type(line, "never read")
            assert await seen.leave() == 0
        assert server.requests == []

    async def test_interrupt_stops_the_answer_and_then_what_else_there_is(
        self, opened: Opener, server: LLMServer, tmp_path: Path
    ) -> None:
        """An answer, a command that takes long, and with nothing going on the console itself."""
        server.default = llm.stall(after_pieces=2)
        async with opened({"a": server.url}) as seen:
            seen.type("hello")
            await seen.until("The audience")
            os.kill(os.getpid(), signal.SIGINT)
            await seen.until("\nStopped.\n")
            server.default = llm.hang()
            seen.type("/provider test a")
            await server.arrival(2)
            os.kill(os.getpid(), signal.SIGINT)
            await seen.until("Stopped.\n")
            seen.type("/new")
            await seen.until("Started a new conversation")
            await asyncio.sleep(0.05)
            os.kill(os.getpid(), signal.SIGINT)
            assert await seen._run == 0
        assert saved(tmp_path)[0] == "stopped"

    async def test_termination_keeps_what_was_said(self, opened: Opener, server: LLMServer, tmp_path: Path) -> None:
        """As after a shutdown of the daemon: the answer stands in the history as an interrupted one."""
        server.default = llm.stall(after_pieces=2)
        async with opened({"a": server.url}) as seen:
            seen.type("hello")
            await seen.until("The audience")
            os.kill(os.getpid(), signal.SIGTERM)
            assert await seen._run == 0
        status, messages = saved(tmp_path)
        assert status == "interrupted"
        assert "The audience" in messages
