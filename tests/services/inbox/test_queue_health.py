"""Health of the queue: outages pass, repeated errors of a database that answers do not."""

import asyncio
import sqlite3

import psycopg
import pytest
import sqlalchemy as sa
from structlog.testing import capture_logs

from core.errors import InboxError, StorageError
from services.inbox.dbos_queue import Wakeup
from services.inbox.queue_health import FailureStamp, HealthLimits, QueueHealth
from tests.support.clock import ManualClock, settle

REFUSED = sa.exc.IntegrityError("UPDATE", None, sqlite3.IntegrityError("NOT NULL constraint failed: t.c"))
UNREACHABLE = sa.exc.OperationalError("SELECT", None, psycopg.OperationalError("refused"))
LIMITS = HealthLimits(fatal_failures=3, fatal_after_s=4.0, stall_s=30.0)


def locked() -> sa.exc.OperationalError:
    fault = sqlite3.OperationalError("database is locked")
    fault.sqlite_errorcode = sqlite3.SQLITE_BUSY
    return sa.exc.OperationalError("UPDATE", None, fault)


@pytest.fixture
def health(clock: ManualClock) -> QueueHealth:
    return QueueHealth(LIMITS, clock.monotonic)


def poll(health: QueueHealth, *errors: BaseException) -> None:
    for error in errors:
        health.record_poll_error(error)
    Wakeup(health).wait(0)


def test_health_ignores_one_failed_poll(health: QueueHealth) -> None:
    poll(health, REFUSED)
    assert (health.problem, health.fatal_problem) == (None, None)


def test_health_reports_repeated_failures_and_their_end(health: QueueHealth) -> None:
    with capture_logs() as logs:
        poll(health, REFUSED)
        poll(health, REFUSED)
        reason = "the database failed: it refused the statement (IntegrityError)"
        assert health.problem == f"poll failed 2 times in a row: {reason}"
        poll(health)
    assert health.problem is None
    assert [entry["event"] for entry in logs] == ["inbox.queue_failing", "inbox.queue_recovered"]


def test_health_counts_a_poll_with_several_errors_once(health: QueueHealth) -> None:
    poll(health, REFUSED, REFUSED, REFUSED)
    assert health.problem is None


@pytest.mark.parametrize(
    "error",
    [
        REFUSED,
        # A bug of the library or of ours.
        KeyError("x"),
        # The database answered one more query before the cause was known.
        pytest.param(StorageError("refused"), id="translated"),
    ],
    ids=type,
)
def test_health_gives_up_on_an_error_that_repeats(health: QueueHealth, clock: ManualClock, error: Exception) -> None:
    if isinstance(error, StorageError):
        error.__cause__ = REFUSED
    for _ in range(3):
        poll(health, error)
    assert health.fatal_problem is None, "a burst of polls is no proof"
    clock.shift(4)
    assert health.fatal_problem is not None
    assert health.fatal_problem.startswith("poll failed 3 times in a row")


@pytest.mark.parametrize("error", [UNREACHABLE, locked(), sa.exc.TimeoutError()], ids=["unreachable", "locked", "busy"])
def test_health_never_gives_up_in_an_outage(health: QueueHealth, clock: ManualClock, error: Exception) -> None:
    for _ in range(1000):
        poll(health, error)
        clock.shift(1)
    assert health.problem is not None
    assert health.fatal_problem is None


def test_health_starts_again_after_an_outage(health: QueueHealth, clock: ManualClock) -> None:
    for error in (REFUSED, REFUSED, UNREACHABLE, REFUSED, REFUSED):
        poll(health, error)
        clock.shift(4)
    assert health.fatal_problem is None


def test_health_counts_operations_apart(health: QueueHealth) -> None:
    for _ in range(2):
        poll(health)
        health.record_failure("outcome", UNREACHABLE)
    assert health.problem is not None
    assert health.problem.startswith("outcome failed 2 times")
    health.record_success("outcome")
    assert health.problem is None


def test_health_reports_a_worker_that_stands_still(health: QueueHealth, clock: ManualClock) -> None:
    poll(health)
    clock.shift(31)
    assert (health.problem, health.fatal_problem) == ("no poll was completed within 30 s", None)


async def test_watch_raises_one_line_without_stored_data(health: QueueHealth, clock: ManualClock) -> None:
    quoting = sa.exc.IntegrityError("UPDATE", None, sqlite3.IntegrityError("a secret text\nof a user"))
    for _ in range(3):
        poll(health, quoting)
    clock.shift(4)
    with pytest.raises(InboxError) as caught:
        await health.watch(clock)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


async def test_watch_raises_when_the_worker_has_ended(health: QueueHealth, clock: ManualClock) -> None:
    health.end_worker("its worker ended: MemoryError")
    with pytest.raises(InboxError, match="its worker ended: MemoryError"):
        await health.watch(clock)


async def test_watch_notices_failures_that_another_thread_reports_later(
    health: QueueHealth, clock: ManualClock
) -> None:
    watching = asyncio.create_task(health.watch(clock))
    await settle()
    for _ in range(3):
        await asyncio.to_thread(poll, health, REFUSED)
    await settle()
    await clock.advance(4)
    with pytest.raises(InboxError, match="poll failed 3 times in a row"):
        await watching


def test_failure_stamp_is_due_once_in_its_pause(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("data") / "inbox.failure"
    stamp = FailureStamp(path, pause_s=60)
    assert stamp.is_due(1000)
    stamp.write(1000)
    assert [stamp.is_due(now) for now in (1000, 1059, 1060, 900)] == [False, False, True, True]
    assert path.stat().st_mode & 0o777 == 0o600
