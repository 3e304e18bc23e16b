"""A daemon under attack."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.adversarial.attack import Attack
from tests.support.processes.fork_server import ForkServer


@pytest.fixture
async def attack(fork_server: ForkServer, tmp_path: Path) -> AsyncIterator[Attack]:
    """A daemon with default settings that serves, and bystanders who have been answered."""
    async with Attack(fork_server, tmp_path) as attack:
        await attack.start()
        yield attack
