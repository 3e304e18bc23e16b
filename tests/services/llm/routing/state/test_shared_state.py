"""The shared routing state, on the embedded store and on a real server."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from typing import Any

import pytest
from redis.asyncio import Redis
from structlog.testing import capture_logs

from core.redis.client import open_redis
from services.llm.routing.state import changes
from services.llm.routing.state.rules import Change, Cooldown, Force, Lease, Preferred, Routing
from services.llm.routing.state.shared_state import LIFE, SharedRouting, SyncTiming
from tests.support.llm_harness import RealSleeps, eventually, subscribed
from tests.support.processes.redis_server import RedisServer

KEY = "test:{llm}:routing"
CHANNEL = "test:{llm}:changed"


@asynccontextmanager
async def replica(redis: Redis, clock: RealSleeps, timing: SyncTiming | None = None) -> AsyncIterator[SharedRouting]:
    """Open one replica's view."""
    shared = SharedRouting(redis, "test", clock, timing)
    await shared.start()
    try:
        yield shared
    finally:
        await shared.close()


@pytest.fixture
def clock() -> RealSleeps:
    return RealSleeps()


@pytest.fixture
async def shared(redis: Redis, clock: RealSleeps) -> AsyncIterator[SharedRouting]:
    async with replica(redis, clock) as one:
        yield one


def cooled(clock: RealSleeps, provider: str = "a", duration_s: float = 300) -> Change:
    return changes.cooled(provider, "HTTP 500", clock.time(), duration_s, "r1")


async def fields(redis: Redis) -> dict[str, Any]:
    """Return the hash, decoded."""
    stored: dict[str, str] = await redis.hgetall(KEY)
    return {name: json.loads(value) for name, value in stored.items() if name != LIFE}


async def test_apply_changes_the_copy_and_commit_waits_for_redis(
    redis: Redis, shared: SharedRouting, clock: RealSleeps
) -> None:
    """`apply` changes the copy without waiting; `commit` returns when the store has it."""
    shared.apply(cooled(clock))
    assert set(shared.routing.cooldowns) == {"a"}

    await shared.commit(cooled(clock, "b"), 5)

    assert set(await fields(redis)) == {"cooldown:a", "cooldown:b"}


async def test_every_field_survives_the_round_trip(redis: Redis, clock: RealSleeps) -> None:
    """A replica that starts sees exactly the state that another one wrote."""
    now = clock.time()
    known = Routing(
        Force("a", now, now + 1800.5),
        Preferred("b", now - 1, now + 1799),
        {"c:d": Cooldown("c:d", 'say "no"\n', now, now + 300.25, "r1"), "e": Cooldown("e", "", now, now, "4711")},
        {"c:d": Lease("c:d", "r1:7", now + 65)},
    )
    async with replica(redis, clock) as first:
        await first.commit(lambda _: known, 5)
        assert first.routing == known

    async with replica(redis, clock) as second:
        assert second.routing == known
        assert second.connected


async def test_change_without_effect_writes_nothing(redis: Redis, shared: SharedRouting, clock: RealSleeps) -> None:
    """A write would have renewed the expiry."""
    await shared.commit(cooled(clock), 5)
    await redis.persist(KEY)

    await shared.commit(cooled(clock, duration_s=10), 5)
    await shared.commit(changes.probe_returned("a", "nobody"), 5)
    await asyncio.sleep(0.02)

    assert await redis.ttl(KEY) == -1


async def test_copy_is_one_object_while_nothing_changes(shared: SharedRouting, clock: RealSleeps) -> None:
    shared.apply(cooled(clock))
    known = shared.routing

    await shared.commit(lambda routing: routing, 5)

    assert shared.routing is known


async def test_removed_entries_are_deleted_in_redis(redis: Redis, shared: SharedRouting, clock: RealSleeps) -> None:
    await shared.commit(changes.forced("a", clock.time(), 60), 5)
    await shared.commit(cooled(clock), 5)

    await shared.commit(changes.reset("a", clock.time(), ("a",)), 5)
    await shared.commit(changes.cleared(clock.time()), 5)

    assert await fields(redis) == {}
    assert shared.routing == Routing()


