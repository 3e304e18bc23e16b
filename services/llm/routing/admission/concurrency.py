"""Concurrency limits: at most `<ID>_MAX_CONCURRENCY` requests in flight at a provider, over all replicas.

A provider without a limit is only counted, in this process. While Redis is unavailable each replica applies the limit
alone (`leases.py`).

Waiting requests queue first in, first out within a replica. The head of the queue polls, and is woken when a request
of the same replica ends, unless another replica has a queue too: that one would never get a slot.

Background requests, such as thread names, stand back: they take a slot only where one is free and no other request
waits, none at a provider of one's own machines that is working on something else, and they are preempted when a
question needs theirs.
"""

import asyncio
import contextlib
import uuid
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import structlog
from redis.asyncio import Redis

from core.clock import Clock, draw_pause_s
from core.config.settings import ProviderSettings
from core.redis.guard import FailFastRedis, RedisPatience
from services.llm.routing.admission.budget_guard import BudgetGuard
from services.llm.routing.admission.leases import LeaseTiming, ProviderLeases
from services.llm.routing.admission.probes import ProbeLeases
from services.llm.routing.admission.request_admission import ProviderGate, Slot
from services.llm.routing.affinity import ProviderAffinity

log = structlog.get_logger()

Preempt = Callable[[], object]
"""Cancels a background request."""


@dataclass(frozen=True, slots=True)
class LimiterTiming(LeaseTiming):
    """Waits and expiries of the concurrency limiter, in seconds.

    Args:
        poll_s: shortest and longest pause between two polls of the head of a queue for a slot that another replica
            released; random, so that all replicas get a chance.
        preempt_s: how long a question waits for a background request to give its slot back.
    """

    poll_s: tuple[float, float] = (0.05, 0.15)
    preempt_s: float = 1.0


@dataclass(eq=False)
class HeldSlot(Slot):
    """A slot of a provider with a limit, or of a background request."""

    limiter: "ConcurrencyLimiter"
    lease: str | None = None
    """Its member in Redis; None where the provider has no limit."""
    renewal: asyncio.TimerHandle | None = None
    preempt: Preempt | None = None
    """Set for a background request."""

    def extend(self) -> None:
        """Renews the lease."""
        self.limiter.renew(self)

    def release(self) -> None:
        """Ends the request. The lease is removed in the background, and the head of the queue is woken after that."""
        super().release()
        self.limiter.forget(self)


@dataclass(slots=True)
class _ProviderQueue:
    """This replica's view of one provider's slots."""

    leases: ProviderLeases
    waiters: deque[asyncio.Event] = field(default_factory=deque[asyncio.Event])
    """First in, first out."""
    background_ended: asyncio.Event = field(default_factory=asyncio.Event)

    def wake(self) -> None:
        """Lets the head of the queue try."""
        if self.waiters:
            self.waiters[0].set()


