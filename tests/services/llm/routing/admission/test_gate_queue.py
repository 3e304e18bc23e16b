"""The gate of a provider: places, turns by person, and leaving a queue that stands still."""

import asyncio

import pytest

from services.llm.routing.admission.request_admission import GatePlace, ProviderGate
from tests.support.clock import settle


async def held(gate: ProviderGate, person: str) -> GatePlace:
    """Return a place that must be free."""
    async with asyncio.timeout(1):
        place = await gate.enter(person)
    assert place is not None
    return place


async def is_full(gate: ProviderGate) -> bool:
    """Return whether a further person would have to wait."""
    place = await gate.enter("another person", patience_s=0)
    if place is not None:
        place.leave()
    return place is None


async def test_gate_bounds_the_places() -> None:
    gate = ProviderGate(2)
    first = await held(gate, "ann")
    await held(gate, "ben")
    waiting = asyncio.create_task(gate.enter("cem"))
    await settle()
    assert not waiting.done()

    first.leave()
    assert await waiting is not None
    assert await is_full(gate)


async def test_place_left_twice_frees_one_place() -> None:
    gate = ProviderGate(2)
    first = await held(gate, "ann")
    await held(gate, "ben")
    first.leave()
    first.leave()

    await held(gate, "cem")
    assert await is_full(gate)


async def test_queue_is_served_in_turn_by_person() -> None:
    """Of ten requests of one person and one each of two others, those two are second and third, not last."""
    gate = ProviderGate(1)
    occupying = await held(gate, "zoe")
    served: list[str] = []

    async def ask(person: str) -> None:
        place = await gate.enter(person)
        assert place is not None
        served.append(person)
        await asyncio.sleep(0)
        place.leave()

    asking = [asyncio.create_task(ask("ann")) for _ in range(10)]
    asking += [asyncio.create_task(ask(person)) for person in ("ben", "cem")]
    await settle()
    occupying.leave()
    await asyncio.gather(*asking)

    assert served == ["ann", "ben", "cem", *["ann"] * 9]


async def test_person_holds_half_of_the_places_at_most() -> None:
    gate = ProviderGate(4)
    for _ in range(2):
        await held(gate, "ann")
    third = asyncio.create_task(gate.enter("ann"))
    await settle()
    assert not third.done()

    for _ in range(2):
        await held(gate, "ben")
    third.cancel()
    await asyncio.gather(third, return_exceptions=True)
    assert await is_full(gate)


async def test_queue_that_stands_still_is_left() -> None:
    gate = ProviderGate(1)
    occupying = await held(gate, "ann")

    assert await gate.enter("ben", patience_s=0.02) is None
    occupying.leave()
    await held(gate, "cem")
    assert await is_full(gate)


async def test_queue_that_moves_is_not_left() -> None:
    """Each place that becomes free renews the patience."""
    gate = ProviderGate(1)
    occupying = await held(gate, "ann")
    others = [asyncio.create_task(gate.enter(person)) for person in ("ben", "cem", "dan")]
    await settle()
    waiting = asyncio.create_task(gate.enter("eve", patience_s=0.4))
    await settle()
    for other in others:
        await asyncio.sleep(0.2)
        occupying.leave()
        place = await other
        assert place is not None
        occupying = place
    occupying.leave()

    assert await waiting is not None


@pytest.mark.parametrize("is_admitted", [False, True], ids=["waiting", "just admitted"])
async def test_cancelled_wait_holds_no_place(*, is_admitted: bool) -> None:
    gate = ProviderGate(1)
    occupying = await held(gate, "ann")
    waiting = asyncio.create_task(gate.enter("ben"))
    await settle()
    if is_admitted:
        occupying.leave()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    if not is_admitted:
        occupying.leave()

    await held(gate, "cem")
    assert await is_full(gate)