async def test_hash_expires_a_week_after_the_last_change(
    redis: Redis, shared: SharedRouting, clock: RealSleeps
) -> None:
    await shared.commit(cooled(clock), 5)

    assert await redis.ttl(KEY) == pytest.approx(7 * 24 * 3600, abs=5)


async def test_start_changes_nothing_in_the_store(redis: Redis, shared: SharedRouting, clock: RealSleeps) -> None:
    """Byte by byte, on a full store and on an empty one."""
    async with replica(redis, clock):
        assert await redis.keys("*") == []
    await shared.commit(changes.forced("a", clock.time(), 60), 5)
    await shared.commit(cooled(clock), 5)
    before: Any = await redis.hgetall(KEY)

    async with replica(redis, clock) as newcomer:
        assert newcomer.routing == shared.routing
        assert await redis.hgetall(KEY) == before

    assert await redis.hgetall(KEY) == before
    assert await redis.keys("*") == [KEY]


async def test_change_is_published_to_another_replica(redis: Redis, shared: SharedRouting, clock: RealSleeps) -> None:
    """Long before its next reload."""
    async with replica(redis, clock) as other:
        await subscribed(redis, 2)
        loop = asyncio.get_running_loop()
        began = loop.time()

        shared.apply(cooled(clock))
        await eventually(lambda: "a" in other.routing.cooldowns)

        assert loop.time() - began < min(1.0, SyncTiming().resync_s)
        assert other.routing == shared.routing


async def test_concurrent_changes_of_replicas_are_all_kept(redis: Redis, clock: RealSleeps) -> None:
    """Optimistic writes of five replicas: none overwrites another's."""
    async with replica(redis, clock) as a, replica(redis, clock) as b, replica(redis, clock) as c:
        replicas = (a, b, c)

        await asyncio.gather(
            *(one.commit(cooled(clock, f"{n}-{i}"), 5) for n, one in enumerate(replicas) for i in range(5))
        )

        expected = {f"{n}-{i}" for n in range(3) for i in range(5)}
        assert {name.removeprefix("cooldown:") for name in await fields(redis)} == expected
        await eventually(lambda: all(set(one.routing.cooldowns) == expected for one in replicas))


async def test_concurrent_cooldowns_keep_the_later_end(redis: Redis, shared: SharedRouting, clock: RealSleeps) -> None:
    """Set by two replicas before either sees the other's."""
    async with replica(redis, clock) as other:
        shared.apply(cooled(clock, duration_s=1800))
        other.apply(cooled(clock, duration_s=300))
        await asyncio.gather(shared.commit(lambda s: s, 5), other.commit(lambda s: s, 5))

        assert (await fields(redis))["cooldown:a"]["until"] == clock.time() + 1800
        await eventually(lambda: other.routing == shared.routing)


async def test_concurrent_leases_go_to_one_replica(redis: Redis, shared: SharedRouting, clock: RealSleeps) -> None:
    """Both take it in their copies at the same instant; the store decides, and both follow."""
    await shared.commit(cooled(clock, duration_s=-1), 5)
    async with replica(redis, clock) as other:
        await asyncio.gather(
            shared.commit(changes.probe_taken("a", "one", clock.time(), 60), 5),
            other.commit(changes.probe_taken("a", "two", clock.time(), 60), 5),
        )

        holders = {one.routing.probes["a"].holder for one in (shared, other)}
        assert len(holders) == 1


UNREADABLE: list[tuple[str, str, Any]] = [
    ("no JSON", "cooldown:a", "{{{"),
    ("JSON of another shape", "force", "[1, 2]"),
    ("a field of another type", "preferred", '{"provider": "a", "since": null, "until": "soon"}'),
    ("a missing field", "probe:a", '{"provider": "a"}'),
]


