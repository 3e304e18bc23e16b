"""Providers that are replaced while requests run."""

import asyncio
from dataclasses import replace

import pytest
from pydantic import SecretStr

from core.errors import AllProvidersFailed, UnknownProvider
from services.llm.routing.status import ProviderState
from tests.support.fake_llm import server as llm
from tests.support.fallback_harness import FallbackHarness

pytestmark = pytest.mark.integration


def rearranged(harness: FallbackHarness, *names: str) -> None:
    """Keep the providers of these names, in this order."""
    known = {each.id: each for each in harness.fallback.providers}
    harness.fallback.replace_providers([known[name] for name in names])


async def test_next_request_follows_the_new_order(harness: FallbackHarness) -> None:
    assert await harness.asked() == "first"
    rearranged(harness, "third", "first", "second")
    assert await harness.asked() == "third"


async def test_removed_provider_finishes_its_answer_and_gets_no_other_request(harness: FallbackHarness) -> None:
    opened = asyncio.Event()
    harness.first.script(llm.gate(opened, after_pieces=1, then=llm.answer(pieces=["from the first", " and the end"])))
    running = asyncio.create_task(harness.replica.ask(streamed=True))
    await harness.first.arrival(1)
    rearranged(harness, "second", "third")
    opened.set()
    assert (await running).text == "from the first and the end"
    assert await harness.asked() == "second"
    assert [each.provider for each in harness.fallback.get_provider_status().providers] == ["second", "third"]
    with pytest.raises(UnknownProvider):
        await harness.fallback.force_provider("first")


async def test_failure_of_former_settings_leaves_the_new_ones_healthy(harness: FallbackHarness) -> None:
    opened = asyncio.Event()
    harness.first.script(llm.gate(opened, then=llm.status(401)))
    running = asyncio.create_task(harness.replica.ask(streamed=True))
    await harness.first.arrival(1)
    known = harness.fallback.providers
    harness.fallback.replace_providers([replace(known[0], api_key=SecretStr("a-new-key")), *known[1:]])
    opened.set()
    await running
    status = harness.fallback.get_provider_status().providers[0]
    assert status.state is ProviderState.HEALTHY
    assert status.failures == 0
    assert await harness.asked() == "first"
    assert harness.first.requests[-1].headers["authorization"] == "Bearer a-new-key"


async def test_forgotten_provider_comes_back_without_its_past(harness: FallbackHarness) -> None:
    before = harness.fallback.providers
    await harness.first_fails()
    await harness.fallback.force_provider("first")
    harness.fallback.replace_providers(before[1:])
    await harness.fallback.control.forget("first")
    harness.fallback.replace_providers(before)
    status = harness.fallback.get_provider_status()
    assert status.forced is None
    assert (status.providers[0].state, status.providers[0].requests) == (ProviderState.HEALTHY, 0)
    assert status.preferred == "second"


async def test_last_provider_that_goes_leaves_a_clear_error(harness: FallbackHarness) -> None:
    harness.fallback.replace_providers([])
    with pytest.raises(AllProvidersFailed):
        await harness.asked()
