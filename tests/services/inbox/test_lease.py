"""ReplicaLease: held for ever without replicas, otherwise until an instant of the own clock."""

import asyncio

from services.inbox.lease import ReplicaLease, boot_time
from tests.support.clock import ManualClock, settle


def test_lease_is_held_without_replicas() -> None:
    assert ReplicaLease(lambda: 1e12).is_held


def test_lease_lapses_unless_it_is_renewed(clock: ManualClock) -> None:
    lease = ReplicaLease(clock.monotonic)
    lease.require()
    assert not lease.is_held
    lease.renew(clock.monotonic() + 5)
    assert lease.is_held
    clock.shift(5)
    assert not lease.is_held


async def test_callers_wait_for_the_renewal(clock: ManualClock) -> None:
    lease = ReplicaLease(clock.monotonic)
    lease.require()
    waiting = [asyncio.create_task(lease.wait_until_held()) for _ in range(3)]
    await settle()
    # A renewal that came too late.
    lease.renew(clock.monotonic())
    await settle()
    assert not any(task.done() for task in waiting)
    lease.renew(clock.monotonic() + 1)
    await asyncio.wait(waiting, timeout=5)
    assert all(task.done() for task in waiting)
    await lease.wait_until_held()


async def test_callers_wait_for_ever_after_a_takeover(clock: ManualClock) -> None:
    lease = ReplicaLease(clock.monotonic)
    lease.renew(clock.monotonic() + 5)
    lease.revoke()
    waiting = asyncio.create_task(lease.wait_until_held())
    await settle()
    assert not waiting.done()
    waiting.cancel()


def test_boot_time_never_steps_back() -> None:
    assert boot_time() <= boot_time()