@pytest.mark.parametrize(("field", "value"), [row[1:] for row in UNREADABLE], ids=[row[0] for row in UNREADABLE])
async def test_unreadable_field_is_ignored(redis: Redis, clock: RealSleeps, field: str, value: str) -> None:
    """It is logged once, the rest is read, and the next change removes it."""
    good = json.dumps(
        {"provider": "b", "reason": "r", "since": 1, "until": clock.time() + 9, "reporter": "x", "new": 1}
    )
    await redis.hset(KEY, mapping={field: value, "cooldown:b": good})
    with capture_logs() as logs:
        async with replica(redis, clock) as shared:
            assert set(shared.routing.cooldowns) == {"b"}
            assert shared.connected

            await shared.commit(changes.reset("b", clock.time(), ("b",)), 5)

            assert await fields(redis) == {}
    assert [entry["fields"] for entry in logs if entry["event"] == "routing.unreadable_fields"] == [[field]]


async def test_undecodable_bytes_do_not_hide_other_fields(redis_server: RedisServer, clock: RealSleeps) -> None:
    async with open_redis(redis_server.url) as redis:
        await redis.hset(KEY, mapping={"cooldown:a": b"\xff\xfe\x00"})
        async with replica(redis, clock) as shared:
            assert shared.connected

            await shared.commit(cooled(clock, "b"), 5)

        assert set(await fields(redis)) == {"cooldown:b"}


async def test_fields_of_a_newer_version_are_left_alone(redis: Redis, clock: RealSleeps) -> None:
    """During a rolling upgrade both versions work on the same hash."""
    await redis.hset(KEY, "inflight:a", "3")

    async with replica(redis, clock) as shared:
        await shared.commit(cooled(clock), 5)
        await shared.commit(changes.reset("a", clock.time(), ("a",)), 5)

    assert await redis.hgetall(KEY) == {"inflight:a": "3", LIFE: await redis.hget(KEY, LIFE)}


async def test_wiped_data_is_restored_from_the_copies(redis: Redis, shared: SharedRouting, clock: RealSleeps) -> None:
    """The first replica writes its copy, the second adds its own changes, and both agree."""
    async with replica(redis, clock) as other:
        await shared.commit(changes.forced("b", clock.time(), 60), 5)
        await shared.commit(cooled(clock), 5)
        await eventually(lambda: other.routing == shared.routing)
        known = shared.routing

        await redis.flushdb()
        await shared.commit(cooled(clock, "c"), 5)
        await eventually(lambda: "c" in other.routing.cooldowns)

        assert shared.routing.force == other.routing.force == known.force
        assert set(await fields(redis)) == {"force", "cooldown:a", "cooldown:c"}
        assert other.routing == shared.routing


async def test_ended_force_is_not_revived(redis: Redis, shared: SharedRouting, clock: RealSleeps) -> None:
    """By a copy that was disconnected when the force was cleared."""
    async with replica(redis, clock) as other:
        await shared.commit(changes.forced("b", clock.time(), 60), 5)
        await shared.commit(cooled(clock), 5)
        await eventually(lambda: other.routing == shared.routing)
        other._mark_lost(ConnectionError("cut off for a moment"))
        await redis.publish(CHANNEL, "wakes everybody")

        await shared.commit(changes.cleared(clock.time()), 5)
        await shared.commit(changes.reset("a", clock.time(), ("a",)), 5)

        await eventually(lambda: other.connected and other.routing == Routing())
        await other.commit(cooled(clock, "c"), 5)
        assert set(await fields(redis)) == {"cooldown:c"}


async def test_close_writes_pending_changes(redis: Redis, clock: RealSleeps) -> None:
    async with replica(redis, clock) as shared:
        shared.apply(cooled(clock))

    assert set(await fields(redis)) == {"cooldown:a"}


async def test_server_that_refuses_subscriptions_is_polled(redis_server: RedisServer, clock: RealSleeps) -> None:
    """A user without access to any channel can still share the state, only later."""
    timing = SyncTiming(poll_s=0.05)
    async with open_redis(redis_server.url) as admin:
        await admin.execute_command("ACL", "SETUSER", "poor", "on", ">pw", "~*", "+@all", "resetchannels")
    url = redis_server.url.replace("://", "://poor:pw@")
    async with (
        open_redis(url) as one,
        open_redis(url) as two,
        replica(one, clock, timing) as first,
        replica(two, clock, timing) as second,
    ):
        await first.commit(cooled(clock), 5)
        await eventually(lambda: "a" in second.routing.cooldowns)

        assert first.connected
        assert second.connected


