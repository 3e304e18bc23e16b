"""Tools of the agent, called by a model over HTTP, with notes in a database."""

import json
from collections.abc import AsyncIterator

import pytest
from structlog.testing import capture_logs

from core.db.database import Database
from core.errors import StorageError
from tests.support.chat_harness import BOB, GROUP, PRIVATE, ChatHarness, chat_harness, message, sent_messages
from tests.support.fake_llm.server import LLMServer, answer, tool_call
from tests.support.llm_harness import provider

pytestmark = pytest.mark.integration


@pytest.fixture
async def harness(file: Database, first: LLMServer) -> AsyncIterator[ChatHarness]:
    """The chat service with one provider."""
    async with chat_harness(file, provider("first", first.url)) as harness:
        yield harness


def last_result(server: LLMServer) -> str:
    """The tool result in the last request."""
    role, text = sent_messages(server.requests[-1])[-1]
    assert role == "tool"
    return text


async def test_request_offers_described_tools(harness: ChatHarness, first: LLMServer) -> None:
    """Each with its arguments; the turn's context is not among them."""
    await harness.say()
    offered = {tool["function"]["name"]: tool["function"] for tool in first.requests[-1].json["tools"]}
    assert {name: set(tool["parameters"]["properties"]) for name, tool in offered.items()} == {
        "current_time": {"time_zone"},
        "remember": {"note"},
        "recall": set(),
    }
    assert all(tool["description"] for tool in offered.values())
    assert offered["current_time"]["parameters"]["properties"]["time_zone"]["description"]


@pytest.mark.parametrize(
    ("arguments", "time"),
    [
        ({}, "Friday, 2027-01-15 08:00:00 UTC"),
        ({"time_zone": "Europe/Berlin"}, "Friday, 2027-01-15 09:00:00 CET"),
        ({"time_zone": "Asia/Kolkata"}, "Friday, 2027-01-15 13:30:00 IST"),  # a half hour
        ({"time_zone": "America/Los_Angeles"}, "Friday, 2027-01-15 00:00:00 PST"),
    ],
)
async def test_current_time_formats_the_clock_in_the_zone(
    harness: ChatHarness, first: LLMServer, arguments: dict[str, str], time: str
) -> None:
    first.script(tool_call("current_time", arguments))
    await harness.say()
    assert last_result(first) == time


@pytest.mark.parametrize(
    "zone",
    [
        "Berlin",
        "",
        "Europe",  # a folder of zones
        "../../../etc/passwd",
        "/etc/localtime",
        "Europe/Berlin\0",
        "x" * 300,  # longer than a file's name may be
        "Евро/Берлин",
    ],
)
async def test_current_time_rejects_an_unknown_zone(harness: ChatHarness, first: LLMServer, zone: str) -> None:
    """The model gets the error and may correct itself."""
    first.script(tool_call("current_time", {"time_zone": zone}), tool_call("current_time", {}), answer("It is eight."))
    reply = await harness.say()
    assert reply.text == "It is eight."
    results = [text for role, text in sent_messages(first.requests[1]) if role == "tool"]
    assert "is not an IANA time zone; try one such as Europe/Berlin" in results[0]


async def test_recall_returns_notes_of_earlier_threads(harness: ChatHarness, first: LLMServer) -> None:
    """In a new thread of the same chat."""
    first.script(tool_call("remember", {"note": "Likes tea"}))
    await harness.say("I like tea")
    assert last_result(first) == "Noted."
    await harness.stores.turns.start_new(PRIVATE)
    first.script(tool_call("recall", {}))
    await harness.say("What do I like?")
    assert json.loads(last_result(first)) == ["Likes tea"]


async def test_recall_separates_users_and_chats(harness: ChatHarness, first: LLMServer) -> None:
    """Private notes stay out of groups, group notes out of private chats."""
    first.script(tool_call("remember", {"note": "Private"}), answer(), tool_call("remember", {"note": "Public"}))
    await harness.say("A secret")
    await harness.say(message("No secret", key=GROUP))
    for incoming, notes in (
        (message(key=GROUP), ["Public"]),
        (message(key=GROUP, speaker=BOB), ["There are no notes yet."]),
        (message(), ["Private"]),
    ):
        first.script(tool_call("recall", {}))
        await harness.say(incoming)
        assert json.loads(last_result(first)) == notes


async def test_notes_report_a_failed_database(file: Database, first: LLMServer) -> None:
    """The turn goes on, and the log has the reason but not the note."""
    async with chat_harness(file, provider("first", first.url), notes=FailingNotes()) as harness:
        first.script(tool_call("remember", {"note": "Likes tea"}), answer("Sorry"), tool_call("recall", {}))
        with capture_logs() as logs:
            reply = await harness.say()
            assert last_result(first) == "The note could not be kept just now."
            assert reply.text == "Sorry"
            await harness.say()
    assert json.loads(last_result(first)) == ["The notes cannot be read just now."]
    failures = [(entry["event"], entry["error"]) for entry in logs if entry["event"].startswith("note.")]
    assert failures == [("note.write_failed", "locked"), ("note.read_failed", "locked")]
    assert "tea" not in repr(logs)


class FailingNotes:
    """Notes whose database fails."""

    async def remember(self, *_: object) -> None:
        raise StorageError("locked")

    async def recall(self, *_: object) -> list[str]:
        raise StorageError("locked")
