"""Small writes of many callers in one transaction."""

import asyncio

from sqlalchemy import Executable
from sqlalchemy.exc import DataError, IntegrityError

from core.db.database import Database
from core.errors import StorageError

_Write = tuple[Executable, asyncio.Future[None]]


class GroupCommit:
    """Carries out statements that may be carried out twice, those that come together in one transaction.

    What must be on the disk before anything else happens is written so: that a message stands in a chat, above all. One
    by one these writes would queue behind each other and behind everything else that is written, and a process that
    dies meanwhile does not know what it has said.

    Args:
        database: where they go, before other writes that wait.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: list[_Write] = []
        self._turn = asyncio.Lock()

    async def execute(self, statement: Executable) -> None:
        """Carry a statement out; it is on the disk when this returns.

        Raises:
            StorageError: the database does not take it.
        """
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((statement, done))
        try:
            async with self._turn:
                # Whoever had its turn before may have taken this along.
                if not done.done():
                    await self._commit_all()
            await done
        finally:
            done.cancel()

    async def _commit_all(self) -> None:
        group, self._waiting = self._waiting, []
        try:
            await self._commit_or_fail(group)
        except BaseException:
            # A cancellation concerns the caller whose turn it was: the others write themselves.
            self._waiting = [*(each for each in group if not each[1].done()), *self._waiting]
            raise

    async def _commit_or_fail(self, group: list[_Write]) -> None:
        try:
            await self._commit(group)
        except StorageError as error:
            if len(group) > 1 and isinstance(error.__cause__, IntegrityError | DataError):
                # One of them is to blame.
                for each in group:
                    await self._commit_or_fail([each])
            else:
                _fail(group, error)

    async def _commit(self, group: list[_Write]) -> None:
        async with self._database.session(first=True) as session:
            for statement, _ in group:
                await session.execute(statement)
        for _, done in group:
            if not done.done():
                done.set_result(None)


def _fail(group: list[_Write], error: StorageError) -> None:
    for _, done in group:
        if not done.done():
            done.set_exception(error)
