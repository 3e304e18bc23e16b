"""Undo claims an act, restores the former state, and then removes it."""

import asyncio

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from services.admin.undo import Act, BudgetAct, RoutingAct, UndoResult, UndoStore
from services.llm.routing.admission.budget_guard import BudgetKind
from services.llm.routing.state.rules import Force, OperatorOverrides

BUDGET = BudgetAct(owner_kind=BudgetKind.USER, owner="7", before="none", after="2")


async def kept(embedded_redis: Redis) -> UndoStore:
    store = UndoStore(embedded_redis, "test")
    assert await store.keep(BUDGET, 12) == "12"
    return store


async def restore(_act: Act) -> bool:
    return True


async def test_second_undo_at_the_same_time_is_refused(embedded_redis: Redis) -> None:
    store, go_on, restored = await kept(embedded_redis), asyncio.Event(), list[Act]()

    async def wait(act: Act) -> bool:
        restored.append(act)
        await go_on.wait()
        return True

    first = asyncio.create_task(store.undo("12", wait))
    while not restored:
        await asyncio.sleep(0)
    assert await UndoStore(embedded_redis, "test").undo("12", wait) is UndoResult.BUSY
    go_on.set()
    assert await first is UndoResult.DONE
    assert await store.undo("12", wait) is UndoResult.GONE
    assert restored == [BUDGET]


@pytest.mark.parametrize("failure", [OSError("the database is gone"), asyncio.CancelledError()])
async def test_undo_that_fails_or_is_cancelled_can_be_repeated(embedded_redis: Redis, failure: BaseException) -> None:
    store = await kept(embedded_redis)

    async def fail(_act: Act) -> bool:
        raise failure

    with pytest.raises(type(failure)):
        await store.undo("12", fail)
    assert await store.undo("12", restore) is UndoResult.DONE


async def test_act_that_cannot_be_removed_is_undone_all_the_same(
    embedded_redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next undo finds it changed, by comparing the state with the one after the act."""
    store = await kept(embedded_redis)

    async def refuse(*_keys: str) -> int:
        raise RedisConnectionError

    monkeypatch.setattr(embedded_redis, "delete", refuse)
    assert await store.undo("12", restore) is UndoResult.DONE


async def test_changed_state_keeps_the_act(embedded_redis: Redis) -> None:
    store = await kept(embedded_redis)

    async def refuse(_act: Act) -> bool:
        return False

    assert await store.undo("12", refuse) is UndoResult.CHANGED
    assert await store.find_kept(["12", "13"]) == {"12"}


async def test_newest_force_of_a_provider_is_found_while_it_is_kept(embedded_redis: Redis) -> None:
    store, none = UndoStore(embedded_redis, "test"), OperatorOverrides(None, None)
    forced = OperatorOverrides(Force("a", 0.0, 900.0), None)
    await store.keep(RoutingAct(provider="a", before=none, after=forced), 1)
    assert await store.find_force("a") == "1"
    assert await store.find_force("b") is None
    # The end of a force and an act that changes nothing are no forces.
    await store.keep(RoutingAct(provider="", before=forced, after=none), 2)
    assert await store.keep(RoutingAct(provider="a", before=none, after=none), 3) is None
    assert await store.find_force("a") == "1"
    assert await store.undo("1", restore) is UndoResult.DONE
    assert await store.find_force("a") is None
