"""RateLimiter: sliding windows in the embedded store, a server, and without Redis.

TurnPlaces: bounds, turns by party, a late event loop.
"""

import asyncio
import time
from collections.abc import Callable

import pytest
from redis.asyncio import Redis

from core.redis.client import open_redis
from services.limits.party_limits import Quota, RateEvent, RateLimiter, TurnLimits, TurnPlaces
from tests.support.clock import settle

BEGAN = 1_800_000_000.0


def events(count: int, *, at: float = 0.0, first: int = 0, window: str = "message:user:7") -> list[RateEvent]:
    return [RateEvent(window, f"{number:020d}", BEGAN + at, 20) for number in range(first, first + count)]


@pytest.fixture(params=["shared", "alone"])
def limiter(request: pytest.FixtureRequest, redis: Redis) -> RateLimiter:
    return RateLimiter(redis if request.param == "shared" else None, "test")


async def test_events_beyond_the_limit_are_refused(limiter: RateLimiter) -> None:
    """In their order, also within one second; other windows are their own."""
    assert await limiter.admit(events(25)) == [True] * 20 + [False] * 5
    assert await limiter.admit(events(3, at=30, first=30)) == [False] * 3
    assert await limiter.admit(events(3, window="message:user:8")) == [True] * 3


async def test_repeated_event_counts_once(limiter: RateLimiter) -> None:
    """Telegram repeats a batch that was not confirmed."""
    for _ in range(3):
        assert await limiter.admit(events(25)) == [True] * 20 + [False] * 5


async def test_window_slides(limiter: RateLimiter) -> None:
    """And refused events do not prolong it."""
    await limiter.admit(events(10))
    await limiter.admit(events(10, at=30, first=10))
    assert await limiter.admit(events(500, at=59, first=100)) == [False] * 500
    assert await limiter.admit(events(11, at=60, first=1000)) == [True] * 10 + [False]


async def test_backlog_counts_at_its_own_times(limiter: RateLimiter) -> None:
    """Messages of an hour come in one batch when the bot starts again."""
    batch = [event for minute in range(60) for event in events(3, at=60.0 * minute, first=10 * minute)]
    assert await limiter.admit(batch) == [True] * 180


async def test_renewal_is_when_the_oldest_event_leaves_the_window(limiter: RateLimiter) -> None:
    await limiter.admit(events(20))
    await limiter.admit(events(1, at=18, first=50))
    assert limiter.renewal_s("message:user:7", BEGAN + 18) == 42


async def test_replicas_share_the_windows(redis: Redis) -> None:
    first, second = RateLimiter(redis, "test"), RateLimiter(redis, "test")
    assert await first.admit(events(15)) == [True] * 15
    assert await second.admit(events(10, first=15)) == [True] * 5 + [False] * 5


async def test_replica_continues_alone_when_redis_is_silent(redis: Redis) -> None:
    """With the events counted so far."""
    limiter = RateLimiter(redis, "test")
    await limiter.admit(events(15))
    silent = open_redis("redis://127.0.0.1:1/0")
    limiter._redis._redis = silent
    assert await limiter.admit(events(10, first=15)) == [True] * 5 + [False] * 5
    await silent.aclose()


