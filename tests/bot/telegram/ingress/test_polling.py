"""Polling: each update once, in order, through everything that Telegram answers."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from structlog.testing import capture_logs

from bot.telegram.ingress.polling import CONFLICT_PATIENCE_S, LONGEST_PAUSE_S, UPDATE_TYPES, Poller
from core.errors import StartupError, StorageError
from tests.support.clock import ManualClock, settle
from tests.support.fake_telegram.server import TelegramServer
from tests.support.fake_telegram.traffic import Traffic


class Intake:
    """A poller at work, and what it took in."""

    def __init__(self, traffic: Traffic, clock: ManualClock) -> None:
        self.taken: list[str] = []
        self.failures = 0
        """How many batches the database does not take."""
        self.poller = Poller(traffic.bot, clock, self.take)
        self.task = asyncio.create_task(self.poller.run())

    async def take(self, batch: Sequence[dict[str, Any]]) -> None:
        if self.failures:
            self.failures -= 1
            raise StorageError("the database failed: locked")
        self.taken += [raw["message"]["text"] for raw in batch if "text" in raw.get("message", {})]


@pytest.fixture
async def intake(traffic: Traffic, clock: ManualClock) -> AsyncIterator[Intake]:
    """Polls until the test ends."""
    intake = Intake(traffic, clock)
    yield intake
    intake.task.cancel()
    await asyncio.wait([intake.task])


async def polls(server: TelegramServer, count: int) -> None:
    """Wait for so many polls that have been answered."""
    await server.wait_for(lambda: len(server.calls_of("getUpdates")) >= count)


async def test_updates_come_once_and_in_order(server: TelegramServer, intake: Intake) -> None:
    for text in ("one", "two"):
        server.user_says(text)
    await server.wait_for(lambda: intake.taken == ["one", "two"])
    server.user_says("three")
    await server.wait_for(lambda: intake.taken == ["one", "two", "three"])
    await server.wait_for(lambda: not server.pending)


async def test_only_what_is_used_is_asked_for(server: TelegramServer, intake: Intake) -> None:
    server.user_says("one")
    await polls(server, 1)
    params = server.calls_of("getUpdates")[0].params
    assert all(f'"{kind}"' in params["allowed_updates"] for kind in UPDATE_TYPES)
    assert params["timeout"] == "30"


async def test_a_batch_is_confirmed_when_it_is_stored_and_not_before(
    server: TelegramServer, intake: Intake, clock: ManualClock
) -> None:
    """What the database does not take comes again, after 1, 2 and 4 seconds, and nothing is lost or overtaken."""
    intake.failures = 3
    with capture_logs() as logs:
        server.user_says("one")
        for number in range(1, 4):
            await server.wait_for(lambda number=number: len(logs) == number)
            await settle()
            assert [each["update_id"] for each in server.pending]
            server.user_says(f"more {number}")
            await clock.advance(logs[-1]["pause_s"])
        await server.wait_for(lambda: intake.taken == ["one", "more 1", "more 2", "more 3"])
        await server.wait_for(lambda: not server.pending)
    assert [(entry["event"], entry["pause_s"]) for entry in logs] == [("intake.not_stored", s) for s in (1, 2, 4)]


async def test_an_update_without_a_number_is_passed_over(
    server: TelegramServer, intake: Intake, clock: ManualClock
) -> None:
    server.garble("getUpdates", body='{"ok": true, "result": [{"message": {}}]}')
    server.user_says("one")
    await server.wait_for(lambda: intake.taken == ["one"])


async def test_a_server_that_does_not_hold_the_poll_is_not_hammered(
    server: TelegramServer, intake: Intake, clock: ManualClock
) -> None:
    server.garble("getUpdates", 5, body='{"ok": true, "result": []}')
    server.user_says("one")
    for count in range(1, 6):
        await polls(server, count)
        assert len(server.calls_of("getUpdates")) == count
        await clock.advance(1)
    await server.wait_for(lambda: intake.taken == ["one"])


async def test_faults_are_waited_out_longer_and_longer(
    server: TelegramServer, clock: ManualClock, intake: Intake
) -> None:
    """1, 2, 4 ... seconds, at most half a minute; and then it goes on as if nothing had been."""
    with capture_logs() as logs:
        server.fail("getUpdates", 7, status=502, description="Bad Gateway")
        server.user_says("one")
        for number in range(1, 8):
            await server.wait_for(lambda number=number: len(logs) == number)
            await settle()
            await clock.advance(logs[-1]["pause_s"] - 0.1)
            assert len(server.calls_of("getUpdates")) == number
            await clock.advance(0.1)
        await server.wait_for(lambda: intake.taken == ["one"])
    assert [entry.get("pause_s") for entry in logs] == [1, 2, 4, 8, 16, LONGEST_PAUSE_S, LONGEST_PAUSE_S, None]
    assert logs[-1]["event"] == "intake.recovered"


async def test_telegram_says_how_long_to_wait(server: TelegramServer, clock: ManualClock, intake: Intake) -> None:
    server.fail("getUpdates", 1, status=429, description="Too Many Requests: retry after 7", retry_after=7)
    server.user_says("one")
    await polls(server, 1)
    await server.wait_for(lambda: clock._sleepers)
    await clock.advance(6.9)
    assert len(server.calls_of("getUpdates")) == 1
    await clock.advance(0.1)
    await server.wait_for(lambda: intake.taken == ["one"])


async def test_a_second_poller_is_waited_for_a_minute(
    server: TelegramServer, traffic: Traffic, clock: ManualClock, intake: Intake
) -> None:
    """Loudly; whoever started both is told then what to do."""
    with capture_logs() as logs:
        server.second_poller(1000)
        started = clock.monotonic()
        while not intake.task.done():
            await traffic.pass_time(5, step=5)
            assert clock.monotonic() - started < CONFLICT_PATIENCE_S + 20
    assert clock.monotonic() - started > CONFLICT_PATIENCE_S
    assert {(entry["event"], entry["log_level"]) for entry in logs} == {("intake.conflict", "error")}
    with pytest.raises(StartupError, match="another process polls with this token"):
        intake.task.result()


async def test_a_token_that_is_revoked_ends_it(server: TelegramServer, intake: Intake) -> None:
    server.fail("getUpdates", status=401, description="Unauthorized")
    with pytest.raises(StartupError, match="does not accept this token any more"):
        await asyncio.wait_for(intake.task, 5)
