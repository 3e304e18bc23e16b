"""A played stream of a group: who is judged, and that no honest message is touched without a model's word."""

from dataclasses import replace
from datetime import timedelta

from redis.asyncio import Redis

from benchmarks.moderation_stream import MEMBERS, stream
from core.db.database import Database
from core.db.moderation_tables import ModerationMemberRow
from services.moderation.domain.message import Author, AuthorKind
from services.moderation.domain.verdict import Category
from services.moderation.spam_score.scorer import SpamScorer
from tests.support.clock import ManualClock
from tests.support.moderation_harness import (
    GROUP,
    SCAM,
    ModerationHarness,
    RecordingGroup,
    ScriptedJudge,
    judged,
)

LENGTH = 150


async def test_stream_is_mostly_unjudged_and_honest_messages_stay(
    file: Database, shared_redis: Redis, clock: ManualClock
) -> None:
    """The same stream at full length: `python -m benchmarks.moderation_stream --messages 20000`."""
    group, judge = RecordingGroup(), ScriptedJudge()
    harness = ModerationHarness(file, shared_redis, clock, group, judge, SpamScorer(file, clock))
    await harness.groups.put(harness.settings)
    async with file.session() as session:
        long_ago = clock.now() - timedelta(days=60)
        for member_id in range(MEMBERS):
            session.add(ModerationMemberRow(group_id=GROUP, member_id=member_id, first_seen=long_ago, meaningful=50))
    honest: set[int] = set()
    for number, one in enumerate(stream(LENGTH, seed=1), start=1):
        clock.shift(20)
        judge.default = SCAM if one.is_spam else judged(Category.OK, 99)
        if not one.is_spam:
            honest.add(number)
        author = Author(one.author_id, AuthorKind.USER, "Somebody")
        await harness.pipeline.handle(replace(harness.message(one.text, number), author=author), harness.settings)
    deleted = {number for action in group.actions if action[0] == "delete" for number in action[1]}
    assert deleted
    assert deleted.isdisjoint(honest)
    assert judge.request_count <= 0.22 * LENGTH
