"""Job payloads: those of the released version still parse."""

import json

import pytest

from bot.telegram.jobs.payloads import Payload, RegenerateTurn, UpdateArrived, UpdateRejected, parse_payload
from core.messages import ChatKind, Speaker
from services.inbox.job import Job

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
