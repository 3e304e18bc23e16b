"""Poller: each update once and in order, through every failure of Telegram."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from structlog.testing import capture_logs

from bot.telegram.api.updates import UPDATE_TYPES
from bot.telegram.ingress.polling import Poller, PollingTiming
from core.errors import StartupError, StorageError
from tests.support.clock import ManualClock, settle
from tests.support.fake_telegram.server import TelegramServer
from tests.support.fake_telegram.traffic import Traffic

pytestmark = pytest.mark.integration

TIMING = PollingTiming()


class RunningPoller:
    """A poller that runs, and the texts of the updates it stored."""

    def __init__(self, traffic: Traffic, clock: ManualClock) -> None:
        self.taken: list[str] = []
        self.failures = 0
        """Number of the next batches that fail to be stored."""
        self.failure: Exception = StorageError("the database failed: locked")
        self.poller = Poller(traffic.bot, clock, self.take)
        self.task = asyncio.create_task(self.poller.run())

    async def take(self, batch: Sequence[dict[str, Any]]) -> None:
        if self.failures:
            self.failures -= 1
            raise self.failure
        self.taken += [raw["message"]["text"] for raw in batch if "text" in raw.get("message", {})]


@pytest.fixture
async def poller(traffic: Traffic, clock: ManualClock) -> AsyncIterator[RunningPoller]:
    """A poller that runs until the test ends."""
    poller = RunningPoller(traffic, clock)
    yield poller
    poller.task.cancel()
    await asyncio.wait([poller.task])


async def polls(server: TelegramServer, count: int) -> None:
    """Waits for that many answered polls."""
    await server.wait_for(lambda: len(server.calls_of("getUpdates")) >= count)


async def test_poller_delivers_updates_once_and_in_order(server: TelegramServer, poller: RunningPoller) -> None:
    for text in ("one", "two"):
        server.user_says(text)
    await server.wait_for(lambda: poller.taken == ["one", "two"])
    server.user_says("three")
    await server.wait_for(lambda: poller.taken == ["one", "two", "three"])
    await server.wait_for(lambda: not server.pending)


async def test_poller_requests_only_the_update_types_that_are_handled(
    server: TelegramServer, poller: RunningPoller
) -> None:
    server.user_says("one")
    await polls(server, 1)
    params = server.calls_of("getUpdates")[0].params
    assert all(f'"{kind}"' in params["allowed_updates"] for kind in UPDATE_TYPES)
    assert params["timeout"] == "30"


async def test_a_batch_is_confirmed_only_once_it_is_stored(
    server: TelegramServer, poller: RunningPoller, clock: ManualClock
) -> None:
    """A batch that cannot be stored comes again after 1, 2 and 4 s; no update is lost or reordered."""
    poller.failures = 3
    with capture_logs() as logs:
        server.user_says("one")
        for number in range(1, 4):
            await server.wait_for(lambda number=number: len(logs) == number)
            await settle()
            assert [each["update_id"] for each in server.pending]
            server.user_says(f"more {number}")
            await clock.advance(logs[-1]["pause_s"])
        await server.wait_for(lambda: poller.taken == ["one", "more 1", "more 2", "more 3"])
        await server.wait_for(lambda: not server.pending)
    assert [(entry["event"], entry["pause_s"]) for entry in logs] == [("polling.store_failed", s) for s in (1, 2, 4)]


async def test_an_update_without_an_id_is_skipped(
    server: TelegramServer, poller: RunningPoller, clock: ManualClock
) -> None:
    server.garble("getUpdates", body='{"ok": true, "result": [{"message": {}}]}')
    server.user_says("one")
    await server.wait_for(lambda: poller.taken == ["one"])


@pytest.mark.parametrize(
    "body",
    [
        '{"ok": true, "result": null}',
        '{"ok": true, "result": "nothing"}',
        '{"ok": true, "result": {"update_id": 1}}',
        '{"ok": true, "result": 7}',
        '{"ok": true}',
        '{"ok": false}',
        '{"ok": false, "description": null, "parameters": {"retry_after": "soon"}}',
        '{"ok": false, "description": "x", "parameters": {"retry_after": -5}}',
        "null",
        "[]",
        "",
        "<html>oops</html>",
        "[" * 100_000,
        '{"ok": true, "result": ' + "9" * 5000 + "}",
    ],
)
async def test_an_answer_without_updates_does_not_end_the_poll(
    server: TelegramServer, poller: RunningPoller, clock: ManualClock, body: str
) -> None:
    server.garble("getUpdates", 2, body=body)
    server.user_says("one")
    for count, pause_s in ((1, 1), (2, 2)):
        await polls(server, count)
        await server.wait_for(lambda: clock._sleepers)
        await clock.advance(pause_s)
    await server.wait_for(lambda: poller.taken == ["one"])
    assert not poller.task.done()


@pytest.mark.parametrize("junk", ["null", '"text"', "7", "[]", '{"update_id": ' + "9" * 5000 + "}"])
async def test_junk_beside_an_update_is_skipped(server: TelegramServer, poller: RunningPoller, junk: str) -> None:
    message = '{"update_id": 101, "message": {"text": "one"}}'
    server.garble("getUpdates", body=f'{{"ok": true, "result": [{junk}, {message}, {junk}]}}')
    server.user_says("two")
    await server.wait_for(lambda: poller.taken[:1] == ["one"])


async def test_polls_that_bring_only_junk_back_off(
    server: TelegramServer, poller: RunningPoller, clock: ManualClock
) -> None:
    """The server would answer the same at once, for ever."""
    server.garble("getUpdates", 4, body='{"ok": true, "result": [null, {"message": {}}]}')
    server.user_says("one")
    for count, pause_s in ((2, 1), (3, 2), (4, 4)):
        await polls(server, count)
        await server.wait_for(lambda: clock._sleepers)
        await clock.advance(pause_s - 0.1)
        assert len(server.calls_of("getUpdates")) == count
        await clock.advance(0.1)
    await server.wait_for(lambda: poller.taken == ["one"])


async def test_a_bug_in_storing_a_batch_does_not_end_the_poll(
    server: TelegramServer, poller: RunningPoller, clock: ManualClock
) -> None:
    poller.failures, poller.failure = 2, TypeError("a bug")
    with capture_logs() as logs:
        server.user_says("one")
        for number in (1, 2):
            await server.wait_for(lambda number=number: len(logs) == number)
            await settle()
            await clock.advance(logs[-1]["pause_s"])
        await server.wait_for(lambda: poller.taken == ["one"])
    assert [(entry["event"], entry["pause_s"]) for entry in logs] == [("polling.store_crashed", s) for s in (1, 2)]


async def test_a_server_that_does_not_hold_polls_open_is_polled_once_a_second(
    server: TelegramServer, poller: RunningPoller, clock: ManualClock
) -> None:
    server.garble("getUpdates", 5, body='{"ok": true, "result": []}')
    server.user_says("one")
    for count in range(1, 6):
        await polls(server, count)
        assert len(server.calls_of("getUpdates")) == count
        await clock.advance(1)
    await server.wait_for(lambda: poller.taken == ["one"])


async def test_failed_polls_back_off(server: TelegramServer, clock: ManualClock, poller: RunningPoller) -> None:
    """1, 2, 4 ... seconds, at most 30; then polling recovers."""
    with capture_logs() as logs:
        server.fail("getUpdates", 7, status=502, description="Bad Gateway")
        server.user_says("one")
        for number in range(1, 8):
            await server.wait_for(lambda number=number: len(logs) == number)
            await settle()
            await clock.advance(logs[-1]["pause_s"] - 0.1)
            assert len(server.calls_of("getUpdates")) == number
            await clock.advance(0.1)
        await server.wait_for(lambda: poller.taken == ["one"])
    assert [entry.get("pause_s") for entry in logs] == [
        1,
        2,
        4,
        8,
        16,
        TIMING.backoff.longest_s,
        TIMING.backoff.longest_s,
        None,
    ]
    assert logs[-1]["event"] == "polling.recovered"


async def test_a_rate_limit_is_waited_out(server: TelegramServer, clock: ManualClock, poller: RunningPoller) -> None:
    server.fail("getUpdates", 1, status=429, description="Too Many Requests: retry after 7", retry_after=7)
    server.user_says("one")
    await polls(server, 1)
    await server.wait_for(lambda: clock._sleepers)
    await clock.advance(6.9)
    assert len(server.calls_of("getUpdates")) == 1
    await clock.advance(0.1)
    await server.wait_for(lambda: poller.taken == ["one"])


async def test_a_second_poller_is_fatal_after_a_minute(
    server: TelegramServer, traffic: Traffic, clock: ManualClock, poller: RunningPoller
) -> None:
    """Each conflict is logged as an error; the final error names the remedy."""
    with capture_logs() as logs:
        server.second_poller(1000)
        started = clock.monotonic()
        while not poller.task.done():
            await traffic.pass_time(5, step=5)
            assert clock.monotonic() - started < TIMING.conflict_limit_s + 20
    assert clock.monotonic() - started > TIMING.conflict_limit_s
    assert {(entry["event"], entry["log_level"]) for entry in logs} == {("polling.conflict", "error")}
    with pytest.raises(StartupError, match="another process polls with this token"):
        poller.task.result()


async def test_a_revoked_token_is_fatal(server: TelegramServer, poller: RunningPoller) -> None:
    server.fail("getUpdates", status=401, description="Unauthorized")
    with pytest.raises(StartupError, match="does not accept this token any more"):
        await asyncio.wait_for(poller.task, 5)
