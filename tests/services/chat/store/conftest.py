"""Fixtures of the conversation store."""

import pytest

from core.db.database import Database
from services.chat.store.turns import TurnStore
from tests.support.clock import ManualClock


@pytest.fixture
def turns(database: Database, clock: ManualClock) -> TurnStore:
    """The store, on each kind of database."""
    return TurnStore(database, clock)
