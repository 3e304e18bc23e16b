"""PostgreSQL and Redis are restarted in the middle of everything."""

import asyncio
import random
from pathlib import Path

import pytest

from tests.support.processes.fleet import Fleet
from tests.support.processes.fork_server import ForkServer
from tests.support.processes.load import SimulatedUsers, ask_in_waves
from tests.support.processes.postgres_server import PostgresServer
from tests.support.processes.redis_server import RedisServer


@pytest.mark.timeout(240)
async def test_postgresql_and_redis_restarted_in_the_middle(
    nursery: ForkServer, tmp_path: Path, postgres: PostgresServer, postgres_url: str, redis_server: RedisServer
) -> None:
    """Nothing is lost, and nobody notices but by waiting."""
    settings = {"DATABASE_URL": postgres_url, "REDIS_URL": redis_server.url}
    async with Fleet(nursery, tmp_path, **settings) as fleet:
        crowd = SimulatedUsers(fleet.telegram, fleet.llm, people=15)
        await fleet.start()
        await fleet.start()
        asking = asyncio.create_task(ask_in_waves(crowd, 8, random.Random(4)))  # noqa: S311 - chance, no secret
        await crowd.some_answered(20)
        await redis_server.stop()
        await crowd.some_answered(10)
        await redis_server.start()
        await crowd.some_answered(5)
        await asyncio.to_thread(postgres.stop)
        await asyncio.sleep(1)
        await asyncio.to_thread(postgres.start)
        await asking
        await crowd.all_answered(timeout_s=90)
        outcome = crowd.outcome(fleet.noted())
        print(*outcome.duplicates, sep="\n")  # noqa: T201 - for who reads a failure
        assert outcome.lost == [], fleet.tell()
        assert [daemon.is_alive for daemon in fleet.daemons] == [True, True]
        assert fleet.unfinished() == 0
