"""Requests that exceed a context window or carry images."""

import asyncio
from dataclasses import replace

import pytest
from pydantic_ai.messages import BinaryContent, ImageUrl, ModelMessage, ModelRequest, UserPromptPart

from core.config.providers import ProviderKind
from core.config.settings import ProviderSettings
from core.redis.client import open_redis
from services.llm.routing.timing import RoutingLimits
from tests.support.fake_llm import server as llm
from tests.support.fallback_harness import FallbackHarness
from tests.support.llm_harness import answered_by, bench

pytestmark = pytest.mark.integration


async def test_answer_after_a_context_window_skip_sets_no_preference(harness: FallbackHarness) -> None:
    harness.first.script(llm.context_exceeded())

    assert await harness.asked() == "second"
    assert harness.replica.preferred is None
    assert await harness.asked() == "first"


async def test_provider_with_a_window_no_larger_is_skipped(harness: FallbackHarness) -> None:
    """And does not count as a hop; a larger or unknown window does."""
    async with bench(
        open_redis(None), windows(harness, "gpt-4", "gpt-4", "gpt-4.1"), rules=RoutingLimits(max_hops=2)
    ) as replica:
        harness.first.script(llm.context_exceeded())
        assert answered_by(await replica.ask(streamed=True)) == "third"
    assert harness.counts() == [1, 0, 1]

    async with bench(open_redis(None), windows(harness, "gpt-4", "llama-of-some-size", "gpt-4.1")) as replica:
        harness.first.script(llm.context_exceeded())
        assert answered_by(await replica.ask(streamed=True)) == "second"


def windows(harness: FallbackHarness, *families: str) -> list[ProviderSettings]:
    """Return providers with models whose context windows are known or unknown."""
    return [
        replace(settings, kind=ProviderKind.OPENAI, families={settings.default_model: family})
        for settings, family in zip(harness.fallback.providers, families, strict=True)
    ]


PIXEL = BinaryContent(b"\x89PNG\r\n\x1a\n", media_type="image/png")
PICTURES = [PIXEL, ImageUrl("https://example.org/cat.png")]


def with_picture(picture: BinaryContent | ImageUrl) -> list[ModelMessage]:
    return [ModelRequest(parts=[UserPromptPart(["What is this?", picture])])]


@pytest.mark.parametrize("picture", PICTURES, ids=["bytes", "address"])
async def test_image_goes_to_a_provider_with_vision(
    harness: FallbackHarness, picture: BinaryContent | ImageUrl
) -> None:
    """Candidates with vision come first; requests without images keep their order."""
    seeing = [
        replace(settings, families={settings.default_model: family})
        for settings, family in zip(harness.fallback.providers, ("llama3.2", "gpt-4o", "llama3.2"), strict=True)
    ]
    async with bench(open_redis(None), seeing) as replica:
        response = await replica.ask(streamed=True, messages=with_picture(picture))

        assert answered_by(response) == "second"
        assert "image_url" in str(harness.second.requests[0].json)
        assert replica.preferred is None
        assert answered_by(await replica.ask(streamed=True)) == "first"


@pytest.mark.parametrize("picture", PICTURES, ids=["bytes", "address"])
async def test_provider_without_vision_gets_a_note_in_place_of_the_image(
    harness: FallbackHarness, picture: BinaryContent | ImageUrl
) -> None:
    """If no model has vision, or one without it was chosen, the request still succeeds."""
    response = await harness.replica.ask(streamed=True, messages=with_picture(picture))

    sent = str(harness.first.requests[0].json)
    assert answered_by(response) == "first"
    assert "[an image that you cannot see]" in sent
    assert "image_url" not in sent


async def test_user_choice_without_vision_is_still_asked_first(harness: FallbackHarness) -> None:
    seeing = [replace(settings, families={"first-model": "gpt-4o"}) for settings in harness.fallback.providers]
    async with bench(open_redis(None), seeing) as replica:
        response = await replica.ask(streamed=True, choice="third", messages=with_picture(PIXEL))

    assert answered_by(response) == "third"


async def test_image_request_does_not_probe_a_provider_without_vision(harness: FallbackHarness) -> None:
    """The lease stays free for a request that the provider can take."""
    seeing = [replace(settings, families={"second-model": "gpt-4o"}) for settings in harness.fallback.providers]
    async with bench(open_redis(None), seeing) as replica:
        harness.first.script(llm.status(529))
        await replica.ask(streamed=True)
        replica.clock.shift(300)

        held = asyncio.Event()
        harness.second.script(llm.gate(held))
        in_flight = asyncio.create_task(replica.ask(streamed=True, messages=with_picture(PIXEL)))
        await harness.second.arrival(2)
        assert answered_by(await replica.ask(streamed=True)) == "first"
        held.set()
        assert answered_by(await in_flight) == "second"
