"""Values in Redis that do not parse: written by another release, another program, or cut. No reader fails over them."""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence

import pytest
import structlog
from redis.asyncio import Redis

from bot.telegram.answers.cancellation import ReplyCancellation
from core.clock import Backoff, SystemClock
from core.messages import ConversationKey, Surface
from core.redis.client import open_redis
from core.redis.notify_once import NotifyOnce
from services.chat.reply import ActiveReplies, Reply
from services.llm.routing.affinity import ProviderAffinity
from services.llm.routing.state.changes import forced
from services.llm.routing.state.shared_state import SharedRouting
from services.moderation.domain.verdict import Category, Evidence, Judged, Verdict
from services.moderation.judging.verdict_cache import CacheKey, VerdictCache
from tests.support.clock import ManualClock
from tests.support.processes.redis_server import RedisServer

pytestmark = pytest.mark.integration

HERE = ConversationKey(Surface.TELEGRAM, 7)
JUDGED = Judged(Verdict(category=Category.OK, confidence=99), Evidence.OWN, "a", "m")


def _values() -> Sequence[bytes]:
    """Hostile values, and bytes from a fixed seed."""
    source = random.Random(5)
    alphabet = b'{}[]":,0123456789eE+-.nulltruefalse\\u \xff\x00\xf0\x9f'
    return (
        b"", b"null", b"true", b"1", b"-1", b"1e999", b"NaN", b"Infinity", b"-Infinity", b'"', b'"a"', b"[]", b"[1]",
        b"[1,2]", b"[null,null]", b'["a",[]]', b'["a",1e400]', b'["a","nan"]', b"{}", b'{"verdict":null}',
        b'{"verdict":[],"evidence":[],"provider":{},"model":1}', b'{"chat":7}', b'{"chat":[],"topic":0,"number":null}',
        b'{"chat":7,"topic":0,"number":null,"answer":"elsewhere"}',
        b'{"chat":"7","topic":null,"number":{},"answer":[]}',
        b'{"provider":1,"until":"x"}', b'{"until":NaN}', b"9" * 5000, b"[" * 600_000, b'{"a":' * 100_000, b"\xff" * 50,
        b"\xed\xa0\x80", b"1_000", "١٢".encode(), b"x" * 100_000,
        *(bytes(source.choice(alphabet) for _ in range(source.randrange(1, 40))) for _ in range(60)),
    )  # fmt: skip


VALUES = _values()


@pytest.fixture
async def store(redis_server: RedisServer) -> AsyncIterator[Redis]:
    async with open_redis(redis_server.url) as client:
        yield client


async def test_a_reminder_goes_out_whatever_is_stored(store: Redis, clock: ManualClock) -> None:
    backoff = Backoff(60, 3600)
    for number, value in enumerate(VALUES):
        name = f"n{number}"
        await store.hset(f"t:{name}", mapping={"until": value, "told": value})
        for each in (NotifyOnce(store, "t", clock), NotifyOnce(store, "t", clock)):
            await each.is_due(name, backoff)
        # A wrong clock's instant ends too.
        clock.shift(2 * backoff.longest_s)
        assert await NotifyOnce(store, "t", clock).is_due(name, backoff)


async def test_a_message_is_judged_again_if_its_verdict_is_unreadable(store: Redis, clock: ManualClock) -> None:
    asked = 0

    async def ask() -> Judged:
        nonlocal asked
        asked += 1
        return JUDGED

    with structlog.testing.capture_logs() as logs:
        cache = VerdictCache(store, "t", clock)
        for number, value in enumerate(VALUES):
            key = CacheKey.create(-100, 7, str(number))
            await store.set(cache._redis_key(key), value)
            await store.set(cache._redis_key(key, 7), value)
            assert await cache.get_or_ask(key, ask) == JUDGED
    assert asked == len(VALUES)
    assert [entry["event"] for entry in logs].count("verdict_cache.entry_unreadable") == 1


async def test_an_unreadable_affinity_is_none(store: Redis, clock: ManualClock) -> None:
    affinity = ProviderAffinity(store, "t", clock)
    for number, value in enumerate(VALUES):
        await store.set(f"t:{{llm}}:stay:u{number}", value)
        await affinity.provider_for(f"u{number}")
    affinity.begin("u0", "b")
    await affinity.close()
    assert await ProviderAffinity(store, "t", clock).provider_for("u0") == "b"


async def test_the_routing_state_is_read_around_unreadable_fields(store: Redis, clock: ManualClock) -> None:
    async def follow(number: int, value: str | bytes) -> None:
        await store.hset(
            f"t{number}:{{llm}}:routing",
            mapping={"preferred": value, "cooldown:a": value, "probe:a": value, "life": value, "new": value},
        )
        shared = SharedRouting(store, f"t{number}", clock)
        await shared.start()
        assert await shared.commit(forced("a", clock.time(), 60), 5)
        assert shared.connected
        assert shared.routing.forced(clock.time()) == "a"
        await shared.close()

    values = list(enumerate(VALUES))
    for start in range(0, len(values), 8):
        await asyncio.gather(*(follow(*each) for each in values[start : start + 8]))


async def test_stop_requests_that_do_not_parse_are_ignored_and_logged_once(store: Redis) -> None:
    """The subscription goes on, and no other key is written."""
    active, reply = ActiveReplies(), Reply()
    here = ReplyCancellation(ActiveReplies(), store, "t", SystemClock())
    there = ReplyCancellation(active, store, "t", SystemClock())
    with structlog.testing.capture_logs() as logs, active.register(HERE, reply):
        task = asyncio.create_task(there.run())
        async with asyncio.timeout(5):
            while not (await store.pubsub_numsub("t:stops"))[0][1]:
                await asyncio.sleep(0.01)
        for value in VALUES:
            await store.publish("t:stops", value)
        assert not reply.stop_wanted
        assert await here.stop(HERE)
        assert not task.done()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert reply.stop_wanted
    assert not await store.exists("elsewhere")
    assert [entry["event"] for entry in logs].count("cancellation.request_invalid") == 1
