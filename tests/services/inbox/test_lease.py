"""ReplicaLease and FileLock: the right of a process to act."""

import asyncio
import gc
import subprocess
import sys
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from core.errors import StartupError
from services.inbox.lease import WAIT_S, FileLock, ReplicaLease, boot_time
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


HOLDER = """
import fcntl, sys
with open(sys.argv[1], "ab") as file:
    fcntl.flock(file, fcntl.LOCK_EX)
    print(flush=True)
    sys.stdin.read()
"""


async def test_acquire_times_out_with_a_hint(tmp_path: Path, clock: ManualClock) -> None:
    """The message is one line and names the ways out."""
    first, second = (FileLock(tmp_path / "inbox.lock", clock) for _ in range(2))
    await first.acquire()
    with capture_logs() as logs:
        acquiring = asyncio.create_task(second.acquire())
        await asyncio.sleep(0)
        await clock.advance(WAIT_S - 1)
        assert not acquiring.done()
        await clock.advance(2)
    with pytest.raises(StartupError, match=r"DATA_DIR: another process .* DATABASE_URL=postgresql://") as caught:
        acquiring.result()
    assert "\n" not in str(caught.value)
    assert {entry["event"] for entry in logs} == {"inbox.waiting_for_lock"}
    first.release()


async def test_acquire_waits_for_the_holder(tmp_path: Path, clock: ManualClock) -> None:
    first, second = (FileLock(tmp_path / "inbox.lock", clock) for _ in range(2))
    await first.acquire()
    acquiring = asyncio.create_task(second.acquire())
    await asyncio.sleep(0)
    first.release()
    first.release()
    await clock.advance(1.5)
    await acquiring
    second.release()


async def test_lock_is_released_when_its_holder_is_killed(tmp_path: Path, clock: ManualClock) -> None:
    """The file remains."""
    path = tmp_path / "inbox.lock"
    command = [sys.executable, "-c", HOLDER, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:  # noqa: ASYNC220 - it holds the lock and ends with the test
        assert other.stdout is not None
        await asyncio.to_thread(other.stdout.readline)
        this = FileLock(path, clock)
        acquiring = asyncio.create_task(this.acquire())
        await asyncio.sleep(0)
        assert not acquiring.done()
        other.kill()
        await asyncio.to_thread(other.wait)
    await clock.advance(1.5)
    await acquiring
    this.release()


async def test_cancelled_acquire_closes_the_file(tmp_path: Path, clock: ManualClock) -> None:
    first, second = (FileLock(tmp_path / "inbox.lock", clock) for _ in range(2))
    await first.acquire()
    acquiring = asyncio.create_task(second.acquire())
    await asyncio.sleep(0)
    acquiring.cancel()
    await asyncio.wait([acquiring])
    first.release()
    gc.collect()


async def test_acquire_reports_an_unusable_path(tmp_path: Path, clock: ManualClock) -> None:
    (tmp_path / "inbox.lock").mkdir()
    with pytest.raises(StartupError, match="DATA_DIR: "):
        await FileLock(tmp_path / "inbox.lock", clock).acquire()
