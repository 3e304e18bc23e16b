"""JSON nested without end in a provider's answers: the next provider answers, and nothing of ours breaks."""

import pytest

from tests.support.bot_harness import ADMIN, SECOND, BotHarness
from tests.support.fake_llm.server import status

DEEP = b"[" * 600_000
OBJECTS = b'{"error":' * 60_000
SSE = {"Content-Type": "text/event-stream"}


@pytest.mark.parametrize(
    ("code", "body", "headers"),
    [
        (200, DEEP, None),
        (200, b"data: " + DEEP + b"\n\n", SSE),
        (200, b"data: " + OBJECTS + b"\n\ndata: [DONE]\n\n", SSE),
        (400, DEEP, None),
        (401, OBJECTS, None),
        (500, b'{"error": {"message": ' + DEEP + b"}}", None),
    ],
    ids=["plain", "event", "objects in an event", "400", "401", "500"],
)
async def test_a_deeply_nested_answer_is_the_providers_fault(
    stage: BotHarness, code: int, body: bytes, headers: dict[str, str] | None
) -> None:
    stage.first.default = status(code, body, headers)
    assert (await stage.asks("Are you there?")).text == SECOND
    question = stage.says("/provider test a", ADMIN)
    assert "does not work" in (await stage.reply(ADMIN, after=question.id)).text
    assert not stage.events("turn.failed")
