"""What replicas share about providers: a copy in this process, the original in Redis.

Reading is a look at the local copy. It is kept fresh by publish/subscribe (with a reload every few seconds as a
backstop, or every second where a server refuses subscriptions). A change is applied to the copy at once and
written behind, as an optimistic transaction on one hash, so that the same pure rule decides here and there.

Without Redis the same rules run on the local copy. Changes wait, and when Redis is back both copies are merged and
the waiting changes applied on top.
"""

import asyncio
import contextlib
import json
import uuid
from collections import deque
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict
from typing import Any, cast

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError, WatchError

from core.clock import Clock
from services.llm.routing import Change, Cooldown, Force, Lease, Preference, Routing, merged

log = structlog.get_logger()

RESYNC_S = 5.0
"""How often the copy is reloaded although nothing was published."""
POLL_S = 1.0
"""The same where the server refuses subscriptions: the most that a copy may be old."""
RECONNECT_S = 0.5
"""Pause between two attempts to reach a Redis that is gone."""
KEEP_S = 7 * 24 * 3600
"""The hash outlives its newest entry by a week: long enough for a half-open provider to stay known as one."""
MAX_WAITING = 1000
"""Changes kept for a Redis that is gone; they are rare (a failure, a first success, an admin's act)."""
WRITE_ATTEMPTS = 20
"""Rounds of an optimistic write before it counts as a fault: replicas write rarely, so two rounds are unusual."""

REDIS_FAULTS = (RedisError, OSError, TimeoutError)


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
        self._waiting: deque[Change] = deque(maxlen=MAX_WAITING)
        self._written = asyncio.Condition()
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

    async def start(self) -> None:
        """Load the state and follow it. A Redis that does not answer is no error."""
        try:
            await self._resync()
        except REDIS_FAULTS as error:
            self._lost(error)
        self._tasks = [
            asyncio.create_task(self._follow(), name="routing.follow"),
            asyncio.create_task(self._write_behind(), name="routing.write"),
        ]

    async def close(self) -> None:
        """Write what waits, if Redis takes it, and stop following."""
        if self._waiting and self._connected:
            with contextlib.suppress(*REDIS_FAULTS):
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
            self._wake.set()

    async def commit(self, change: Change, timeout_s: float) -> None:
        """Like `apply`, and wait until Redis has it, at most `timeout_s` seconds and not at all while it is gone."""
        self.apply(change)
        if self._tasks and self._connected:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s), self._written:
                    await self._written.wait_for(lambda: not self._waiting or not self._connected)

    async def _follow(self) -> None:
        interval_s = RESYNC_S
        while not self._closing:
            try:
                async with self._redis.pubsub() as pubsub:
                    try:
                        await pubsub.subscribe(self._channel)
                        interval_s = RESYNC_S
                    except ResponseError:
                        interval_s = POLL_S
                    await self._resync()
                    while not self._closing:
                        if interval_s == POLL_S:
                            await self._clock.sleep(POLL_S)
                            await self._resync()
                            continue
                        message = cast(  # the types of a message's values are not declared
                            "dict[str, Any] | None",
                            await pubsub.get_message(ignore_subscribe_messages=True, timeout=interval_s),
                        )
                        if message is None or message["data"] != self.replica:
                            await self._resync()
            except REDIS_FAULTS as error:
                self._lost(error)
                await self._clock.sleep(RECONNECT_S)

    async def _write_behind(self) -> None:
        while not self._closing:
            await self._wake.wait()
            self._wake.clear()
            try:
                if self._connected:
                    await self._resync()
            except REDIS_FAULTS as error:
                self._lost(error)

    async def _resync(self) -> None:
        """Bring the copy and Redis together: read, apply what waits, write the difference, tell the others."""
        async with self._exchange:
            for _ in range(WRITE_ATTEMPTS):
                changes = tuple(self._waiting)
                try:
                    routing = await self._exchanged(changes)
                except WatchError:
                    continue
                self._waiting = deque((c for c in self._waiting if c not in changes), MAX_WAITING)
                self._routing = _applied(routing, self._waiting)
                break
            else:
                raise RedisError("the routing state is written by others all the time")
        if not self._connected:
            self._connected = True
            log.info("routing.redis_connected", replica=self.replica)
        async with self._written:
            self._written.notify_all()

    async def _exchanged(self, changes: Collection[Change]) -> Routing:
        """One round of an optimistic transaction; one round trip where there is nothing to write."""
        if self._connected and not changes:
            return _decoded(cast("dict[str, str]", await self._redis.hgetall(self._key)))
        async with self._redis.pipeline(transaction=True) as pipe:
            await pipe.watch(self._key)
            # A client with `decode_responses` answers in strings, which its types do not say.
            stored = cast("dict[str, str]", await pipe.hgetall(self._key))
            shared = _decoded(stored)
            routing = shared if self._connected else merged(shared, self._routing)
            routing = _applied(routing, changes)
            if routing != shared:
                fields = _encoded(routing)
                gone = [name for name in stored if name not in fields]
                changed: dict[Any, Any] = {name: value for name, value in fields.items() if stored.get(name) != value}
                pipe.multi()
                if changed:
                    pipe.hset(self._key, mapping=changed)
                if gone:
                    pipe.hdel(self._key, *gone)
                pipe.expireat(self._key, int(self._clock.time() + KEEP_S))
                pipe.publish(self._channel, self.replica)
                await pipe.execute()
            return routing

    def _lost(self, error: BaseException) -> None:
        if self._connected or not self._tasks:
            log.warning("routing.redis_lost", error=type(error).__name__, detail=str(error)[:200])
        self._connected = False


def _applied(routing: Routing, changes: Iterable[Change]) -> Routing:
    for change in changes:
        routing = change(routing)
    return routing


def _encoded(routing: Routing) -> dict[str, str]:
    entries: dict[str, Force | Preference | Cooldown | Lease | None] = {
        "force": routing.force,
        "preferred": routing.preference,
        **{f"cooldown:{provider}": cooldown for provider, cooldown in routing.cooldowns.items()},
        **{f"probe:{provider}": lease for provider, lease in routing.probes.items()},
    }
    return {name: json.dumps(asdict(entry)) for name, entry in entries.items() if entry is not None}


def _decoded(fields: Mapping[str, str]) -> Routing:
    cooldowns: dict[str, Cooldown] = {}
    probes: dict[str, Lease] = {}
    force: Force | None = None
    preference: Preference | None = None
    for name, value in fields.items():
        try:
            entry: dict[str, Any] = json.loads(value)  # Any: what another replica wrote, checked by the constructors
            match name.partition(":"):
                case ("force", "", ""):
                    force = Force(**entry)
                case ("preferred", "", ""):
                    preference = Preference(**entry)
                case ("cooldown", ":", provider):
                    cooldowns[provider] = Cooldown(**entry)
                case ("probe", ":", provider):
                    probes[provider] = Lease(**entry)
                case _:
                    log.warning("routing.unknown_field", field=name)
        except (TypeError, ValueError) as error:
            log.warning("routing.unreadable_field", field=name, error=type(error).__name__)
    return Routing(force, preference, cooldowns, probes)
