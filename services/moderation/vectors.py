"""A message as numbers: hashed words and pieces of words, and its features, in a space of fixed size.

Hashing needs no vocabulary, so nothing of a text is kept to understand another one, and what one replica learns
another can use. Importing scikit-learn takes a second or two: whoever makes a `Vectors` does so off the event loop.
"""

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

SPACE = 1
"""The version of what a column means; weights of another one are of no use."""
WORD_COLUMNS = 2**17
PIECE_COLUMNS = 2**17
FEATURE_COLUMNS = 2**9
COLUMNS = WORD_COLUMNS + PIECE_COLUMNS + FEATURE_COLUMNS
UNIT = r"[^\W_]+|[^\w\s]"
"""A word, or a single sign: adverts live on emoji and exclamation marks."""
FEATURE_WEIGHT = 0.3
"""What one feature is worth beside all words of a message, whose vector has the length 1."""
READ_FIRST, READ_LAST = 1000, 500
"""Characters of a long text that are read: an advert has its say at the beginning or at the end."""


@dataclass(frozen=True, slots=True)
class Vector:
    """A sparse vector: columns, each once and in ascending order, and their values."""

    columns: NDArray[np.int32]
    values: NDArray[np.float32]

    def dot(self, weights: NDArray[np.float32]) -> float:
        """The product with a weight for every column."""
        return float(weights[self.columns] @ self.values)


class Vectors:
    """Makes vectors. Importing what it needs takes a while."""

    def __init__(self) -> None:
        from sklearn.feature_extraction import text  # noqa: PLC0415 - a second or two, only when used

        hashing: Any = text.HashingVectorizer  # Any: scikit-learn has no types, and guesses at them are wrong
        self._words = hashing(
            n_features=WORD_COLUMNS,
            ngram_range=(1, 2),
            token_pattern=UNIT,
            lowercase=False,
            alternate_sign=False,
            dtype=np.float32,
        )
        self._pieces = hashing(
            n_features=PIECE_COLUMNS,
            analyzer="char_wb",
            ngram_range=(3, 5),
            lowercase=False,
            alternate_sign=False,
            dtype=np.float32,
        )

    def of(self, folded: str, features: Iterable[str]) -> Vector:
        """The vector of one message.

        Args:
            folded: its text, as `Normal.folded`.
            features: its features.
        """
        matrix = self.matrix([(folded, frozenset(features))])
        return Vector(matrix.indices.astype(np.int32, copy=False), matrix.data.astype(np.float32, copy=False))

    def matrix(self, messages: Sequence[tuple[str, frozenset[str]]]) -> Any:  # noqa: ANN401 - scipy has no types
        """The vectors of many messages, a row each, as a sparse matrix of `COLUMNS` columns."""
        from scipy import sparse  # noqa: PLC0415 - see above

        texts = [read(folded) for folded, _ in messages]
        rows = [sorted({zlib.crc32(feature.encode()) % FEATURE_COLUMNS for feature in found}) for _, found in messages]
        columns = np.asarray([column for row in rows for column in row], dtype=np.int32)
        ends = np.cumsum([0, *map(len, rows)])
        values = np.full(len(columns), FEATURE_WEIGHT, dtype=np.float32)
        scipy: Any = sparse  # Any: as above
        marked = scipy.csr_matrix((values, columns, ends), shape=(len(messages), FEATURE_COLUMNS))
        stacked = scipy.hstack((self._words.transform(texts), self._pieces.transform(texts), marked), format="csr")
        stacked.sum_duplicates()
        return stacked


def read(text: str) -> str:
    """As much of a text as is looked at."""
    return text if len(text) <= READ_FIRST + READ_LAST else f"{text[:READ_FIRST]} {text[-READ_LAST:]}"
