"""Local spam score: scores messages without a provider, learns admins' decisions. It routes and never punishes.

The base model is the shipped one, or the one that the operator trained. Each
group's decisions add corrections to it: weights of hashed columns, no text. Both are stored in the database; replicas
look for changes every half minute.
"""

import asyncio
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import structlog
from cachetools import LRUCache
from sqlalchemy import Connection, Row, Table, bindparam, delete, select

from core.clock import Clock
from core.db.database import Database
from core.db.moderation_tables import SpamScoreRow
from core.errors import StorageError
from services.moderation.spam_score.base_model import EMPTY_SCORE, shipped_weights, to_score
from services.moderation.spam_score.vectorizer import Vector, vectorize
from services.moderation.spam_score.weights import Weights
from services.moderation.text.normalise import Normal

BASE = 0
"""The scope of the base model; no group has this id."""
_TABLE = cast("Table", SpamScoreRow.__table__)
_IS_ASKED = _TABLE.c.scope.in_(bindparam("scopes", expanding=True))
_REVISIONS, _STATES = select(_TABLE.c.scope, _TABLE.c.revision).where(_IS_ASKED), select(_TABLE).where(_IS_ASKED)
log = structlog.get_logger()
CACHED_GROUPS = 500
"""Groups with weights in memory, up to 160 KB each; the least recently used one is evicted."""


@dataclass(frozen=True, slots=True)
class StoredWeights:
    """A row of weights.

    Args:
        revision: unique per state, also after a deletion.
        weights: None if they are damaged or of another version.
        spam_count: decisions or examples of spam that they were learned from.
        ham_count: number of ham examples.
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


@dataclass(frozen=True, slots=True)
class ScorerTiming:
    """Cache settings of the scorer.

    Args:
        refresh_s: age at which a group's weights are checked for changes of other replicas.
        query_timeout_s: limit of that check; after it the cached weights are used.
    """

    refresh_s: float = 30.0
    query_timeout_s: float = 1.0


@dataclass(frozen=True, slots=True)
class _BaseModel:
    """A trained model."""

    weights: Sequence[float]
    intercept: float


@dataclass(slots=True)
class _CachedWeights:
    """A group's weights, and the monotonic time of their last check."""

    revision: str | None
    weights: Weights
    checked_at: float


class SpamScorer:
    """Scores messages and learns the decisions of each group's admins."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        *,
        timing: ScorerTiming | None = None,
        cached_groups: int = CACHED_GROUPS,
    ) -> None:
        self._store = ScoreStore(database, clock)
        self._clock = clock
        self._timing = timing or ScorerTiming()
        self._base: _BaseModel | None = None
        self._base_revision: str | None = None
        self._loading = asyncio.Lock()
        self._groups: LRUCache[int, _CachedWeights] = LRUCache(cached_groups)
        self._refreshing = asyncio.Lock()
        self._refresh_after = 0.0

    async def warm(self) -> None:
        """Loads the base model."""
        await self._load(BASE)

    async def score(self, group_id: int, normal: Normal, features: frozenset[str]) -> int:
        """Returns how much a message resembles spam, 0 to 100.

        Uses the cached weights while the database is unreachable.
        """
        if not normal.folded and not features:
            return EMPTY_SCORE
        base = await self._load(group_id)
        vector = vectorize(normal.folded, features)
        return to_score(self._group_logit(base, group_id, vector))

    async def learn(self, group_id: int, normal: Normal, features: frozenset[str], *, is_spam: bool) -> None:
        """Learns an admin's decision, for this group alone. Not idempotent: to be called once per decision.

        Raises:
            StorageError: the database failed; nothing was learned.
        """
        base = await self._load(group_id)
        vector = vectorize(normal.folded, features)

        def correct(weights: Weights) -> Weights:
            return weights.correct(vector, _logit(base, weights, vector), is_spam=is_spam)

        stored = await self._store.change(group_id, correct, is_spam=is_spam)
        self._cache(group_id, stored)

    async def forget(self, group_id: int) -> None:
        """Deletes everything that was learned from a group's decisions.

        Raises:
            StorageError: the database failed.
        """
        await self._store.remove(group_id)
        self._cache(group_id, None)

    def _group_logit(self, base: _BaseModel, group_id: int, vector: Vector) -> float:
        known = self._groups.get(group_id)
        return _logit(base, known.weights if known is not None else Weights.none(), vector)

    async def _load(self, group_id: int) -> _BaseModel:
        """Returns the base model, after a check for changes of other replicas where one is due."""
        if self._is_stale(group_id):
            async with self._refreshing:
                if self._is_stale(group_id):
                    await self._refresh(group_id)
        if self._base is None:
            async with self._loading:
                if self._base is None:
                    self._base = await asyncio.to_thread(self._build_base, None)
        return self._base

    def _is_stale(self, group_id: int) -> bool:
        now, known = self._clock.monotonic(), self._groups.get(group_id)
        return now >= self._refresh_after and (known is None or now - known.checked_at >= self._timing.refresh_s)

    async def _refresh(self, group_id: int) -> None:
        known = self._groups.get(group_id)
        revisions = {group_id: known.revision if known is not None else None, BASE: self._base_revision}
        try:
            async with asyncio.timeout(self._timing.query_timeout_s):
                changes = await self._store.changes(revisions)
        except (StorageError, TimeoutError) as error:
            self._refresh_after = self._clock.monotonic() + self._timing.refresh_s
            log.warning("spam_score.refresh_failed", error=type(error).__name__)
            return
        if BASE in changes:
            await self._replace_base(changes[BASE])
        if group_id in changes or known is None:
            self._cache(group_id, changes.get(group_id) if group_id != BASE else None)
        else:
            known.checked_at = self._clock.monotonic()

    async def _replace_base(self, stored: StoredWeights | None) -> None:
        async with self._loading:
            self._base = await asyncio.to_thread(self._build_base, stored.weights if stored is not None else None)
            self._base_revision = stored.revision if stored is not None else None

    def _build_base(self, weights: Weights | None) -> _BaseModel:
        """Builds the base model from stored weights, or the shipped ones. Runs in a thread: it reads a file."""
        if weights is None:
            weights = shipped_weights()
        return _BaseModel(weights.dense(), weights.intercept)

    def _cache(self, group_id: int, stored: StoredWeights | None) -> None:
        revision, weights = (stored.revision, stored.weights) if stored is not None else (None, None)
        self._groups[group_id] = _CachedWeights(revision, weights or Weights.none(), self._clock.monotonic())


def _logit(base: _BaseModel, own: Weights, vector: Vector) -> float:
    return vector.dot(base.weights) + base.intercept + own.dot(vector)
