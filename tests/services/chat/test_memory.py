"""Long conversations: a fixed start, a drop to half at once, a summary by the same providers."""

import json
from collections.abc import Sequence

import pytest
from sqlalchemy import func, select

from core.config.providers import ProviderKind
from core.db.database import Database
from core.db.tables import ThreadMemoryRow, TurnRow
from core.messages import user_ref
from services.chat.memory import Compaction
from tests.support.chat_harness import ANN, PRIVATE, ChatHarness, chat_harness, sent_messages
from tests.support.fake_llm.providers import NETWORKED_KINDS, provider_at
from tests.support.fake_llm.server import Act, Exchange, LLMServer, RecordedRequest, answer, status
from tests.support.llm_harness import provider

pytestmark = pytest.mark.integration

BUDGET = 1000
SUMMARY = "They plan a trip to Oslo in May; the budget is 800 EUR."
QUESTION = "Question number {} about the trip, with some words to make it longer than a line."
ANSWER = "An answer about the trip that is as long as answers are, more or less. " * 3
ANN_REF = user_ref(PRIVATE.surface, ANN.user_id)


def is_summary(request: RecordedRequest) -> bool:
    """Return whether a request asks for a summary."""
    return "memory of an assistant" in json.dumps(request.json)


async def talk(harness: ChatHarness, server: LLMServer, turns: int) -> list[RecordedRequest]:
    """Play turns, answer a request for a summary with one, and return the requests of the chat."""
    for number in range(turns):
        await harness.say(QUESTION.format(number))
    return [request for request in server.requests if not is_summary(request)]


def drops(requests: Sequence[RecordedRequest]) -> list[int]:
    """Return the numbers of the requests that do not begin as the one before them."""
    bodies = [sent_messages(request) for request in requests]
    return [n for n in range(1, len(bodies)) if bodies[n][: len(bodies[n - 1])] != bodies[n - 1]]


@pytest.fixture
def server(first: LLMServer) -> LLMServer:
    first.default = answer(ANSWER)
    return first


async def test_history_keeps_its_start_until_it_drops_to_half(file: Database, server: LLMServer) -> None:
    async with chat_harness(file, provider("first", server.url), history_tokens=BUDGET) as harness:
        requests = await talk(harness, server, 30)
        found = drops(requests)
        assert 2 <= len(found) <= 5
        sizes = [len(sent_messages(request)) for request in requests]
        for number in found:
            assert sizes[number] <= 0.75 * sizes[number - 1], "dropped at once"
        asked_for = [request for request in server.requests if is_summary(request)]
        assert len(asked_for) == len(found)
        # The summary stands where the dropped turns were, as the user's text and not as a system message.
        after = sent_messages(requests[found[0]])
        assert after[0][0] == "user"
        assert ANSWER[:40] in after[0][1]
        assert "conversation_summary" in after[0][1]
        assert [role for role, _ in after if role == "system"] == []


async def test_first_drop_is_told_once_and_the_originals_stay(file: Database, server: LLMServer) -> None:
    async with chat_harness(file, provider("first", server.url), history_tokens=BUDGET) as harness:
        footers = [(await harness.say(QUESTION.format(number))).footer for number in range(30)]
        told = [footer for footer in footers if footer is not None]
        assert len(told) == 1
        assert "/threads" in told[0]
        async with file.reading() as session:
            assert await session.scalar(select(func.count()).select_from(TurnRow)) == 30


async def test_history_drops_without_a_summary_where_no_provider_gives_one(file: Database, server: LLMServer) -> None:
    async def play(exchange: Exchange) -> None:
        await (status(400) if is_summary(exchange.request) else answer(ANSWER)).play(exchange)

    server.default = Act(play)
    async with chat_harness(file, provider("first", server.url), history_tokens=BUDGET) as harness:
        requests = await talk(harness, server, 15)
        assert drops(requests)
        async with file.reading() as session:
            row = await session.scalar(select(ThreadMemoryRow))
        assert row is not None
        assert row.summary is None


@pytest.mark.parametrize("kind", NETWORKED_KINDS)
async def test_request_begins_like_the_one_before_it(file: Database, server: LLMServer, kind: ProviderKind) -> None:
    """Compared byte by byte between two drops, with tools and instructions, as providers' prompt caches do."""
    async with chat_harness(file, provider_at(server, kind), history_tokens=BUDGET) as harness:
        requests = await talk(harness, server, 14)
        bodies = [request.json for request in requests]
        name = "contents" if "contents" in bodies[0] else "messages"
        turns = [[json.dumps(each) for each in body[name]] for body in bodies]
        rest = [json.dumps({key: value for key, value in body.items() if key != name}) for body in bodies]
        changed = [n for n in range(1, len(turns)) if turns[n][: len(turns[n - 1])] != turns[n - 1]]
        assert 1 <= len(changed) <= 2
        # The library explains the summary in the system text of some kinds, from the first drop on.
        assert {n for n in range(1, len(rest)) if rest[n] != rest[n - 1]} <= set(changed)


async def test_compact_summarises_by_hand(file: Database, server: LLMServer) -> None:
    async with chat_harness(file, provider("first", server.url, retries=0)) as harness:
        assert await harness.chat.records.compact(PRIVATE, ANN_REF) is Compaction.NOTHING
        await talk(harness, server, 4)
        server.script(status(500))
        assert await harness.chat.records.compact(PRIVATE, ANN_REF) is Compaction.FAILED
        server.script(answer(SUMMARY))
        await harness.fallback.control.reset("first")
        assert await harness.chat.records.compact(PRIVATE, ANN_REF) is Compaction.DONE
        material = json.dumps(server.requests[-1].json)
        assert "Question number 2" in material
        assert "Question number 3" not in material
        await harness.say("And now?")
        sent = sent_messages(server.requests[-1])
        assert SUMMARY in sent[0][1]
        assert "Question number 3" in json.dumps(sent)
        assert "Question number 2" not in json.dumps(sent)


async def test_summary_goes_nowhere_without_consent(file: Database, server: LLMServer) -> None:
    remote = provider("first", server.url, remote=True)
    async with chat_harness(file, remote, asks_consent=True) as harness:
        await harness.stores.preferences.set_remote_consent(PRIVATE.chat_ref, granted=True)
        await talk(harness, server, 3)
        await harness.stores.preferences.set_remote_consent(PRIVATE.chat_ref, granted=False)
        before = len(server.requests)
        assert await harness.chat.records.compact(PRIVATE, ANN_REF) is Compaction.FAILED
        assert len(server.requests) == before


async def test_retry_keeps_the_history_of_the_first_answer(file: Database, server: LLMServer) -> None:
    async with chat_harness(file, provider("first", server.url), history_tokens=BUDGET) as harness:
        replies = [await harness.say(QUESTION.format(number)) for number in range(12)]
        before = sent_messages([r for r in server.requests if not is_summary(r)][-1])
        await harness.retry(replies[-1])
        assert sent_messages(server.requests[-1]) == before
