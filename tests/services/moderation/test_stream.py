"""A played stream of a group: who is judged, and that no honest message is touched without a model's word."""

import pytest
from redis.asyncio import Redis

from benchmarks.moderation_stream import establish_members, play, stream
from core.db.database import Database
from services.moderation.spam_score.scorer import SpamScorer
from tests.support.clock import ManualClock
from tests.support.moderation_harness import ModerationHarness, RecordingGroup, ScriptedJudge

pytestmark = pytest.mark.integration

LENGTH = 150


@pytest.mark.parametrize(("talk", "judged_at_most"), [("starter", 0.22), ("everyday", 0.22)])
async def test_stream_is_mostly_unjudged_and_honest_messages_stay(
    file: Database, shared_redis: Redis, clock: ManualClock, talk: str, judged_at_most: float
) -> None:
    """The same stream at full length: `python -m benchmarks.moderation_stream --messages 20000`."""
    harness = ModerationHarness(file, shared_redis, clock, RecordingGroup(), ScriptedJudge(), SpamScorer(file, clock))
    await harness.groups.change(harness.settings)
    await establish_members(file, clock)
    played = await play(harness, clock, stream(LENGTH, seed=1, talk=talk))
    assert played.deleted > 0
    assert played.touched == 0
    assert sum(played.asked.values()) <= judged_at_most * LENGTH
