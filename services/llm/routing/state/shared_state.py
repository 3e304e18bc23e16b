"""The routing state that all replicas share: a local copy of one hash in Redis.

Reads use the local copy. Publish/subscribe keeps it fresh, with a reload every few seconds as a backstop, or every
second where a server refuses subscriptions. A change is applied to the copy at once and written in the background as
an optimistic transaction, so that the same pure rule decides locally and in Redis.

Without Redis the same rules run on the local copy. Changes are kept, and applied to the stored state when Redis is
back. If it lost its data meanwhile (a field of the hash identifies one life of the data), the local copy is merged in
first. It must not be merged otherwise: a copy that missed the end of a force would revive it.
"""

import asyncio
import contextlib
import uuid
from collections import deque
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import cast

import structlog
from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.exceptions import RedisError, ResponseError, WatchError

from core.background import BackgroundTasks
from core.clock import Clock, LoopTimeout
from core.redis.client import REDIS_ERRORS, describe_redis_error, read_message, subscribe
from services.llm.routing.state.changes import merged
from services.llm.routing.state.clock_bounds import InstantBounds, clamped
from services.llm.routing.state.codec import decode_routing, encode_routing, is_routing_field
from services.llm.routing.state.rules import Change, Routing

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class SyncTiming:
    """Waits of the synchronisation with Redis, in seconds.

    Args:
        resync_s: interval of reloads while no change is published.
        poll_s: polling interval if the server refuses subscriptions; the copy is at most that old.
        reconnect_s: pause between two attempts to reach a Redis that is gone.
        subscribe_s: how long the server may take to confirm a subscription.
        close_s: how long closing waits for Redis to take pending changes.
    """

    resync_s: float = 5.0
    poll_s: float = 1.0
    reconnect_s: float = 0.5
    subscribe_s: float = 1.0
    close_s: float = 2.0


KEY_TTL_S = 7 * 24 * 3600
"""The hash outlives its last change by a week, so that a half-open provider stays known as one."""
MAX_PENDING = 1000
"""Changes kept while Redis is unavailable. They are rare: a failure, a first success, an operator's act."""
WRITE_ATTEMPTS = 20
"""Rounds of an optimistic write before it counts as an error. Replicas write rarely, so two rounds are unusual."""

LIFE = "life"
"""The field that identifies this life of the data. A different value, or none, means that Redis lost the data."""


