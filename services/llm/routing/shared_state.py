"""What replicas share about providers: a copy in this process, the original in Redis.

Reading is a look at the local copy. It is kept fresh by publish/subscribe (with a reload every few seconds as a
backstop, or every second where a server refuses subscriptions). A change is applied to the copy at once and
written behind, as an optimistic transaction on one hash, so that the same pure rule decides here and there.

Without Redis the same rules run on the local copy. Changes wait, and when Redis is back they are applied to what it
holds. Where it came back without its data (a field of the hash says which life of the data this is), the local copy
is merged in first. It must not be merged otherwise: a copy that missed how an admin ended a force would revive it.
"""

import asyncio
import contextlib
import uuid
from collections import deque
from collections.abc import Collection, Iterable, Mapping
from typing import Any, cast

import structlog
from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.exceptions import RedisError, ResponseError, WatchError

from core.clock import Clock
from core.redis.client import REDIS_ERRORS
from services.llm.routing.codec import decode_routing, encode_routing, is_routing_field
from services.llm.routing.rules import Change, Routing, merged

log = structlog.get_logger()

RESYNC_S = 5.0
"""How often the copy is reloaded although nothing was published."""
POLL_S = 1.0
"""The same where the server refuses subscriptions: the most that a copy may be old."""
RECONNECT_S = 0.5
"""Pause between two attempts to reach a Redis that is gone."""
SUBSCRIBE_S = 1.0
"""How long the server may take to confirm a subscription."""
LAST_WRITE_S = 2.0
"""How long closing waits for Redis to take what has not been written yet."""
KEEP_S = 7 * 24 * 3600
"""The hash outlives its last change by a week: long enough for a half-open provider to stay known as one."""
MAX_WAITING = 1000
"""Changes kept for a Redis that is gone; they are rare (a failure, a first success, an admin's act)."""
WRITE_ATTEMPTS = 20
"""Rounds of an optimistic write before it counts as a fault: replicas write rarely, so two rounds are unusual."""

LIFE = "life"
"""The field that names this life of the data: another name, or none, says that Redis lost what it was told before."""


