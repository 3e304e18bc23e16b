"""200 concurrent requests at two replicas on one real Redis, while the providers fail and recover at random."""

import pytest

from tests.support.flapping import FlappingPlan, run_flapping
from tests.support.processes.redis_server import RedisServer

pytestmark = pytest.mark.integration


async def test_requests_over_flapping_providers_are_answered(redis_server: RedisServer) -> None:
    """While one is healthy each request is answered, by one provider only, and no lease is left in Redis."""
    plan = FlappingPlan(seconds=2.5, change_s=(0.02, 0.15))
    report = await run_flapping(plan, redis_server.url)

    assert (report.unanswered, report.glued, report.leases) == ([], [], [])
    assert report.ended >= plan.requests
    assert report.most_leases > 1
    assert report.answered.total() > plan.requests / 2
    assert len(report.answered) > 1
    assert report.failures.total() > 0