class SharedRouting:
    """The routing state of all replicas, as this one sees it.

    Args:
        redis: a client with `decode_responses=True`, of a server or of the embedded store.
        prefix: prefix of all Redis keys.
        bounds: the longest durations of entries, in case a replica's clock is wrong.
    """

    def __init__(
        self,
        redis: Redis,
        prefix: str,
        clock: Clock,
        timing: SyncTiming | None = None,
        bounds: InstantBounds | None = None,
    ) -> None:
        self.replica = uuid.uuid4().hex[:12]
        self._redis = redis
        self._clock = clock
        self._timing = timing or SyncTiming()
        self._bounds = bounds or InstantBounds()
        self._key = f"{prefix}:{{llm}}:routing"
        self._channel = f"{prefix}:{{llm}}:changed"
        self.routing = Routing()
        """The local copy, one object as long as nothing changes. Read it without I/O; change it by `apply` and
        `commit`."""
        self._connected = False
        self._life: str | None = None
        self._unreadable: frozenset[str] = frozenset()
        self._pending: deque[Change] = deque(maxlen=MAX_PENDING)
        self._settled = asyncio.Event()
        self._is_slow = False
        """True while a caller waits longer than usual for Redis to take a change."""
        self._wake = asyncio.Event()
        self._exchange = asyncio.Lock()
        self._tasks = BackgroundTasks()
        self._is_started = False

    @property
    def connected(self) -> bool:
        """True if the copy follows Redis; if not, this replica decides alone."""
        return self._connected

    @property
    def pending(self) -> int:
        """The number of changes that are not written to Redis yet."""
        return len(self._pending)

    async def start(self) -> None:
        """Loads the state and follows its changes. An unavailable Redis is not an error."""
        try:
            await self._resync()
        except REDIS_ERRORS as error:
            self._mark_lost(error)
        self._is_started = True
        self._tasks.start(self._follow(), "routing.follow")
        self._tasks.start(self._write_behind(), "routing.write")

    async def close(self) -> None:
        """Writes pending changes, if Redis takes them in time, and stops following."""
        if self._pending and self._connected:
            with contextlib.suppress(*REDIS_ERRORS):
                async with asyncio.timeout(self._timing.close_s):
                    await self._resync()
        await self._tasks.close()
        self._is_started = False

    def apply(self, change: Change) -> None:
        """Changes the local copy now and Redis soon after; free where the change has no effect."""
        routing = change(self.routing)
        if routing is not self.routing:
            self.routing = routing
            self._pending.append(change)
            self._settled.clear()
            self._wake.set()

    async def commit(self, change: Change, timeout_s: float) -> bool:
        """Applies a change and waits until Redis has it, `timeout_s` at most; not at all while Redis is unavailable.

        While one caller finds Redis slow, the others do not wait.

        Returns:
            False if Redis is connected and did not take the change in time, so that other replicas may not see it yet.
        """
        self.apply(change)
        if self._pending and self._is_started and self._connected:
            if self._is_slow:
                return False
            try:
                async with LoopTimeout(timeout_s, self._note_slow):
                    await self._settled.wait()
            except TimeoutError:
                return False
            finally:
                self._is_slow = False
        return True

    def _note_slow(self) -> None:
        self._is_slow = True

    async def _follow(self) -> None:
        while True:
            try:
                async with self._redis.pubsub() as pubsub:
                    is_subscribed = await self._subscribe(pubsub)
                    await self._resync()
                    while True:
                        if not is_subscribed:
                            await self._clock.sleep(self._timing.poll_s)
                            await self._resync()
                        elif await self._wait_for_change(pubsub):
                            await self._resync()
            except Exception as error:  # noqa: BLE001 - reported; a dead follower would leave the copy stale
                self._mark_lost(error)
                await self._clock.sleep(self._timing.reconnect_s)

    async def _subscribe(self, pubsub: PubSub) -> bool:
        """Subscribes and waits for the confirmation, so that later reads miss no change; returns False if refused."""
        await subscribe(pubsub, self._channel)
        try:
            if await read_message(pubsub, self._timing.subscribe_s, with_confirmation=True) is None:
                raise TimeoutError("the subscription was not confirmed")
        except ResponseError as error:
            log.warning("routing.subscription_refused", detail=str(error)[:200], poll_s=self._timing.poll_s)
            return False
        return True

    async def _wait_for_change(self, pubsub: PubSub) -> bool:
        """Waits for another replica's change or for the next reload; returns False for an own change."""
        message = await read_message(pubsub, self._timing.resync_s)
        return message is None or message["data"] != self.replica

    async def _write_behind(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                await self._resync()
            except Exception as error:  # noqa: BLE001 - reported; a dead writer would write nothing any more
                self._mark_lost(error)
                await self._clock.sleep(self._timing.reconnect_s)
                self._wake.set()

    async def _resync(self) -> None:
        """Synchronises the copy and Redis: read, apply pending changes, write the difference, publish."""
        async with self._exchange:
            for _ in range(WRITE_ATTEMPTS):
                changes = tuple(self._pending)
                try:
                    routing = await self._exchange_round(changes)
                except WatchError:
                    continue
                written = set(changes)
                self._pending = deque((c for c in self._pending if c not in written), MAX_PENDING)
                routing = _apply_all(routing, self._pending)
                if routing != self.routing:
                    self.routing = routing
                break
            else:
                raise RedisError("the routing state was written by other replicas in every round")
        if not self._connected:
            self._connected = True
            log.info("routing.synchronised", replica=self.replica)
        if not self._pending:
            self._settled.set()

    async def _exchange_round(self, changes: Collection[Change]) -> Routing:
        """One round of an optimistic transaction; one round trip where there is nothing to write."""
        # With `decode_responses` the values are strings, which the client's types do not reflect.
        if not changes:
            stored = cast("dict[str, str]", await self._redis.hgetall(self._key))
            shared = self._read(stored)
            if self._merge_if_lost(self._clamped(shared), stored) == shared:
                self._life = stored.get(LIFE)
                return shared
        async with self._redis.pipeline(transaction=True) as pipe:
            await pipe.watch(self._key)
            stored = cast("dict[str, str]", await pipe.hgetall(self._key))
            shared = self._read(stored)
            routing = _apply_all(self._merge_if_lost(self._clamped(shared), stored), changes)
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
                pipe.expire(self._key, KEY_TTL_S)
                await pipe.execute()
        self._life = life
        if routing != shared:
            await self._publish()
        return routing

    async def _publish(self) -> None:
        # Outside the transaction: a cluster does not allow it inside, and a user without the right to publish may
        # still write. Other replicas then see the change at their next reload.
        try:
            await self._redis.publish(self._channel, self.replica)
        except REDIS_ERRORS as error:
            log.info("routing.publish_failed", error=type(error).__name__, detail=str(error)[:200])

    def _merge_if_lost(self, shared: Routing, stored: Mapping[str, str]) -> Routing:
        """Returns the stored state, with the local copy merged in if Redis lost its data."""
        return shared if self._life in {None, stored.get(LIFE)} else merged(shared, self._clamped(self.routing))

    def _clamped(self, routing: Routing) -> Routing:
        bounded = clamped(routing, self._clock.time(), self._bounds)
        if bounded is not routing:
            log.warning("routing.instants_clamped")
        return bounded

    def _read(self, stored: Mapping[str, str]) -> Routing:
        routing, unreadable = decode_routing(stored)
        if unreadable != self._unreadable:
            self._unreadable = unreadable
            if unreadable:
                log.warning("routing.unreadable_fields", fields=sorted(unreadable))
        return routing

    def _mark_lost(self, error: Exception) -> None:
        if self._connected or not self._is_started:
            bug = None if isinstance(error, REDIS_ERRORS) else error
            detail = describe_redis_error(error) if bug is None else str(error)[:200]
            log.warning("routing.redis_lost", error=type(error).__name__, detail=detail, exc_info=bug)
        self._connected = False
        self.routing = self._clamped(self.routing)
        # Release the callers that wait for a write.
        self._settled.set()


def _apply_all(routing: Routing, changes: Iterable[Change]) -> Routing:
    for change in changes:
        routing = change(routing)
    return routing
