"""The preference, cooldowns and probes after them, over HTTP with the embedded store."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from core.errors import RequestRejected
from services.llm.request import RequestSpec
from services.llm.routing.state.rules import Change
from services.llm.routing.state.shared_state import SharedRouting
from services.llm.routing.status import ProviderState
from services.llm.routing.timing import RoutingTiming
from tests.support.fake_llm import server as llm
from tests.support.fallback_harness import FallbackHarness
from tests.support.llm_harness import eventually

pytestmark = pytest.mark.integration


async def test_preference_expires_at_a_fixed_time(harness: FallbackHarness) -> None:
    """Later answers do not extend it: half an hour after the failover the priority order applies again."""
    await harness.first_fails()
    began = harness.replica.clock.time()
    harness.first.default = llm.status(529)
    for _ in range(5):
        harness.replica.clock.shift(301)
        await harness.asked()
    assert harness.counts()[0] == 6
    assert harness.replica.preferred == "second"

    await harness.fallback.control.reset("first")
    harness.replica.clock.shift(began + 1800 - harness.replica.clock.time())
    harness.first.default = llm.answer("from the first")
    assert harness.replica.preferred is None
    assert await harness.asked() == "first"


async def test_answers_in_flight_do_not_renew_a_preference(harness: FallbackHarness) -> None:
    """Under load an answer of the backup is always in flight when the preference expires."""
    await harness.first_fails()
    assert await harness.asked(choice="first") == "first"
    assert harness.replica.preferred == "second"
    held = asyncio.Event()
    harness.second.script(llm.gate(held))
    in_flight = asyncio.create_task(harness.asked())
    await harness.second.arrival(2)

    harness.replica.clock.shift(1800)
    held.set()

    assert await in_flight == "second"
    assert harness.replica.preferred is None
    assert await harness.asked() == "first"


async def test_answers_in_flight_do_not_undo_a_clear(harness: FallbackHarness) -> None:
    """After an admin's reset, an answer of the second that was in flight does not undo it."""
    await harness.first_fails()
    held = asyncio.Event()
    harness.second.script(llm.gate(held))
    in_flight = asyncio.create_task(harness.asked())
    await harness.second.arrival(2)

    await harness.fallback.control.reset("first")
    held.set()

    assert await in_flight == "second"
    assert await harness.asked() == "first"


async def test_failure_of_the_preferred_provider_clears_the_preference(harness: FallbackHarness) -> None:
    await harness.first_fails()
    harness.second.script(llm.status(529))

    assert await harness.asked() == "third"
    assert harness.replica.preferred == "third"
    assert await harness.asked() == "third"


async def test_stale_success_does_not_end_a_newer_cooldown(harness: FallbackHarness) -> None:
    """A request that began before the failure is no evidence of a recovery."""
    held = asyncio.Event()
    harness.first.script(llm.gate(held))
    in_flight = asyncio.create_task(harness.asked())
    await harness.first.arrival(1)
    harness.replica.clock.shift(1)
    await harness.first_fails()

    held.set()

    assert await in_flight == "first"
    assert harness.replica.cooling() == {"first": 300}
    assert await harness.asked() == "second"


async def test_second_cooldown_does_not_shorten_the_first(harness: FallbackHarness) -> None:
    harness.first.script(llm.status(401), llm.status(429, headers={"retry-after": "5"}))
    await harness.asked()
    await harness.asked(choice="first")

    assert harness.replica.cooling() == {"first": 1800}


async def test_provider_in_cooldown_receives_no_request(harness: FallbackHarness) -> None:
    await harness.first_fails()
    harness.replica.clock.shift(299)

    assert await harness.asked() == "second"
    assert harness.counts() == [1, 2, 0]


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
async def test_one_request_probes_after_the_cooldown(harness: FallbackHarness, *, streamed: bool) -> None:
    """Exactly one of 64 simultaneous requests reaches the first provider; the second answers the others."""
    # 64 simultaneous requests keep a slow machine busy for longer than the ordinary wait for a lease.
    harness.replica.set_timing(lease_wait_s=5.0)
    await harness.first_fails()
    harness.replica.clock.shift(300)
    held = asyncio.Event()
    harness.first.default = llm.gate(held, then=llm.answer("from the first"))

    requests = [asyncio.create_task(harness.asked(streamed=streamed)) for _ in range(64)]
    await eventually(lambda: sum(request.done() for request in requests) == 63)
    assert harness.fallback.get_provider_status().providers[0].state is ProviderState.PROBING
    held.set()
    answered = await asyncio.gather(*requests)

    assert sorted(answered) == ["first"] + ["second"] * 63
    assert harness.counts() == [2, 64, 0]
    assert harness.replica.preferred == "first"
    assert await harness.asked() == "first"


