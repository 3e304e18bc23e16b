"""People and chats that the bot does not answer, by the decision of an operator; a ban outlasts /forget."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import structlog
from sqlalchemy import delete, func, select

from core.clock import Clock
from core.db.database import Database
from core.db.operator_tables import BanRow
from core.errors import StorageError
from services.admin.audit import Audit
from services.pseudonyms import Pseudonyms

log = structlog.get_logger()

MAX_REASON = 200
"""Characters of a reason; longer ones are cut."""


@dataclass(frozen=True, slots=True)
class BanTiming:
    """Waits of the bans, in seconds.

    Args:
        poll_s: interval at which a process looks for the bans of others.
    """

    poll_s: float = 5.0


@dataclass(frozen=True, slots=True)
class Ban:
    """A ban.

    Args:
        label: the id of the person; None once they had their data erased.
        banned_by: the operator, a Telegram user id; 0 for one who signed in by WEB_TOKEN.
    """

    label: str | None
    reason: str | None
    banned_by: int
    banned_at: datetime


@dataclass(frozen=True, slots=True)
class BanAct:
    """Result of a ban, or of lifting one.

    Args:
        is_changed: False if it was so already.
        is_audited: whether the audit log has it.
    """

    is_changed: bool
    is_audited: bool = True


class Bans:
    """Stores bans. A copy in memory answers look-ups; the bans of other processes arrive within `poll_s`."""

    def __init__(
        self, database: Database, clock: Clock, audit: Audit, pseudonyms: Pseudonyms, timing: BanTiming | None = None
    ) -> None:
        self._database = database
        self._clock = clock
        self._audit = audit
        self._pseudonyms = pseudonyms
        self._timing = timing or BanTiming()
        self._banned: frozenset[str] = frozenset()
        self.is_empty = True
        """True if no one is banned, as far as this process knows."""
        self._version: tuple[int, datetime | None] = (0, None)

    def is_banned(self, *references: str) -> bool:
        """Returns whether any of these people and chats, such as `telegram:123`, is banned."""
        return any(self._pseudonyms.of(reference) in self._banned for reference in references)

    async def refresh(self) -> None:
        """Reads the bans if there is a change.

        Raises:
            StorageError: the database fails.
        """
        # One hop to the database while nothing has changed.
        counts = select(func.count(), func.max(BanRow.banned_at))
        version = await self._database.run(lambda connection: connection.execute(counts).one(), reading=True)
        if tuple(version) != self._version:
            query = select(BanRow.person)
            people = await self._database.run(
                lambda connection: frozenset(connection.execute(query).scalars()), reading=True
            )
            self._banned, self._version = people, (version[0], version[1])
            self.is_empty = not people

    async def run(self) -> None:
        """Follows the bans of other processes until cancelled."""
        while True:
            try:
                await self.refresh()
            except StorageError as error:
                log.debug("bans.not_refreshed", error=str(error))
            await self._clock.sleep(self._timing.poll_s)

    async def ban(self, reference: str, actor_id: int, reason: str | None = None) -> BanAct:
        """Bans a person or a chat, such as `telegram:123`.

        Raises:
            StorageError: the database fails.
        """
        values = {
            "person": self._pseudonyms.of(reference),
            "label": reference,
            "reason": reason[:MAX_REASON] if reason else None,
            "banned_by": actor_id,
            "banned_at": self._clock.now(),
        }
        insert = self._database.insert(BanRow).values(values).on_conflict_do_nothing().returning(BanRow.person)
        is_new = await self._database.run(lambda connection: connection.execute(insert).first() is not None)
        await self.refresh()
        return await self._done("ban", reference, actor_id, reason, is_changed=is_new)

    async def lift(self, reference: str, actor_id: int) -> BanAct:
        """Lifts a ban.

        Raises:
            StorageError: the database fails.
        """
        change = delete(BanRow).where(BanRow.person == self._pseudonyms.of(reference))
        was_banned = await self._database.run(lambda connection: connection.execute(change).rowcount > 0)
        await self.refresh()
        return await self._done("unban", reference, actor_id, None, is_changed=was_banned)

    async def newest(self, limit: int) -> Sequence[Ban]:
        """Returns the newest bans, newest first.

        Raises:
            StorageError: the database fails.
        """
        columns = select(BanRow.label, BanRow.reason, BanRow.banned_by, BanRow.banned_at)
        query = columns.order_by(BanRow.banned_at.desc(), BanRow.person).limit(limit)
        rows = await self._database.run(lambda connection: connection.execute(query).all(), reading=True)
        return [Ban(*row) for row in rows]

    async def _done(self, act: str, reference: str, actor_id: int, detail: str | None, *, is_changed: bool) -> BanAct:
        if not is_changed:
            return BanAct(is_changed=False)
        action = f"user.{act}"
        log.info("admin.acted", action=action, target=reference, actor_id=actor_id)
        return BanAct(
            is_changed=True, is_audited=await self._audit.try_record(actor_id, action, reference, detail) is not None
        )
