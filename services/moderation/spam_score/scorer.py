"""Local spam score: scores messages without a provider, learns admins' decisions. It routes and never punishes.

The base model is the shipped one, or the one that the operator trained. Each
group's decisions add corrections to it: weights of hashed columns, no text. Both are stored in the database; replicas
look for changes every half minute.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import structlog
from cachetools import LRUCache

from core.clock import Clock
from core.db.database import Database
from core.errors import StorageError
from services.moderation.spam_score.base_model import EMPTY_SCORE, shipped_weights, to_score
from services.moderation.spam_score.store import BASE, ScoreStore, StoredWeights
from services.moderation.spam_score.vectorizer import Vector, vectorize
from services.moderation.spam_score.weights import Weights
from services.moderation.text.normalise import Normal

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class ScorerTiming:
    """Cache settings of the scorer.

    Args:
        refresh_s: age at which a group's weights are checked for changes of other replicas.
        query_timeout_s: limit of that check; after it the cached weights are used.
    """

    refresh_s: float = 30.0
    query_timeout_s: float = 1.0


CACHED_GROUPS = 500
"""Groups with weights in memory, up to 160 KB each; the least recently used one is evicted."""


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
