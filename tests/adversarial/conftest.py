"""The fork server that starts daemons."""

from collections.abc import Iterator

import pytest

from tests.support.processes.fork_server import ForkServer


@pytest.fixture(scope="session")
def fork_server() -> Iterator[ForkServer]:
    """Forks daemons; imports their modules once per session."""
    server = ForkServer()
    yield server
    server.close()
