"""Stores the local score's weights in the database, shared by all replicas."""

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import structlog
from sqlalchemy import Connection, Row, Table, bindparam, delete, select

from core.clock import Clock
from core.db.database import Database
from core.db.moderation_tables import SpamScoreRow
from services.moderation.spam_score.weights import Weights

log = structlog.get_logger()

BASE = 0
"""The scope of the base model; no group has this id."""
_TABLE = cast("Table", SpamScoreRow.__table__)
_IS_ASKED = _TABLE.c.scope.in_(bindparam("scopes", expanding=True))
_REVISIONS, _STATES = select(_TABLE.c.scope, _TABLE.c.revision).where(_IS_ASKED), select(_TABLE).where(_IS_ASKED)


@dataclass(frozen=True, slots=True)
class StoredWeights:
    """A row of weights.

    Args:
        revision: unique per state, also after a deletion.
        weights: None if they are damaged or of another version.
        spam_count: decisions or examples of spam that they were learned from.
        ham_count: the same for ham.
    """

    revision: str
    weights: Weights | None
    spam_count: int
    ham_count: int


class ScoreStore:
    """The weights of all groups, and of the base model if the operator trained one. Methods raise StorageError."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def changes(self, known: Mapping[int, str | None]) -> dict[int, StoredWeights | None]:
        """Returns the scopes with another revision than the known one, with None for deleted ones.

        Args:
            known: revisions by scope, None for none.
        """

        def work(connection: Connection) -> dict[int, StoredWeights | None]:
            found = {row.scope: row.revision for row in connection.execute(_REVISIONS, {"scopes": list(known)})}
            changed = [scope for scope, revision in found.items() if known[scope] != revision]
            rows = connection.execute(_STATES, {"scopes": changed}).all() if changed else ()
            gone = [scope for scope, revision in known.items() if revision is not None and scope not in found]
            return {row.scope: _to_weights(row) for row in rows} | dict.fromkeys(gone)

        return await self._database.run(work, reading=True)

    async def change(self, scope: int, correct: Callable[[Weights], Weights], *, is_spam: bool) -> StoredWeights:
        """Corrects a group's weights under a row lock, so that concurrent corrections add up.

        `correct` maps the stored weights to the new ones; `is_spam` is the decision.
        """
        empty = Weights.none().as_bytes()
        blank = {"revision": "", "weights": empty, "spam_count": 0, "ham_count": 0, "updated_at": self._clock.now()}
        make = self._database.insert(SpamScoreRow).values(scope=scope, **blank)
        async with self._database.session() as session:
            await session.execute(make.on_conflict_do_nothing(index_elements=["scope"]))
            row = await session.get_one(SpamScoreRow, scope, with_for_update=True, populate_existing=True)
            weights = correct(_to_weights(row).weights or Weights.none())
            row.weights, row.revision, row.updated_at = weights.as_bytes(), _new_revision(), self._clock.now()
            row.spam_count += is_spam
            row.ham_count += not is_spam
            return StoredWeights(row.revision, weights, row.spam_count, row.ham_count)

    async def replace(self, scope: int, weights: Weights, *, spam_count: int, ham_count: int) -> None:
        """Replaces the weights of a scope."""
        values = {
            "revision": _new_revision(),
            "weights": weights.as_bytes(),
            "spam_count": spam_count,
            "ham_count": ham_count,
            "updated_at": self._clock.now(),
        }
        statement = self._database.insert(SpamScoreRow).values(scope=scope, **values)
        async with self._database.session() as session:
            await session.execute(statement.on_conflict_do_update(index_elements=["scope"], set_=values))

    async def remove(self, scope: int) -> None:
        """Deletes a scope."""
        async with self._database.session() as session:
            await session.execute(delete(SpamScoreRow).where(SpamScoreRow.scope == scope))


def _to_weights(row: SpamScoreRow | Row[Any]) -> StoredWeights:
    weights = None
    try:
        weights = Weights.from_bytes(row.weights)
    except ValueError as error:
        log.warning("spam_score.weights_unreadable", scope=row.scope, detail=str(error))
    return StoredWeights(row.revision, weights, row.spam_count, row.ham_count)


def _new_revision() -> str:
    return uuid.uuid4().hex
