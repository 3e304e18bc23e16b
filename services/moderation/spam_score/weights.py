"""Sparse weights of a linear model, their online correction and their binary format."""

import io
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from services.moderation.spam_score.vectorizer import COLUMNS, SPACE, Vector

MAX_COLUMNS = 20_000
"""Bound of a group's columns, enough for some hundred decisions; the smallest weights are dropped first."""
TARGET_LOGIT = 2.0
"""Logit that one decision moves its message to: a score of 88, or 12 for ham."""
MAX_STEP = 6.0
"""Limit of that move in logits: a single wrong decision must not flip everything similar."""


@dataclass(frozen=True, slots=True)
class Weights:
    """Sparse weights over the columns of the vectorizer, which are unique and ascending."""

    columns: NDArray[np.int32]
    values: NDArray[np.float32]
    intercept: float = 0.0

    @classmethod
    def none(cls) -> Self:
        """Returns weights of zero."""
        return cls(np.empty(0, dtype=np.int32), np.empty(0, dtype=np.float32))

    @classmethod
    def from_dense(cls, dense: NDArray[np.float32], intercept: float) -> Self:
        """Returns the sparse form of dense weights."""
        columns = np.flatnonzero(dense).astype(np.int32)
        return cls(columns, dense[columns].astype(np.float32), intercept)

    @classmethod
    def from_bytes(cls, stored: bytes) -> Self:
        """Parses the output of `as_bytes`. Pickles are refused, so the data cannot execute code.

        Raises:
            ValueError: the data is damaged or of another version.
        """
        try:
            with np.load(io.BytesIO(stored), allow_pickle=False) as arrays:
                space, columns, values = int(arrays["space"]), arrays["columns"], arrays["values"]
                intercept = float(arrays["intercept"])
        except Exception as error:
            # zipfile, zlib and numpy each raise their own errors.
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
        """Returns the weights as a compressed npz file without pickles."""
        file = io.BytesIO()
        np.savez_compressed(
            file, space=np.int32(SPACE), columns=self.columns, values=self.values, intercept=np.float64(self.intercept)
        )
        return file.getvalue()

    def dense(self) -> NDArray[np.float32]:
        """Returns a weight for every column: one megabyte, and the fastest look-up."""
        dense = np.zeros(COLUMNS, dtype=np.float32)
        dense[self.columns] = self.values
        return dense

    def dot(self, vector: Vector) -> float:
        """Returns the dot product with a vector, plus the intercept."""
        if not len(self.columns):
            return self.intercept
        positions = np.minimum(np.searchsorted(self.columns, vector.columns), len(self.columns) - 1)
        known = self.columns[positions] == vector.columns
        return float(self.values[positions[known]] @ vector.values[known]) + self.intercept

    def correct(self, vector: Vector, logit: float, *, is_spam: bool) -> Self:
        """Returns the weights after one passive-aggressive step (PA-I), limited by `MAX_STEP`.

        Only the message's own columns change, each by its share of the message: similar messages move along, others
        do not. https://jmlr.org/papers/v7/crammer06a.html

        `logit` is the message's current one, of base and group together; `is_spam` is the decision.
        """
        side = 1.0 if is_spam else -1.0
        length = float(vector.values @ vector.values)
        step = side * min(MAX_STEP, max(0.0, TARGET_LOGIT - side * logit))
        if not step or not length:
            return self
        columns = np.union1d(self.columns, vector.columns).astype(np.int32)
        values = np.zeros(len(columns), dtype=np.float32)
        values[np.searchsorted(columns, self.columns)] = self.values
        values[np.searchsorted(columns, vector.columns)] += step / length * vector.values
        if len(columns) > MAX_COLUMNS:
            strongest = np.sort(np.argpartition(np.abs(values), -MAX_COLUMNS)[-MAX_COLUMNS:])
            columns, values = columns[strongest], values[strongest]
        return type(self)(columns, values, self.intercept)