async def test_request_whose_probe_fails_is_still_answered(harness: FallbackHarness) -> None:
    """The next candidate answers, and the first provider cools down again."""
    await harness.first_fails()
    harness.replica.clock.shift(300)
    harness.first.script(llm.status(529))

    assert await harness.asked() == "second"
    assert harness.replica.cooling() == {"first": 300}
    assert await harness.asked() == "second"
    assert harness.counts() == [2, 3, 0]


async def test_cancelled_probe_releases_its_lease(harness: FallbackHarness) -> None:
    """The next request probes."""
    await harness.first_fails()
    harness.replica.clock.shift(300)
    harness.first.script(llm.hang())
    probe = asyncio.create_task(harness.asked())
    request = await harness.first.arrival(2)
    probe.cancel()
    with pytest.raises(asyncio.CancelledError):
        await probe
    await asyncio.wait_for(request.abandoned.wait(), 5)

    assert harness.replica.cooling() == {}
    assert await harness.asked() == "first"


async def test_probe_cancelled_while_waiting_for_the_lease_releases_it(
    harness: FallbackHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    await harness.first_fails()
    harness.replica.clock.shift(300)
    monkeypatch.setattr(harness.replica.shared, "commit", _slowly(harness.replica.shared))
    probe = asyncio.create_task(harness.asked())
    await eventually(lambda: bool(harness.replica.shared.routing.probes))
    probe.cancel()
    with pytest.raises(asyncio.CancelledError):
        await probe

    assert not harness.replica.shared.routing.probes


def _slowly(shared: SharedRouting) -> Callable[[Change, float], Awaitable[bool]]:
    async def commit(change: Change, timeout_s: float) -> bool:
        shared.apply(change)
        await asyncio.sleep(10 * timeout_s)
        return True

    return commit


async def test_lease_granted_too_late_is_released(harness: FallbackHarness) -> None:
    """The request does not probe, since another replica may; it takes the ordinary order."""
    await harness.first_fails()
    harness.replica.clock.shift(300)
    harness.replica.set_timing(lease_wait_s=0.0)
    async with harness.replica.shared._exchange:
        assert await harness.asked() == "second"
    harness.replica.set_timing(lease_wait_s=RoutingTiming().lease_wait_s)
    assert not harness.replica.shared.routing.probes

    assert await harness.asked() == "first"


async def test_inconclusive_probe_releases_its_lease(harness: FallbackHarness) -> None:
    """A request that every provider would reject is no outcome of this one."""
    await harness.first_fails()
    harness.replica.clock.shift(300)
    harness.first.script(llm.status(400))
    harness.second.script(llm.status(400))

    with pytest.raises(RequestRejected):
        await harness.asked()

    assert await harness.asked() == "first"


async def test_lease_of_a_dead_replica_expires(harness: FallbackHarness) -> None:
    """Its lease expires shortly after the longest answer would have ended."""
    await harness.first_fails()
    harness.replica.clock.shift(300)
    attempts = await harness.fallback.begin(RequestSpec("never heard of again"))
    assert (await anext(attempts)).candidate.provider.id == "first"

    assert await harness.asked() == "second"
    harness.replica.clock.shift(10)
    assert await harness.asked() == "first"


async def test_only_providers_of_higher_priority_than_the_preferred_are_probed(harness: FallbackHarness) -> None:
    harness.second.script(llm.status(529))
    await harness.asked(choice="second")
    assert harness.replica.cooling() == {"second": 300}
    harness.replica.clock.shift(300)

    assert await harness.asked() == "first"
    assert harness.counts() == [2, 1, 0]
