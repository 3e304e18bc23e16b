"""Languages that people and groups chose by `/language`, over all surfaces.

They are few and needed for every message, so all of them stand in memory; changes of other replicas follow within
seconds.
"""

from datetime import datetime, timedelta

import structlog
from sqlalchemy import select

from core.clock import Clock
from core.db.database import Database
from core.db.tables import LanguageRow
from core.errors import StorageError
from core.messages import ChatRef, UserRef

log = structlog.get_logger()

FOLLOW_S = 3.0
"""Pause between two looks at the changes of other replicas."""
FULL_LOOKS = 200
"""Looks after which everything is read again."""
OVERLAP = timedelta(seconds=30)
"""Changes that are this old are read again: clocks of replicas differ, and transactions take time."""


class Languages:
    """The chosen languages by person and chat, such as `telegram:7`.

    Args:
        follow_s: pause between two looks at the changes of other replicas.
    """

    def __init__(self, database: Database, clock: Clock, follow_s: float = FOLLOW_S) -> None:
        self._database = database
        self._clock = clock
        self._follow_s = follow_s
        self._chosen: dict[str, str] = {}
        self._seen: datetime | None = None

    async def load(self) -> None:
        """Reads all choices, and from the second call on those that changed.

        Raises:
            StorageError: the database fails.
        """
        query = select(LanguageRow.owner, LanguageRow.language, LanguageRow.updated_at)
        if self._seen is not None:
            query = query.where(LanguageRow.updated_at >= self._seen - OVERLAP)
        rows = await self._database.run(lambda connection: connection.execute(query).all(), reading=True)
        for owner, language, updated_at in rows:
            self._note(owner, language)
            self._seen = updated_at if self._seen is None else max(self._seen, updated_at)

    async def run(self) -> None:
        """Follows the changes of other replicas until cancelled; returns at once where there are none."""
        looks = 0
        while not self._database.is_embedded:
            await self._clock.sleep(self._follow_s)
            looks += 1
            if looks % FULL_LOOKS == 0:
                # Rows deleted by /forget do not show among the changes.
                self._chosen, self._seen = {}, None
            try:
                await self.load()
            except StorageError as error:
                log.warning("languages.not_followed", error=str(error))

    def of(self, user: UserRef | ChatRef, chat: ChatRef | None = None) -> str | None:
        """Returns the language of a person, or of the group in which they write; None: as their client says."""
        return (self._chosen.get(chat) if chat is not None else None) or self._chosen.get(user)

    async def choose(self, owner: UserRef | ChatRef, language: str | None) -> None:
        """Stores the language of a person or a chat; None: as the client says.

        Raises:
            StorageError: the database fails.
        """
        values = {"language": language, "updated_at": self._clock.now()}
        insert = self._database.insert(LanguageRow).values(owner=owner, **values)
        change = insert.on_conflict_do_update(index_elements=["owner"], set_=values)
        await self._database.run(lambda connection: connection.execute(change) and None)
        self._note(owner, language)

    def forget(self, owner: UserRef) -> None:
        """Drops the choice of a person from memory; its row is erased with the person."""
        self._chosen.pop(owner, None)

    def _note(self, owner: str, language: str | None) -> None:
        if language is None:
            self._chosen.pop(owner, None)
        else:
            self._chosen[owner] = language
