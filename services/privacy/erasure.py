"""Erases the data stored about a person, as `registry.py` lists it; idempotent, so that a retried job begins anew."""

import re
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import datetime
from typing import Protocol, cast

import structlog
from redis.asyncio import Redis

from core.background import BackgroundTasks
from core.clock import Clock
from core.db.database import Database
from core.errors import StorageError
from core.messages import Surface, UserRef
from core.redis.client import REDIS_ERRORS
from services.privacy.redaction import ERASED_LANE, erase_json
from services.privacy.registry import Person
from services.privacy.rows import erase_late_rows, erase_rows
from services.pseudonyms import Pseudonyms
from services.usage.ledger import UsageLedger

log = structlog.get_logger()

FOLLOW_UP_S = 30.0
"""Time after which late records are erased: of the job that erased, and of answers that were still running."""
SCAN_BATCH = 500


class JobCopies(Protocol):
    """The durable queue with its copies of messages."""

    async def rewrite(self, needle: str, change: Callable[[str, str], tuple[str, str] | None]) -> int:
        """Changes lanes and payloads of stored jobs."""
        ...

    async def compact(self) -> None:
        """Rewrites the file, so that nothing deleted is left in it."""
        ...


class Eraser:
    """Erases people from the database, the inbox and Redis.

    Args:
        redis: a client with `decode_responses=True`.
        prefix: prefix of all Redis keys.
        jobs: the inbox; None where there is none, as in the console.
        follow_up_s: delay of the second pass.
        on_erased: drops the person's data in the memory of this process.
    """

    def __init__(  # noqa: PLR0913 - the places that hold personal data
        self,
        database: Database,
        redis: Redis,
        prefix: str,
        ledger: UsageLedger,
        pseudonyms: Pseudonyms,
        clock: Clock,
        jobs: JobCopies | None = None,
        *,
        follow_up_s: float = FOLLOW_UP_S,
        on_erased: Callable[[UserRef], None] = lambda _: None,
    ) -> None:
        self._database = database
        self._redis = redis
        self._prefix = prefix
        self._ledger = ledger
        self._pseudonyms = pseudonyms
        self._clock = clock
        self._jobs = jobs
        self._follow_up_s = follow_up_s
        self._on_erased = on_erased
        self._pending: dict[str, tuple[Person, datetime]] = {}
        self._tasks = BackgroundTasks()

    async def erase(self, surface: Surface, user_id: int, names: Sequence[str]) -> None:
        """Erases a person; late records follow half a minute later.

        Args:
            names: the full name, then the others: first name, `@username`.

        Raises:
            StorageError: the database fails; a further attempt begins anew.
        """
        alias = self._pseudonyms.number(f"{surface}:{user_id}")
        person = Person(surface, user_id, tuple(filter(None, names)), alias)
        await self._pass(person, self._clock.now())
        self._on_erased(person.user)
        await self._compact()
        log.info("person.erased", surface=surface)
        self._pending[person.user] = (person, self._clock.now())
        self._tasks.start(self._follow_up(person.user), "erasure")

    async def aclose(self) -> None:
        """Ends the waits for late records, and erases those that are there."""
        await self._tasks.close()
        for user in list(self._pending):
            await self._erase_late(user)

    async def _follow_up(self, user: str) -> None:
        await self._clock.sleep(self._follow_up_s)
        await self._erase_late(user)

    async def _erase_late(self, user: str) -> None:
        pending = self._pending.pop(user, None)
        if pending is None:
            return
        person, since = pending
        try:
            await self._ledger.flush()
            await self._database.run(lambda connection: erase_late_rows(connection, self._database, person))
            await self._erase_jobs(person, since)
            await self._compact()
        except StorageError as error:
            log.warning("person.late_records_kept", error=str(error))

    async def _pass(self, person: Person, until: datetime) -> None:
        await self._ledger.flush()
        await self._database.run(lambda connection: erase_rows(connection, self._database, person))
        await self._erase_keys(person)
        await self._erase_jobs(person, until)

    async def _erase_jobs(self, person: Person, until: datetime) -> None:
        if self._jobs is None or person.surface is not Surface.TELEGRAM:
            return
        until_s = until.timestamp()

        def change(lane: str, payload: str) -> tuple[str, str] | None:
            is_own_lane = re.search(rf"(?<![\w-]){person.user_id}(?!\w)", lane) is not None
            erased = erase_json(payload, person, until_s)
            if erased is None and not is_own_lane:
                return None
            return (ERASED_LANE if is_own_lane else lane), erased or payload

        await self._jobs.rewrite(str(person.user_id), change)

    async def _compact(self) -> None:
        """Clears free pages. A busy file is no failure: later deletions overwrite their pages anyway."""
        try:
            await self._database.compact()
            if self._jobs is not None:
                await self._jobs.compact()
        except StorageError as error:
            log.warning("person.file_not_compacted", error=str(error))

    async def _erase_keys(self, person: Person) -> None:
        """Deletes the keys that name the person; while Redis does not answer they stay until they expire."""
        own = re.compile(rf"(?<![\w-]){person.user_id}(?!\w)")
        try:
            keys = cast("AsyncIterator[str]", self._redis.scan_iter(match=f"{self._prefix}:*", count=SCAN_BATCH))
            async for key in keys:
                if own.search(key, len(self._prefix)):
                    await self._redis.delete(key)
                elif ":same:" in key:
                    await self._erase_members(key, f"{person.user_id}:")
                elif ":console:" in key and own.search(str(await self._redis.get(key))):
                    await self._redis.delete(key)
        except REDIS_ERRORS as error:
            log.warning("person.keys_kept", error=type(error).__name__)

    async def _erase_members(self, key: str, beginning: str) -> None:
        members = cast("list[str]", await self._redis.zrange(key, 0, -1))
        if own := [member for member in members if member.startswith(beginning)]:
            await self._redis.zrem(key, *own)
