"""Turns messages into sparse vectors: hashed words, character n-grams and features, in a space of fixed size.

Hashing needs no vocabulary, so no text is stored, and weights learned by one replica fit all others. Importing
scikit-learn takes a second or two: create a `Vectorizer` off the event loop.
"""

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

SPACE = 1
"""Version of the columns' meaning. Weights of another version are discarded."""
WORD_COLUMNS = 2**17
NGRAM_COLUMNS = 2**17
FEATURE_COLUMNS = 2**9
COLUMNS = WORD_COLUMNS + NGRAM_COLUMNS + FEATURE_COLUMNS
UNIT = r"[^\W_]+|[^\w\s]"
"""A word or a single symbol: emoji and exclamation marks are typical of adverts."""
_FIRST_FEATURE = WORD_COLUMNS + NGRAM_COLUMNS
FEATURE_WEIGHT = 0.3
"""Value of a feature's column; the word part of a vector has length 1."""
KEPT_FIRST, KEPT_LAST = 1000, 500
"""Characters of a long text that are used, from its start and its end, where adverts have their message."""


@dataclass(frozen=True, slots=True)
class Vector:
    """A sparse vector; columns are unique and ascending."""

    columns: NDArray[np.int32]
    values: NDArray[np.float32]

    def dot(self, weights: NDArray[np.float32]) -> float:
        """Returns the dot product with dense weights."""
        return float(weights[self.columns] @ self.values)


class Vectorizer:
    """Creates vectors. The constructor blocks while it imports scikit-learn."""

    def __init__(self) -> None:
        from sklearn import feature_extraction  # noqa: PLC0415 - takes a second or two, imported on first use
        from sklearn.feature_extraction import text  # noqa: PLC0415 - the same

        extraction: Any = feature_extraction  # Any: scikit-learn has no types, and guesses at them are wrong
        self._words: Any = text.CountVectorizer(
            ngram_range=(1, 2), token_pattern=UNIT, lowercase=False
        ).build_analyzer()
        self._ngrams: Any = text.CountVectorizer(
            analyzer="char_wb", ngram_range=(3, 5), lowercase=False
        ).build_analyzer()
        # HashingVectorizer rebuilds and checks these two on every call, which takes three times as long.
        self._hash_words: Any = extraction.FeatureHasher(WORD_COLUMNS, input_type="string", alternate_sign=False)
        self._hash_ngrams: Any = extraction.FeatureHasher(NGRAM_COLUMNS, input_type="string", alternate_sign=False)

    def vectorize(self, folded: str, features: Iterable[str]) -> Vector:
        """Returns the vector of a message: words and n-grams, each normalised to length 1, and features.

        `folded` is the text as in `Normal.folded`.
        """
        text = _shorten(folded)
        words = self._hash_words.transform([self._words(text)])
        ngrams = self._hash_ngrams.transform([self._ngrams(text)])
        marks = sorted({zlib.crc32(feature.encode()) % FEATURE_COLUMNS for feature in features})
        columns = np.concatenate(
            (words.indices, ngrams.indices + WORD_COLUMNS, np.asarray(marks, dtype=np.int32) + _FIRST_FEATURE)
        )
        values = np.concatenate((_normalise(words.data), _normalise(ngrams.data), [FEATURE_WEIGHT] * len(marks)))
        order = np.argsort(columns)
        return Vector(columns[order].astype(np.int32), values[order].astype(np.float32))

    def matrix(self, messages: Sequence[tuple[str, frozenset[str]]]) -> Any:  # noqa: ANN401 - scipy has no types
        """Returns the vectors of messages as the rows of a sparse matrix with `COLUMNS` columns."""
        from scipy import sparse  # noqa: PLC0415 - see above

        rows = [self.vectorize(folded, features) for folded, features in messages]
        columns = np.concatenate([row.columns for row in rows])
        values = np.concatenate([row.values for row in rows])
        ends = np.cumsum([0, *(len(row.columns) for row in rows)])
        scipy: Any = sparse  # Any: as above
        return scipy.csr_matrix((values, columns, ends), shape=(len(rows), COLUMNS))


def _normalise(values: NDArray[np.float64]) -> NDArray[np.float64]:
    length = float(np.sqrt(values @ values))
    return values / length if length else values


def _shorten(text: str) -> str:
    return text if len(text) <= KEPT_FIRST + KEPT_LAST else f"{text[:KEPT_FIRST]} {text[-KEPT_LAST:]}"
