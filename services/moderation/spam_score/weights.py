"""The weights of a linear model: all of them for the base, the few that differ for a group; and how they are stored."""

import io
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from services.moderation.spam_score.vectorizer import COLUMNS, SPACE, Vector

MOST_LEARNED = 20_000
"""Columns in which a group may differ from the base: some hundred decisions; the weakest are forgotten first."""
SURE = 2.0
"""The logit that one decision moves a message to, on the decided side: a score of 12 or 88."""
FARTHEST = 6.0
"""How far one decision may move it: a single mistake must not turn everything that is similar."""


@dataclass(frozen=True, slots=True)
class Weights:
    """Sparse weights over the columns of `vectors`.

    Args:
        columns: ascending, each once.
        values: a weight for each.
        intercept: what is added to every product.
    """

    columns: NDArray[np.int32]
    values: NDArray[np.float32]
    intercept: float = 0.0

    @classmethod
    def none(cls) -> Self:
        """Weights that change nothing."""
        return cls(np.empty(0, dtype=np.int32), np.empty(0, dtype=np.float32))

    @classmethod
    def from_dense(cls, dense: NDArray[np.float32], intercept: float) -> Self:
        """Those of a weight for every column."""
        columns = np.flatnonzero(dense).astype(np.int32)
        return cls(columns, dense[columns].astype(np.float32), intercept)

    @classmethod
    def from_bytes(cls, stored: bytes) -> Self:
        """What `as_bytes` made; nothing in it is ever executed.

        Raises:
            ValueError: it is something else, or of another version of the space.
        """
        try:
            with np.load(io.BytesIO(stored), allow_pickle=False) as arrays:
                space, columns, values = int(arrays["space"]), arrays["columns"], arrays["values"]
                intercept = float(arrays["intercept"])
        except Exception as error:
            # A zip file, its entries and numpy's headers each have errors of their own.
            raise ValueError(f"the weights cannot be read: {type(error).__name__}") from error
        is_sound = (
            columns.dtype == np.int32
            and values.dtype == np.float32
            and columns.ndim == 1
            and columns.shape == values.shape
            and (not len(columns) or (columns[0] >= 0 and columns[-1] < COLUMNS and bool(np.all(np.diff(columns) > 0))))
            and bool(np.all(np.isfinite(values)))
            and np.isfinite(intercept)
        )
        if space != SPACE or not is_sound:
            raise ValueError("the weights are of another version, or damaged")
        return cls(columns, values, intercept)

    def as_bytes(self) -> bytes:
        """The weights as a compressed npz file without pickles."""
        file = io.BytesIO()
        np.savez_compressed(
            file, space=np.int32(SPACE), columns=self.columns, values=self.values, intercept=np.float64(self.intercept)
        )
        return file.getvalue()

    def dense(self) -> NDArray[np.float32]:
        """A weight for every column: a megabyte, and the fastest to look things up in."""
        dense = np.zeros(COLUMNS, dtype=np.float32)
        dense[self.columns] = self.values
        return dense

    def dot(self, vector: Vector) -> float:
        """The product with a vector."""
        if not len(self.columns):
            return self.intercept
        places = np.minimum(np.searchsorted(self.columns, vector.columns), len(self.columns) - 1)
        known = self.columns[places] == vector.columns
        return float(self.values[places[known]] @ vector.values[known]) + self.intercept

    def corrected(self, vector: Vector, logit: float, *, is_spam: bool) -> Self:
        """The weights after one decision: passive-aggressive, so as far as needed and no farther than `FARTHEST`.

        Only the message's own columns change, each by its share of the message: the like of it moves with it, the
        unlike does not. https://jmlr.org/papers/v7/crammer06a.html (PA-I)

        Args:
            vector: the message that was decided on.
            logit: what it has now, base and group together.
            is_spam: the decision.
        """
        side = 1.0 if is_spam else -1.0
        length = float(vector.values @ vector.values)
        step = side * min(FARTHEST, max(0.0, SURE - side * logit))
        if not step or not length:
            return self
        columns = np.union1d(self.columns, vector.columns).astype(np.int32)
        values = np.zeros(len(columns), dtype=np.float32)
        values[np.searchsorted(columns, self.columns)] = self.values
        values[np.searchsorted(columns, vector.columns)] += step / length * vector.values
        if len(columns) > MOST_LEARNED:
            strongest = np.sort(np.argpartition(np.abs(values), -MOST_LEARNED)[-MOST_LEARNED:])
            columns, values = columns[strongest], values[strongest]
        return type(self)(columns, values, self.intercept)