async def test_lost_subscription_is_renewed(redis_server: RedisServer, clock: RealSleeps) -> None:
    """Changes made meanwhile are read, and later ones arrive at once again."""
    async with (
        open_redis(redis_server.url) as redis,
        replica(redis, clock) as shared,
        replica(redis, clock) as other,
    ):
        await subscribed(redis, 2)
        await redis.client_kill_filter(_type="pubsub")
        await shared.commit(cooled(clock, "meanwhile"), 5)

        await eventually(lambda: "meanwhile" in other.routing.cooldowns)
        await subscribed(redis, 2)
        loop = asyncio.get_running_loop()
        began = loop.time()
        shared.apply(cooled(clock, "later"))
        await eventually(lambda: "later" in other.routing.cooldowns)

        assert loop.time() - began < 1.0


async def test_resync_finds_a_change_that_was_not_published(redis_server: RedisServer, clock: RealSleeps) -> None:
    timing = SyncTiming(resync_s=0.05)
    async with open_redis(redis_server.url) as redis, replica(redis, clock, timing) as shared:
        entry = {"provider": "a", "reason": "r", "since": 1, "until": clock.time() + 9, "reporter": "x"}
        await redis.hset(KEY, "cooldown:a", json.dumps(entry))

        await eventually(lambda: "a" in shared.routing.cooldowns)


async def test_key_of_another_type_leaves_the_replica_alone(redis: Redis, clock: RealSleeps) -> None:
    """It decides alone and reports itself as not connected."""
    await redis.set(KEY, "not a hash")

    async with replica(redis, clock) as shared:
        await shared.commit(cooled(clock), 0.1)

        assert not shared.connected
        assert set(shared.routing.cooldowns) == {"a"}


BROKEN: list[tuple[str, Callable[[], Exception]]] = [
    ("a bug in the client", lambda: AttributeError("'NoneType' object has no attribute 'x'")),
    ("a fault of the network", lambda: OSError("no route to host")),
]


@pytest.mark.parametrize("error", [row[1] for row in BROKEN], ids=[row[0] for row in BROKEN])
async def test_sync_survives_any_error(
    redis: Redis, clock: RealSleeps, monkeypatch: pytest.MonkeyPatch, error: Callable[[], Exception]
) -> None:
    """The error is logged, and the next exchange is tried."""
    failures = iter([error(), error()])

    async def flaky(changes: Collection[Change]) -> Routing:
        if (failure := next(failures, None)) is not None:
            raise failure
        return await exchange(changes)

    async with replica(redis, clock, SyncTiming(reconnect_s=0.01)) as shared:
        exchange = shared._exchange_round
        monkeypatch.setattr(shared, "_exchange_round", flaky)
        with capture_logs() as logs:
            shared.apply(cooled(clock))
            await eventually(lambda: shared.connected and not shared._pending and next(failures, None) is None)

    assert set(await fields(redis)) == {"cooldown:a"}
    assert [entry["error"] for entry in logs if entry["event"] == "routing.redis_lost"] == [type(error()).__name__]


async def test_commit_returns_when_the_store_is_lost(shared: SharedRouting, clock: RealSleeps) -> None:
    """As soon as the loss is noticed, not at its timeout."""
    async with shared._exchange, asyncio.timeout(5):
        waiting = asyncio.create_task(shared.commit(cooled(clock), 60))
        await asyncio.sleep(0.01)
        assert not waiting.done()
        shared._mark_lost(ConnectionError("gone"))

        assert await waiting
        assert await shared.commit(cooled(clock, "b"), 60)


async def test_commit_returns_false_after_its_timeout(shared: SharedRouting, clock: RealSleeps) -> None:
    """The change is not lost: it is written as soon as the store takes it."""
    async with shared._exchange:
        assert not await shared.commit(cooled(clock), 0.01)

    await eventually(lambda: not shared._pending)


async def test_close_is_immediate_wherever_the_subscription_is(clock: RealSleeps) -> None:
    """On the embedded store a cancellation could be lost, and the end waited a second before it was repeated."""
    async with open_redis(None) as store:
        for steps in range(12):
            async with asyncio.timeout(0.9), replica(store, clock):
                for _ in range(steps):
                    await asyncio.sleep(0)
