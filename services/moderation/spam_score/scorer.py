"""The local score: how much a message looks like spam, without asking anybody. It routes; it punishes nobody.

A base, trained once in this process from the examples that ship with the program (or loaded, where the operator trained
one of their own), and for each group what its admins' decisions changed: weights of hashed columns, no text. Both are
in the database, and a replica looks for what others learned every half minute.
"""

import asyncio
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
import structlog
from numpy.typing import NDArray

from core.clock import Clock
from core.db.database import Database
from core.errors import StorageError
from services.moderation.spam_score.base_model import EMPTY_SCORE, fit, starter, to_score
from services.moderation.spam_score.store import BASE, ScoreStore, Stored
from services.moderation.spam_score.vectorizer import Vector, Vectors
from services.moderation.spam_score.weights import Weights
from services.moderation.text.normalise import Normal

log = structlog.get_logger()

FRESH_S = 30.0
"""How long what a group learned is taken for the newest."""
PATIENCE_S = 1.0
"""How long a score waits for the database; after that it is made of what is known."""
MOST_GROUPS = 500
"""Groups whose weights are in memory, up to 160 KB each; the one that was quiet longest goes first."""


@dataclass(frozen=True, slots=True)
class _Base:
    """A trained model, and the space that it is trained in."""

    vectors: Vectors
    weights: NDArray[np.float32]
    intercept: float


@dataclass(slots=True)
class _CachedWeights:
    """A group's weights as this replica knows them, and when it looked."""

    revision: str | None
    weights: Weights
    checked_at: float


class LocalScore:
    """Scores messages, and learns what the admins of a group decide.

    Args:
        database: where what was learned is kept.
        clock: the time.
    """

    def __init__(self, database: Database, clock: Clock) -> None:
        self._store = ScoreStore(database, clock)
        self._clock = clock
        self._vectors: Vectors | None = None
        self._base: _Base | None = None
        self._base_revision: str | None = None
        self._building = asyncio.Lock()
        self._groups: OrderedDict[int, _CachedWeights] = OrderedDict()
        self._asking = asyncio.Lock()
        self._rests_until = 0.0

    async def warm(self) -> None:
        """Import, train or load what the first score would otherwise wait two or three seconds for."""
        await self._ready(BASE)

    async def score(self, group_id: int, normal: Normal, features: frozenset[str]) -> int:
        """How much a message looks like spam: 0 surely not, 100 surely.

        Never fails because of the database: then what is known here has to do.
        """
        if not normal.folded and not features:
            return EMPTY_SCORE
        base = await self._ready(group_id)
        vector = base.vectors.of(normal.folded, features)
        return to_score(self._logit(base, group_id, vector))

    async def learn(self, group_id: int, normal: Normal, features: frozenset[str], *, is_spam: bool) -> None:
        """Learn from a decision of a group's admins, for this group alone. To be called once a decision.

        Raises:
            StorageError: the database did not take it; nothing was learned.
        """
        base = await self._ready(group_id)
        vector = base.vectors.of(normal.folded, features)

        def corrected(weights: Weights) -> Weights:
            return weights.corrected(vector, _logit(base, weights, vector), is_spam=is_spam)

        stored = await self._store.change(group_id, corrected, is_spam=is_spam)
        self._keep(group_id, stored)

    async def forget(self, group_id: int) -> None:
        """Throw away what a group's decisions taught.

        Raises:
            StorageError: the database did not do it.
        """
        await self._store.remove(group_id)
        self._keep(group_id, None)

    def _logit(self, base: _Base, group_id: int, vector: Vector) -> float:
        known = self._groups.get(group_id)
        return _logit(base, known.weights if known is not None else Weights.none(), vector)

    async def _ready(self, group_id: int) -> _Base:
        """The base, when this replica has looked for what others have learned lately."""
        if self._is_stale(group_id):
            async with self._asking:
                if self._is_stale(group_id):
                    await self._look(group_id)
        if self._base is None:
            async with self._building:
                if self._base is None:
                    self._base = await asyncio.to_thread(self._trained, None)
        return self._base

    def _is_stale(self, group_id: int) -> bool:
        now, known = self._clock.monotonic(), self._groups.get(group_id)
        return now >= self._rests_until and (known is None or now - known.checked_at >= FRESH_S)

    async def _look(self, group_id: int) -> None:
        known = self._groups.get(group_id)
        revisions = {group_id: known.revision if known is not None else None, BASE: self._base_revision}
        try:
            async with asyncio.timeout(PATIENCE_S):
                changes = await self._store.changes(revisions)
        except (StorageError, TimeoutError) as error:
            self._rests_until = self._clock.monotonic() + FRESH_S
            log.warning("score.not_refreshed", error=type(error).__name__)
            return
        if BASE in changes:
            await self._change_base(changes[BASE])
        if group_id in changes or known is None:
            self._keep(group_id, changes.get(group_id) if group_id != BASE else None)
        else:
            known.checked_at = self._clock.monotonic()
            self._groups.move_to_end(group_id)

    async def _change_base(self, stored: Stored | None) -> None:
        async with self._building:
            self._base = await asyncio.to_thread(self._trained, stored.weights if stored is not None else None)
            self._base_revision = stored.revision if stored is not None else None

    def _trained(self, weights: Weights | None) -> _Base:
        """In a thread: imports, and trains where there is nothing to load."""
        if self._vectors is None:
            self._vectors = Vectors()
        if weights is None:
            weights = fit(self._vectors, starter())
        return _Base(self._vectors, weights.dense(), weights.intercept)

    def _keep(self, group_id: int, stored: Stored | None) -> None:
        revision, weights = (stored.revision, stored.weights) if stored is not None else (None, None)
        self._groups[group_id] = _CachedWeights(revision, weights or Weights.none(), self._clock.monotonic())
        self._groups.move_to_end(group_id)
        while len(self._groups) > MOST_GROUPS:
            self._groups.popitem(last=False)


def _logit(base: _Base, own: Weights, vector: Vector) -> float:
    return vector.dot(base.weights) + base.intercept + own.dot(vector)
