"""What the agent can do, as a model calls it: over HTTP, with notes in a database."""

import json
from collections.abc import AsyncIterator

import pytest
from structlog.testing import capture_logs

from core.db.database import Database
from core.errors import StorageError
from tests.support.chat_harness import BOB, GROUP, PRIVATE, ChatHarness, chat_harness, message, told
from tests.support.fake_llm.server import LLMServer, answer, tool_call
from tests.support.llm_harness import provider


@pytest.fixture
async def bench(file: Database, first: LLMServer) -> AsyncIterator[ChatHarness]:
    """A chat with one provider."""
    async with chat_harness(file, provider("first", first.url)) as bench:
        yield bench


def result(server: LLMServer) -> str:
    """What the last request says that the tool gave."""
    role, text = told(server.requests[-1])[-1]
    assert role == "tool"
    return text


async def test_offered_with_every_request(bench: ChatHarness, first: LLMServer) -> None:
    """Each with what it does and what its arguments are; the turn's context is no argument."""
    await bench.say()
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
async def test_current_time(bench: ChatHarness, first: LLMServer, arguments: dict[str, str], time: str) -> None:
    """By the clock of the house, in the zone that was asked for."""
    first.script(tool_call("current_time", arguments))
    await bench.say()
    assert result(first) == time


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
async def test_a_zone_that_is_none(bench: ChatHarness, first: LLMServer, zone: str) -> None:
    """The model is told, and may mend it."""
    first.script(tool_call("current_time", {"time_zone": zone}), tool_call("current_time", {}), answer("It is eight."))
    reply = await bench.say()
    assert reply.text == "It is eight."
    told_after = [text for role, text in told(first.requests[1]) if role == "tool"]
    assert "is not an IANA time zone; try one such as Europe/Berlin" in told_after[0]


async def test_notes_are_recalled_in_later_conversations(bench: ChatHarness, first: LLMServer) -> None:
    """Also in a new thread of the same chat."""
    first.script(tool_call("remember", {"note": "Likes tea"}))
    await bench.say("I like tea")
    assert result(first) == "Noted."
    await bench.stores.threads.start_new(PRIVATE)
    first.script(tool_call("recall", {}))
    await bench.say("What do I like?")
    assert json.loads(result(first)) == ["Likes tea"]


async def test_private_notes_are_not_recalled_in_a_group(bench: ChatHarness, first: LLMServer) -> None:
    """Nor the notes of one member by another, nor those of the group in private."""
    first.script(tool_call("remember", {"note": "Private"}), answer(), tool_call("remember", {"note": "Public"}))
    await bench.say("A secret")
    await bench.say(message("No secret", key=GROUP))
    for incoming, notes in (
        (message(key=GROUP), ["Public"]),
        (message(key=GROUP, speaker=BOB), ["There are no notes yet."]),
        (message(), ["Private"]),
    ):
        first.script(tool_call("recall", {}))
        await bench.say(incoming)
        assert json.loads(result(first)) == notes


async def test_notes_that_cannot_be_reached(file: Database, first: LLMServer) -> None:
    """The model is told, answers all the same, and the log has the reason but not the note."""
    async with chat_harness(file, provider("first", first.url), notes=LostNotes()) as bench:
        first.script(tool_call("remember", {"note": "Likes tea"}), answer("Sorry"), tool_call("recall", {}))
        with capture_logs() as logs:
            reply = await bench.say()
            assert result(first) == "The note could not be kept just now."
            assert reply.text == "Sorry"
            await bench.say()
    assert json.loads(result(first)) == ["The notes cannot be read just now."]
    told_of = [(entry["event"], entry["error"]) for entry in logs if entry["event"].startswith("note.")]
    assert told_of == [("note.write_failed", "locked"), ("note.read_failed", "locked")]
    assert "tea" not in repr(logs)


class LostNotes:
    """Notes whose database is gone."""

    async def remember(self, *_: object) -> None:
        raise StorageError("locked")

    async def recall(self, *_: object) -> list[str]:
        raise StorageError("locked")
