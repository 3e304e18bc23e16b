"""Jobs: payloads of the released version still parse, and turns are enqueued to be answered again."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiogram.types import Update

from bot.telegram.ingress.classification import create_job
from bot.telegram.jobs import Payload, RegenerateTurn, UpdateArrived, UpdateRejected
from bot.telegram.worker import parse_payload
from core.db.database import Database
from core.messages import ChatKind, ConversationKey, Speaker, Surface
from services.chat.store.conversation import Turn, TurnStatus
from services.inbox.job import Job
from tests.support.chat_harness import chat_harness
from tests.support.fake_llm.server import LLMServer, answer
from tests.support.fake_telegram.messages import GROUP, message, raw
from tests.support.fake_telegram.server import TelegramServer
from tests.support.fake_telegram.traffic import Traffic
from tests.support.llm_harness import provider
from tests.support.worker_harness import WorkerHarness, job_of

UPDATE = {"update_id": 1}


@pytest.mark.parametrize(
    ("stored", "payload"),
    [
        ({"kind": "update", "update": UPDATE}, UpdateArrived(update=UPDATE)),
        (
            {"kind": "update", "update": UPDATE, "is_for_bot": False, "is_admitted": False},
            UpdateArrived(update=UPDATE, is_for_bot=False, is_admitted=False, is_moderated=None),
        ),
        (
            {"kind": "turned_away", "update": UPDATE, "reason": "queue-full"},
            UpdateRejected(update=UPDATE, reason="queue-full"),
        ),
        (
            {
                "kind": "again", "turn": 3, "speaker": {"user_id": 7, "name": "Ann", "language": "en"},
                "chat_kind": "private", "only_latest": True,
            },
            RegenerateTurn(turn=3, speaker=Speaker(7, "Ann", "en"), chat_kind=ChatKind.PRIVATE, only_latest=True),
        ),
    ],
)  # fmt: skip
def test_a_payload_of_the_released_version_parses(stored: dict[str, object], payload: Payload) -> None:
    assert parse_payload(Job("tg-42-000000000001", "lane", 1, json.dumps(stored))) == payload


PERSON = 7
SPEAKER = Speaker(PERSON, "Ann Lee", "en")
FIRST_ANSWER = "This is what the first provider says."
SECOND_ANSWER = "The second one says this."


@pytest.fixture
async def harness(
    traffic: Traffic, file: Database, first: LLMServer, second: LLMServer
) -> AsyncIterator[WorkerHarness]:
    """A worker with two providers."""
    first.default, second.default = answer(FIRST_ANSWER), answer(SECOND_ANSWER)
    async with chat_harness(file, provider("first", first.url), provider("second", second.url)) as chat:
        yield WorkerHarness(traffic, chat, file)


def speaker_user() -> Any:
    """Returns Ann, who pressed the button."""
    return message("x").from_user


async def enqueue(
    harness: WorkerHarness, turn: Turn, *, provider: str | None = None, update_id: int = 9, only_latest: bool = True
) -> bool:
    pressed = message("the answer")
    update = Update.model_validate({"update_id": update_id})
    return await harness.regenerate.enqueue(
        update, turn, pressed, speaker_user(), provider=provider, only_latest=only_latest
    )


async def test_enqueue_puts_the_turn_into_its_conversations_lane(harness: WorkerHarness) -> None:
    """Under an id that differs from the job of the button press."""
    turn = await harness.complete_turn("Hello?")
    assert await enqueue(harness, turn, provider="second")
    [put] = harness.queued.jobs
    assert (put.lane, put.is_limited, put.priority) == (str(turn.thread.key), True, 10)
    assert put.id != create_job(42, 9, None, UpdateArrived(update={})).id
    assert parse_payload(put) == RegenerateTurn(
        turn=turn.id, speaker=SPEAKER, chat_kind=ChatKind.PRIVATE, provider="second", only_latest=True
    )


async def test_enqueue_in_a_group_replies_to_the_question(harness: WorkerHarness) -> None:
    turn = await harness.complete_turn("Hello?")
    pressed = message("the answer", chat=GROUP, reply_to_message=raw("Hello?", message_id=3, chat=GROUP))
    update = Update.model_validate({"update_id": 9})
    await harness.regenerate.enqueue(update, turn, pressed, speaker_user(), provider=None, only_latest=False)
    payload = parse_payload(harness.queued.jobs[0])
    assert isinstance(payload, RegenerateTurn)
    assert (payload.reply_to, payload.chat_kind, payload.chat_title) == (3, ChatKind.GROUP, "The Group")


async def test_enqueue_returns_false_if_the_lane_is_full(harness: WorkerHarness) -> None:
    turn = await harness.complete_turn("Hello?")
    harness.queued.is_full = True
    assert not await enqueue(harness, turn)


async def test_the_picked_provider_answers_once(
    harness: WorkerHarness, server: TelegramServer, second: LLMServer
) -> None:
    """Repeated, the job replays the answer into the same message and asks no model."""
    turn = await harness.complete_turn("Hello?")
    await enqueue(harness, turn, provider="second")
    for _ in range(3):
        await harness.handle(harness.queued.jobs[0])
    assert server.chat(PERSON).texts() == ["The second one says this."]
    assert len(second.requests) == 1
    assert [row.status for row in await harness.chat.rows()] == [TurnStatus.SUPERSEDED, TurnStatus.COMPLETE]


async def test_a_second_press_is_ignored(harness: WorkerHarness, server: TelegramServer, first: LLMServer) -> None:
    """It came before the buttons had disappeared."""
    turn = await harness.complete_turn("Hello?")
    await enqueue(harness, turn, update_id=9)
    await enqueue(harness, turn, update_id=10)
    for each in harness.queued.jobs:
        await harness.handle(each)
    assert len(server.chat(PERSON).texts()) == 1
    assert len(first.requests) == 2


@pytest.mark.parametrize("only_latest", [True, False])
async def test_a_turn_that_is_no_longer_the_latest(
    harness: WorkerHarness, server: TelegramServer, *, only_latest: bool
) -> None:
    """A retry of it is dropped; a message that waited for consent is still answered."""
    turn = await harness.complete_turn("Hello?")
    await harness.complete_turn("And then?")
    await enqueue(harness, turn, only_latest=only_latest)
    await harness.handle(harness.queued.jobs[0])
    assert len(server.chat(PERSON).texts()) == (0 if only_latest else 1)


async def test_a_deleted_turn_is_skipped(harness: WorkerHarness, server: TelegramServer) -> None:
    await harness.handle(
        job_of(RegenerateTurn(turn=999, speaker=SPEAKER, chat_kind=ChatKind.PRIVATE, only_latest=True))
    )
    assert server.calls_of("sendMessage") == []


async def test_the_messages_are_recorded_with_the_new_turn(harness: WorkerHarness, server: TelegramServer) -> None:
    """So that they can be retried, and that the repeated job finds them."""
    turn = await harness.complete_turn("Hello?")
    key = ConversationKey(Surface.TELEGRAM, PERSON, 0)
    await enqueue(harness, turn)
    await harness.handle(harness.queued.jobs[0])
    [sent] = server.chat(PERSON).answers()
    recorded = await harness.turns.last_turn(key)
    assert recorded is not None
    assert recorded.answer_ids == (sent.id,)
    assert recorded.origin == harness.queued.jobs[0].id
