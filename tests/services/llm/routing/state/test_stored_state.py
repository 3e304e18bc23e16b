"""The routing hash in Redis, as the previous release wrote it, stays readable."""

from redis.asyncio import Redis

from services.llm.routing.state.rules import Cooldown, Force, Lease, Preferred, Routing
from services.llm.routing.state.shared_state import SharedRouting
from tests.support.clock import ManualClock, until

STORED = {
    "life": "0123456789abcdef",
    "force": '{"provider": "b", "since": 1800000000.0, "until": 1800000600.0}',
    "preferred": '{"provider": "a", "since": 1800000000.0, "until": 1800000060.0}',
    "cooldown:a": '{"provider": "a", "reason": "HTTP 503", "since": 1800000000.0, "until": 1800000120.0, '
    '"reporter": "replica-1"}',
    "probe:a": '{"provider": "a", "holder": "replica-1", "until": 1800000030.0}',
}


async def test_shared_routing_reads_the_hash_of_the_previous_release(redis: Redis, clock: ManualClock) -> None:
    await redis.hset("understudy:{llm}:routing", mapping=STORED)
    shared = SharedRouting(redis, "understudy", clock)
    await shared.start()
    try:
        await until(lambda: shared.connected)
        assert shared.routing == Routing(
            force=Force("b", 1_800_000_000.0, 1_800_000_600.0),
            preference=Preferred("a", 1_800_000_000.0, 1_800_000_060.0),
            cooldowns={"a": Cooldown("a", "HTTP 503", 1_800_000_000.0, 1_800_000_120.0, "replica-1")},
            probes={"a": Lease("a", "replica-1", 1_800_000_030.0)},
        )
    finally:
        await shared.close()
