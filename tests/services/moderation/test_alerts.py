"""Alerts to admins: once over replicas, with a growing pause."""

import pytest
from redis.asyncio import Redis

from services.moderation.domain.ports import ActionResult
from tests.support.clock import ManualClock
from tests.support.moderation_harness import (
    ModerationHarness,
)

pytestmark = pytest.mark.integration


async def test_alerts_repeat_missing_right_with_growing_pause(
    harness: ModerationHarness, other: ModerationHarness, clock: ManualClock
) -> None:
    """By one replica each time."""
    days: list[int] = []
    for hour in range(24 * 30):
        before = len(harness.group.alerts)
        for each in (harness, other):
            await each.alerts.report_right(each.settings, "delete", ActionResult.NO_RIGHT)
        days += [hour // 24] * (len(harness.group.alerts) - before)
        clock.shift(3600)
    assert days == [0, 1, 3, 7, 14, 21, 28]
    assert set(harness.group.alerts) == {"moderation-no-right-delete"}
    await other.alerts.report_right(other.settings, "delete", ActionResult.DONE)
    # The other replica remembers the pause until it is over.
    await other.alerts.report_right(other.settings, "delete", ActionResult.NO_RIGHT)
    assert len(harness.group.alerts) == len(days) + 1


async def test_alerts_keep_their_redis_format(
    harness: ModerationHarness, shared_redis: Redis, clock: ManualClock
) -> None:
    """Replicas of another version read the same keys and fields."""
    await harness.alerts.report_outage(harness.settings)
    stored = await shared_redis.hgetall("t:mod:{-100}:told:outage")
    assert (float(stored["until"]), stored["told"]) == (clock.time() + 3600, "1")