class SharedRouting:
    """The routing state of all replicas, as this one sees it.

    Args:
        redis: a client with `decode_responses=True`, to a server or to the embedded store.
        prefix: what all keys begin with.
        clock: the time.
    """

    def __init__(self, redis: Redis, prefix: str, clock: Clock) -> None:
        self.replica = uuid.uuid4().hex[:12]
        self._redis = redis
        self._clock = clock
        self._key = f"{prefix}:{{llm}}:routing"
        self._channel = f"{prefix}:{{llm}}:changed"
        self._routing = Routing()
        self._connected = False
        self._life: str | None = None
        self._unreadable: frozenset[str] = frozenset()
        self._waiting: deque[Change] = deque(maxlen=MAX_WAITING)
        self._settled = asyncio.Event()
        self._wake = asyncio.Event()
        self._exchange = asyncio.Lock()
        self._tasks: list[asyncio.Task[None]] = []
        self._closing = False

    @property
    def routing(self) -> Routing:
        """The local copy: no I/O."""
        return self._routing

    @property
    def connected(self) -> bool:
        """Whether the copy follows Redis; if not, this replica decides alone."""
        return self._connected

    @property
    def waiting(self) -> int:
        """How many changes wait for Redis to take them."""
        return len(self._waiting)

    async def start(self) -> None:
        """Load the state and follow it. A Redis that does not answer is no error."""
        try:
            await self._resync()
        except REDIS_ERRORS as error:
            self._lost(error)
        self._tasks = [
            asyncio.create_task(self._follow(), name="routing.follow"),
            asyncio.create_task(self._write_behind(), name="routing.write"),
        ]

    async def close(self) -> None:
        """Write what waits, if Redis takes it, and stop following."""
        if self._waiting and self._connected:
            with contextlib.suppress(*REDIS_ERRORS):
                async with asyncio.timeout(LAST_WRITE_S):
                    await self._resync()
        # On Python 3.11 a client's `wait_for` may swallow a cancellation that comes with its result, hence the flag.
        self._closing = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []

    def apply(self, change: Change) -> None:
        """Change the local copy now and Redis soon after; costs nothing where the change changes nothing."""
        routing = change(self._routing)
        if routing is not self._routing:
            self._routing = routing
            self._waiting.append(change)
            self._settled.clear()
            self._wake.set()

    async def commit(self, change: Change, timeout_s: float) -> bool:
        """Like `apply`, and wait until Redis has it, at most `timeout_s` seconds and not at all while it is gone.

        Returns:
            False where Redis is there and did not take it in time: what the others do about it is not known yet.
        """
        self.apply(change)
        if self._waiting and self._tasks and self._connected:
            try:
                async with asyncio.timeout(timeout_s):
                    await self._settled.wait()
            except TimeoutError:
                return False
        return True

    async def _follow(self) -> None:
        while not self._closing:
            try:
                async with self._redis.pubsub() as pubsub:
                    listens = await self._subscribed(pubsub)
                    await self._resync()
                    while not self._closing:
                        if not listens:
                            await self._clock.sleep(POLL_S)
                            await self._resync()
                        elif await self._heard(pubsub):
                            await self._resync()
            except Exception as error:  # noqa: BLE001 - reported; a follower that dies would leave the copy to age
                self._lost(error)
                await self._clock.sleep(RECONNECT_S)

    async def _subscribed(self, pubsub: PubSub) -> bool:
        """Subscribe and wait for the answer, so that what is read afterwards misses no change; False if refused."""
        await pubsub.subscribe(self._channel)
        try:
            if await pubsub.get_message(timeout=SUBSCRIBE_S) is None:
                raise TimeoutError("the subscription was not confirmed")
        except ResponseError as error:
            log.warning("routing.subscription_refused", detail=str(error)[:200], poll_s=POLL_S)
            return False
        return True

    async def _heard(self, pubsub: PubSub) -> bool:
        """Wait for another replica's change, at most until the next reload is due; False for what is our own."""
        message = cast(  # the types of a message's values are not declared
            "dict[str, Any] | None", await pubsub.get_message(ignore_subscribe_messages=True, timeout=RESYNC_S)
        )
        return message is None or message["data"] != self.replica

    async def _write_behind(self) -> None:
        while not self._closing:
            await self._wake.wait()
            self._wake.clear()
            try:
                await self._resync()
            except Exception as error:  # noqa: BLE001 - reported; a writer that dies would keep every change here
                self._lost(error)
                await self._clock.sleep(RECONNECT_S)
                self._wake.set()

    async def _resync(self) -> None:
        """Bring the copy and Redis together: read, apply what waits, write the difference, tell the others."""
        async with self._exchange:
            for _ in range(WRITE_ATTEMPTS):
                changes = tuple(self._waiting)
                try:
                    routing = await self._exchanged(changes)
                except WatchError:
                    continue
                written = set(changes)
                self._waiting = deque((c for c in self._waiting if c not in written), MAX_WAITING)
                self._routing = _applied(routing, self._waiting)
                break
            else:
                raise RedisError("the routing state is written by others all the time")
        if not self._connected:
            self._connected = True
            log.info("routing.redis_connected", replica=self.replica)
        if not self._waiting:
            self._settled.set()

    async def _exchanged(self, changes: Collection[Change]) -> Routing:
        """One round of an optimistic transaction; one round trip where there is nothing to write."""
        # A client with `decode_responses` answers in strings, which its types do not say.
        if not changes:
            stored = cast("dict[str, str]", await self._redis.hgetall(self._key))
            shared = self._read(stored)
            if self._together(shared, stored) == shared:
                self._life = stored.get(LIFE)
                return shared
        async with self._redis.pipeline(transaction=True) as pipe:
            await pipe.watch(self._key)
            stored = cast("dict[str, str]", await pipe.hgetall(self._key))
            shared = self._read(stored)
            routing = _applied(self._together(shared, stored), changes)
            life = stored.get(LIFE)
            if routing != shared:
                life = life or uuid.uuid4().hex
                fields = encode_routing(routing)
                gone = [name for name in stored if name not in fields and is_routing_field(name)]
                changed = {name: value for name, value in fields.items() if stored.get(name) != value}
                pipe.multi()
                pipe.hset(self._key, mapping={LIFE: life, **changed})
                if gone:
                    pipe.hdel(self._key, *gone)
                pipe.expire(self._key, KEEP_S)
                await pipe.execute()
        self._life = life
        if routing != shared:
            await self._publish()
        return routing

    async def _publish(self) -> None:
        # Not within the transaction: a cluster takes it in none, and a user without the right to publish may still
        # write; the others then learn of the change by their own reloads.
        try:
            await self._redis.publish(self._channel, self.replica)
        except REDIS_ERRORS as error:
            log.info("routing.not_published", error=type(error).__name__, detail=str(error)[:200])

    def _together(self, shared: Routing, stored: Mapping[str, str]) -> Routing:
        """What Redis holds, with the local copy merged in where Redis lost its data since."""
        return shared if self._life in {None, stored.get(LIFE)} else merged(shared, self._routing)

    def _read(self, stored: Mapping[str, str]) -> Routing:
        routing, unreadable = decode_routing(stored)
        if unreadable != self._unreadable:
            self._unreadable = unreadable
            if unreadable:
                log.warning("routing.unreadable_fields", fields=sorted(unreadable))
        return routing

    def _lost(self, error: Exception) -> None:
        if self._connected or not self._tasks:
            bug = None if isinstance(error, REDIS_ERRORS) else error
            log.warning("routing.redis_lost", error=type(error).__name__, detail=str(error)[:200], exc_info=bug)
        self._connected = False
        # Who waits for a write need not wait for one that does not come.
        self._settled.set()


def _applied(routing: Routing, changes: Iterable[Change]) -> Routing:
    for change in changes:
        routing = change(routing)
    return routing