class ConcurrencyLimiter:
    """Grants slots at all providers.

    Args:
        redis: a client with `decode_responses=True`, its guard, or None where each replica applies the limits alone.
        prefix: prefix of all Redis keys.
    """

    def __init__(
        self, redis: Redis | FailFastRedis | None, prefix: str, clock: Clock, timing: LimiterTiming | None = None
    ) -> None:
        self._redis = redis if isinstance(redis, FailFastRedis) else FailFastRedis(redis, "concurrency")
        self._prefix = f"{prefix}:{{llm}}"
        self._clock = clock
        self._timing = timing or LimiterTiming()
        self._replica = uuid.uuid4().hex[:12]
        self._lease_count = 0
        self._queues: dict[str, _ProviderQueue] = {}
        self.in_flight: Counter[str] = Counter()
        """This replica's requests in flight, by provider."""
        self.background: dict[str, set[HeldSlot]] = {}
        """The slots of background requests, by provider; only of providers that have any."""

    async def take(
        self, provider: ProviderSettings, patience: RedisPatience | None = None, preempt: Preempt | None = None
    ) -> Slot | None:
        """Returns a slot if one is free and no request is queued for it; without a limit one is always free.

        Args:
            provider: provider of the request.
            patience: the request's patience with Redis.
            preempt: cancels the request, which stands back behind all others.
        """
        name, limit = provider.id, provider.max_concurrency
        if preempt is not None and not self._is_idle(provider):
            return None
        if preempt is None and name in self.background and self._is_contended(provider):
            await self._preempt(name, is_awaited=limit is not None)
        slot: HeldSlot | None
        if limit is None:
            slot = HeldSlot(provider, self.in_flight, self)
        else:
            queue = self._queue(name)
            slot = None if queue.waiters else await self._try_take(queue, provider, limit, patience)
        if slot is not None and preempt is not None:
            slot.preempt = preempt
            self.background.setdefault(name, set()).add(slot)
        return slot

    async def wait(self, providers: Sequence[ProviderSettings], patience: RedisPatience | None = None) -> Slot | None:
        """Returns the first slot that becomes free at one of the providers.

        Each is waited for as long as its first output may take; None if none became free.
        """
        loop = asyncio.get_running_loop()
        began = loop.time()
        wakeup = asyncio.Event()
        waiting = {provider.id: provider for provider in providers}
        for name in waiting:
            self._queue(name).waiters.append(wakeup)
        try:
            while waiting:
                wakeup.clear()
                for name, provider in list(waiting.items()):
                    queue = self._queue(name)
                    limit = provider.max_concurrency
                    if queue.waiters[0] is wakeup and limit is not None:
                        slot = await self._try_take(queue, provider, limit, patience)
                        if slot is not None:
                            return slot
                    if loop.time() >= began + _patience_s(provider):
                        del waiting[name]
                        self._leave(queue, wakeup)
                left_s = [began + _patience_s(provider) - loop.time() for provider in waiting.values()]
                if left_s:
                    pause_s = draw_pause_s(*self._timing.poll_s)
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(min(pause_s, *left_s)):
                            await wakeup.wait()
            return None
        finally:
            for name in waiting:
                self._leave(self._queue(name), wakeup)

    def renew(self, slot: HeldSlot) -> None:
        """Renews the lease of a slot, where it has one."""
        if slot.lease is not None:
            self._queue(slot.provider.id).leases.renew(slot.lease, self._lease_s(slot.provider))
            self._schedule_renewal(slot)

    def forget(self, slot: HeldSlot) -> None:
        """Removes the lease of a slot that was released, and wakes the requests that wait for it."""
        name = slot.provider.id
        if slot.preempt is not None:
            self.background[name].discard(slot)
            if not self.background[name]:
                del self.background[name]
            self._queue(name).background_ended.set()
        if slot.renewal is not None:
            slot.renewal.cancel()
        if slot.lease is not None and not self._queue(name).leases.remove(slot.lease):
            self._queue(name).wake()

    async def close(self) -> None:
        """Finishes pending writes, as far as Redis takes them in time."""
        await asyncio.gather(*(queue.leases.close() for queue in self._queues.values()))

    async def _try_take(
        self, queue: _ProviderQueue, provider: ProviderSettings, limit: int, patience: RedisPatience | None
    ) -> HeldSlot | None:
        """Returns a slot if one is free. It is counted before Redis is asked: this replica alone may fill the limit."""
        if self.in_flight[provider.id] >= limit:
            return None
        self._lease_count += 1
        lease = f"{self._replica}:{self._lease_count}"
        slot = HeldSlot(provider, self.in_flight, self, lease)
        is_granted = False
        try:
            is_granted = await queue.leases.acquire(lease, limit, self._lease_s(provider), patience)
        finally:
            if not is_granted:
                self.in_flight[provider.id] -= 1
        if not is_granted:
            return None
        self._schedule_renewal(slot)
        return slot

    async def _preempt(self, provider: str, *, is_awaited: bool) -> None:
        """Cancels the background requests at a provider, and waits until their slots are free."""
        queue = self._queue(provider)
        queue.background_ended.clear()
        for slot in self.background[provider]:
            if slot.preempt is not None:
                slot.preempt()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._timing.preempt_s):
                while is_awaited and provider in self.background:
                    await queue.background_ended.wait()
                    queue.background_ended.clear()

    def _schedule_renewal(self, slot: HeldSlot) -> None:
        """Renews the lease before it expires, for a stream that takes longer than its provider's timeout."""
        if slot.renewal is not None:
            slot.renewal.cancel()
        loop = asyncio.get_running_loop()
        slot.renewal = loop.call_later(slot.provider.timeout_s, self.renew, slot)

    def _leave(self, queue: _ProviderQueue, wakeup: asyncio.Event) -> None:
        queue.waiters.remove(wakeup)
        queue.wake()

    def _queue(self, provider: str) -> _ProviderQueue:
        queue = self._queues.get(provider)
        if queue is None:

            def has_waiters() -> bool:
                return bool(self._queues[provider].waiters)

            def wake() -> None:
                self._queues[provider].wake()

            leases = ProviderLeases(
                self._redis, self._prefix, provider, self._replica, self._clock, self._timing, has_waiters, wake
            )
            queue = self._queues[provider] = _ProviderQueue(leases)
        return queue

    def _lease_s(self, provider: ProviderSettings) -> float:
        return provider.timeout_s + self._timing.lease_margin_s

    def _is_idle(self, provider: ProviderSettings) -> bool:
        """Returns whether a background request delays no other one at a provider.

        A server of one's own may have a single slot that no variable tells of, so it must not be working at all.
        """
        if self._queue(provider.id).waiters:
            return False
        return provider.remote or self.in_flight[provider.id] < (provider.max_concurrency or 1)

    def _is_contended(self, provider: ProviderSettings) -> bool:
        """Returns whether a background request may hold up a question at a provider."""
        limit = provider.max_concurrency
        return not provider.remote if limit is None else self.in_flight[provider.id] >= limit


class LoadShedding:
    """Concurrency limits of the providers, and the providers that users stay with after load shedding.

    Args:
        redis: a client with `decode_responses=True`; None where each replica decides alone.
        prefix: prefix of all Redis keys.
        retry_after_s: time for which Redis is not asked after an error.
    """

    def __init__(self, redis: Redis | None, prefix: str, clock: Clock, retry_after_s: float = 2.0) -> None:
        # One guard: a request that has waited for Redis in the one does not wait again in the other.
        guard = FailFastRedis(redis, "load_shedding", retry_after_s)
        self.limiter = ConcurrencyLimiter(guard, prefix, clock)
        self.affinity = ProviderAffinity(guard, prefix, clock)

    async def close(self) -> None:
        """Finishes pending writes."""
        await self.limiter.close()
        await self.affinity.close()


@dataclass(frozen=True, slots=True)
class SharedLimits:
    """The limits that all requests share.

    Args:
        gates: by provider; made on first use.
        patience_s: how long the queue of a gate may stand still before a request goes on to another candidate.
    """

    limiter: ConcurrencyLimiter
    gates: Mapping[str, ProviderGate]
    probes: ProbeLeases
    patience_s: float
    budgets: BudgetGuard


def _patience_s(provider: ProviderSettings) -> float:
    return min(provider.first_token_timeout_s, provider.timeout_s)
