"""Restarts of PostgreSQL and Redis under load."""

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
async def test_daemons_survive_restarts_of_postgresql_and_redis(
    fork_server: ForkServer, tmp_path: Path, postgres: PostgresServer, postgres_url: str, redis_server: RedisServer
) -> None:
    """Nothing is lost; users only wait."""
    settings = {"DATABASE_URL": postgres_url, "REDIS_URL": redis_server.url}
    async with Fleet(fork_server, tmp_path, **settings) as fleet:
        users = SimulatedUsers(fleet.telegram, fleet.llm, people=15)
        await fleet.start()
        await fleet.start()
        asking = asyncio.create_task(ask_in_waves(users, 8, random.Random(4)))
        await users.wait_for_answers(20)
        await redis_server.stop()
        await users.wait_for_answers(10)
        await redis_server.start()
        await users.wait_for_answers(5)
        await asyncio.to_thread(postgres.stop)
        await asyncio.sleep(1)
        await asyncio.to_thread(postgres.start)
        await asking
        await users.wait_until_answered(timeout_s=90)
        outcome = users.outcome(fleet.recorded_answers())
        print(*outcome.duplicates, sep="\n")
        assert outcome.lost == [], fleet.errors()
        assert [daemon.is_alive for daemon in fleet.daemons] == [True, True]
        assert fleet.unfinished() == 0
