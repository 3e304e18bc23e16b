"""Pictures of a turn."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from core.db.database import Database
from core.errors import AllProvidersFailed, ProviderError
from core.i18n import Texts
from services.chat.media.file_tools import MOST_PICTURES, picture_tools
from services.chat.reply import ReplyPhase
from services.chat.store.files import KEPT_PICTURES, PictureStore
from services.llm.capabilities.asking import Picture
from services.llm.request import RequestSpec
from tests.support.chat_harness import PRIVATE, ChatHarness, chat_harness, message
from tests.support.fake_llm.server import LLMServer, answer, status, tool_call
from tests.support.llm_harness import provider

pytestmark = pytest.mark.integration


class FakeImageGenerator:
    """Draws the description itself, or fails."""

    def __init__(self) -> None:
        self.error: ProviderError | None = None
        self.asked: list[tuple[str, RequestSpec]] = []

    async def draw(self, description: str, spec: RequestSpec) -> Picture:
        self.asked.append((description, spec))
        await asyncio.sleep(0)  # other calls go on meanwhile
        if self.error is not None:
            raise self.error
        return Picture(f"{description} {len(self.asked)}".encode(), "image/png", "b", "draw")


@pytest.fixture
def image_generator() -> FakeImageGenerator:
    return FakeImageGenerator()


@pytest.fixture
async def drawing(file: Database, first: LLMServer, image_generator: FakeImageGenerator) -> AsyncIterator[ChatHarness]:
    tools = [picture_tools()]
    async with chat_harness(
        file, provider("first", first.url), toolsets=tools, image_generator=image_generator
    ) as harness:
        yield harness


IMAGE = replace(message("a fox"), draws=True)


async def test_image_asks_no_chat_model(
    drawing: ChatHarness, image_generator: FakeImageGenerator, first: LLMServer
) -> None:
    reply = await drawing.say(IMAGE, origin="job-1")
    assert (reply.phase, reply.text, [each.data for each in reply.pictures]) == (ReplyPhase.COMPLETE, "", [b"a fox 1"])
    ((description, spec),) = image_generator.asked
    assert (description, spec.purpose, spec.user, spec.chat) == ("a fox", "images", "telegram:7", "telegram:7")
    assert not first.requests
    # Delivered again after a crash, it is not drawn again.
    again = await drawing.say(IMAGE, origin="job-1")
    assert [each.data for each in again.pictures] == [b"a fox 1"]
    assert len(image_generator.asked) == 1


async def test_a_picture_that_failed_is_drawn_by_retry(
    drawing: ChatHarness, image_generator: FakeImageGenerator
) -> None:
    image_generator.error = AllProvidersFailed(())
    failed = await drawing.say(IMAGE)
    assert (failed.phase, failed.notice) == (ReplyPhase.FAILED, Texts().get("failed-all-providers", "en"))
    image_generator.error = None
    assert [each.data for each in (await drawing.retry(failed)).pictures] == [b"a fox 2"]


async def test_the_model_draws_a_few_pictures_an_answer(
    drawing: ChatHarness, image_generator: FakeImageGenerator, first: LLMServer
) -> None:
    calls = [tool_call("draw_picture", {"description": f"fox {number}"}) for number in range(MOST_PICTURES + 1)]
    first.script(*calls, answer("Here they are."))
    reply = await drawing.say("Draw foxes")
    assert (reply.text, len(reply.pictures), len(image_generator.asked)) == (
        "Here they are.",
        MOST_PICTURES,
        MOST_PICTURES,
    )
    image_generator.error = AllProvidersFailed(())
    first.script(tool_call("draw_picture", {"description": "fox"}), answer("Sorry."))
    assert (await drawing.say("One more")).text == "Sorry."
    assert "No picture could be drawn" in str(first.requests[-1].json["messages"])


async def test_limit_holds_for_pictures_that_the_model_draws_at_one_instant(
    drawing: ChatHarness, image_generator: FakeImageGenerator, first: LLMServer
) -> None:
    calls = [
        {"id": f"call-{n}", "function": {"name": "draw_picture", "arguments": json.dumps({"description": f"fox {n}"})}}
        for n in range(MOST_PICTURES + 2)
    ]
    together = {"choices": [{"message": {"tool_calls": calls}, "finish_reason": "tool_calls"}]}
    first.script(status(200, together), answer("Here they are."))
    reply = await drawing.say("Draw foxes")
    assert (reply.text, len(reply.pictures), len(image_generator.asked)) == (
        "Here they are.",
        MOST_PICTURES,
        MOST_PICTURES,
    )


async def test_no_tool_is_offered_where_nothing_draws(harness: ChatHarness, first: LLMServer) -> None:
    await harness.say("Draw foxes")
    assert "draw_picture" not in str(first.requests[0].json["tools"])


async def test_the_newest_pictures_are_kept(drawing: ChatHarness, file: Database) -> None:
    turns = [(await drawing.say(IMAGE)).turn_id for _ in range(KEPT_PICTURES + 2)]
    store = PictureStore(file)
    kept = [len(await store.of_turn(turn)) for turn in turns if turn is not None]
    assert kept == [0, 0, *([1] * KEPT_PICTURES)]
    # Another attempt at a turn replaces its picture.
    await store.keep(PRIVATE, turns[-1] or 0, 0, b"again", "image/png")
    assert await store.of_turn(turns[-1] or 0) == [(b"again", "image/png")]
