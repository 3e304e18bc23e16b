"""What a chat chose: its provider and model, whether answers carry a footer, whether remote providers may serve it.

Nothing is cached: a read is one look at a primary key, and another replica may have written a moment ago.
"""

from dataclasses import dataclass

from core.clock import Clock
from core.db.database import Database
from core.db.tables import PreferenceRow


@dataclass(frozen=True, slots=True)
class ChatPreferences:
    """The choices of a chat; None where it made none."""

    provider: str | None = None
    model: str | None = None
    footers: bool | None = None
    remote_consent: bool | None = None
    """Whether messages may go to providers that are not on the operator's own machines."""


class PreferenceStore:
    """The choices of all chats. Each method raises StorageError where the database fails."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def get(self, scope: str) -> ChatPreferences:
        """What this chat chose."""
        async with self._database.reading() as session:
            row = await session.get(PreferenceRow, scope)
        return (
            ChatPreferences()
            if row is None
            else ChatPreferences(row.provider, row.model, row.footers, row.remote_consent)
        )

    async def set_model(self, scope: str, provider: str, model: str) -> None:
        """Answer this chat with this model first."""
        await self._put(scope, provider=provider, model=model)

    async def clear_model(self, scope: str) -> None:
        """Go back to the order of the configuration."""
        await self._put(scope, provider=None, model=None)

    async def set_footers(self, scope: str, *, shown: bool) -> None:
        """Show under each answer who gave it, or do not."""
        await self._put(scope, footers=shown)

    async def set_remote_consent(self, scope: str, *, granted: bool) -> None:
        """Let the messages of this chat go to remote providers, or do not."""
        await self._put(scope, remote_consent=granted)

    async def _put(self, scope: str, **choices: str | bool | None) -> None:
        values = {**choices, "updated_at": self._clock.now()}
        statement = self._database.insert(PreferenceRow).values(scope=scope, **values)
        async with self._database.session() as session:
            await session.execute(statement.on_conflict_do_update(index_elements=["scope"], set_=values))
