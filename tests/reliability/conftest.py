"""A place to start daemons from, and a PostgreSQL."""

from collections.abc import Iterator

import pytest

from tests.support.databases import postgres, postgres_url
from tests.support.processes.fork_server import ForkServer

__all__ = ["postgres", "postgres_url"]


@pytest.fixture(scope="session")
def nursery() -> Iterator[ForkServer]:
    """Where daemons are forked; its imports are paid once."""
    nursery = ForkServer()
    yield nursery
    nursery.close()
