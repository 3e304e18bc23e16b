"""Replicas of moderation that share a database, a Redis and a group."""

import pytest
from redis.asyncio import Redis

from core.db.database import Database
from core.redis.client import open_redis
from tests.support.clock import ManualClock
from tests.support.moderation_harness import (
    ModerationHarness,
    RecordingGroup,
    ScriptedJudge,
)


@pytest.fixture
async def shared_redis() -> Redis:
    return open_redis(None)


@pytest.fixture
async def harness(database: Database, shared_redis: Redis, clock: ManualClock) -> ModerationHarness:
    harness = ModerationHarness(database, shared_redis, clock, RecordingGroup(), ScriptedJudge())
    await harness.groups.change(harness.settings)
    return harness


@pytest.fixture
async def other(
    harness: ModerationHarness, replica: Database, shared_redis: Redis, clock: ManualClock
) -> ModerationHarness:
    """A second replica of the same group, with the same judge."""
    return ModerationHarness(replica, shared_redis, clock, harness.group, harness.judge)