class Turns:
    """Turns that run until they are finished by name."""

    def __init__(self, limits: TurnLimits) -> None:
        self.places = TurnPlaces(limits)
        self.begun: list[str] = []
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self._ends: dict[str, asyncio.Event] = {}

    def begin(self, name: str, party: str, *quotas: Quota) -> None:
        self._ends[name] = asyncio.Event()
        self.tasks[name] = asyncio.create_task(self._run(name, party, quotas))

    async def finish(self, *names: str) -> None:
        for name in names:
            self._ends[name].set()
        await settle()

    async def until(self, predicate: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not predicate():
                await asyncio.sleep(0.005)

    async def _run(self, name: str, party: str, quotas: tuple[Quota, ...]) -> None:
        async with self.places.place(party, quotas):
            self.begun.append(name)
            await self._ends[name].wait()


def turns(most: int, least: int | None = None) -> Turns:
    return Turns(TurnLimits(most=most, least=most if least is None else least))


async def test_places_are_given_round_robin_by_party() -> None:
    """One party's hundred turns delay another's by one."""
    here = turns(1)
    for number in range(100):
        here.begin(f"a{number}", "a")
    here.begin("b0", "b")
    here.begin("b1", "b")
    here.begin("c0", "c")
    await settle()
    for name in ("a0", "a1", "b0", "c0", "a2", "b1", "a3"):
        assert here.begun[-1] == name
        await here.finish(name)
    assert here.places.waiting == 95


async def test_quota_bounds_the_turns_of_a_person_and_leaves_places_to_others() -> None:
    here = turns(10)
    own = Quota("user:7", 2)
    for number in range(4):
        here.begin(f"own{number}", f"chat{number}", own)
    here.begin("other", "b", Quota("user:8", 2))
    await settle()
    assert here.begun == ["own0", "own1", "other"]
    await here.finish("own1")
    assert here.begun[-1] == "own2"
    await here.finish("own0", "own2", "own3", "other")
    assert len(here.begun) == 5
    assert here.places.running == 0


async def test_quota_of_zero_is_none() -> None:
    here = turns(10)
    for number in range(5):
        here.begin(f"own{number}", "a", Quota("user:7", 0))
    await settle()
    assert len(here.begun) == 5


@pytest.mark.parametrize("names", [("w1",), ("w0", "w1")])
async def test_cancelled_turns_give_back_what_they_hold(names: tuple[str, ...]) -> None:
    """Turns that wait for a place, wait for a slot, or have just been given one."""
    here = turns(1)
    quota = Quota("user:7", 1)
    here.begin("first", "a", quota)
    here.begin("w0", "a", quota)
    here.begin("w1", "b")
    here.begin("last", "c", quota)
    await settle()
    here._ends["first"].set()
    for name in names:
        here.tasks[name].cancel()
    await settle()
    left = [name for name in ("w0", "w1", "last") if name not in names]
    for name in left:
        await here.until(lambda name=name: name in here.begun)
        await here.finish(name)
    assert here.places.running == here.places.waiting == 0
    assert not here.places._held


async def test_no_further_turn_begins_while_the_event_loop_is_late() -> None:
    here = Turns(TurnLimits(most=50, least=2, late_s=0.02, busy_begin_s=60))
    is_busy = True

    async def busy() -> None:
        while is_busy:
            time.sleep(0.05)  # noqa: ASYNC251 - what makes the loop late
            await asyncio.sleep(0)

    hog = asyncio.create_task(busy())
    for number in range(10):
        here.begin(str(number), str(number))
    await asyncio.sleep(0.5)
    assert here.begun == ["0", "1"]
    is_busy = False
    await hog
    await here.until(lambda: len(here.begun) == 10)


async def test_no_further_turn_begins_while_the_database_has_a_backlog() -> None:
    backlog = 10
    here = turns(1)
    here.places = TurnPlaces(TurnLimits(most=50, least=2, late_s=5, busy_begin_s=60), count_backlog=lambda: backlog)
    for number in range(10):
        here.begin(str(number), str(number))
    await asyncio.sleep(0.1)
    assert here.begun == ["0", "1"]
    backlog = 0
    await here.until(lambda: len(here.begun) == 10)


async def test_turns_begin_now_and_then_while_the_event_loop_is_always_late() -> None:
    """As it is where the machine is busy with other work."""
    here = Turns(TurnLimits(most=50, least=2, late_s=-1, busy_begin_s=0.05))
    for number in range(5):
        here.begin(str(number), str(number))
    await here.until(lambda: len(here.begun) == 5)


async def test_close_cancels_the_turns_that_wait() -> None:
    """And leaves those that run."""
    here = turns(2)
    quota = Quota("user:7", 1)
    here.begin("runs", "a", quota)
    here.begin("slot", "a", quota)
    here.begin("runs too", "b")
    here.begin("place", "c")
    await settle()
    here.places.close()
    await settle()
    assert [name for name, task in here.tasks.items() if task.cancelled()] == ["slot", "place"]
    await here.finish("runs", "runs too")
    assert here.begun == ["runs", "runs too"]
