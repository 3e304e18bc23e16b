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
_FIRST_FEATURE = WORD_COLUMNS + PIECE_COLUMNS
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
        from sklearn import feature_extraction  # noqa: PLC0415 - a second or two, only when used
        from sklearn.feature_extraction import text  # noqa: PLC0415 - the same

        extraction: Any = feature_extraction  # Any: scikit-learn has no types, and guesses at them are wrong
        self._words: Any = text.CountVectorizer(
            ngram_range=(1, 2), token_pattern=UNIT, lowercase=False
        ).build_analyzer()
        self._pieces: Any = text.CountVectorizer(
            analyzer="char_wb", ngram_range=(3, 5), lowercase=False
        ).build_analyzer()
        # HashingVectorizer is these two parts, put together anew and checked at every call: three times as long.
        self._hash_words: Any = extraction.FeatureHasher(WORD_COLUMNS, input_type="string", alternate_sign=False)
        self._hash_pieces: Any = extraction.FeatureHasher(PIECE_COLUMNS, input_type="string", alternate_sign=False)

    def of(self, folded: str, features: Iterable[str]) -> Vector:
        """The vector of one message: its words and its pieces of the length 1 each, and its features.

        Args:
            folded: its text, as `Normal.folded`.
            features: its features.
        """
        text = read(folded)
        words = self._hash_words.transform([self._words(text)])
        pieces = self._hash_pieces.transform([self._pieces(text)])
        marks = sorted({zlib.crc32(feature.encode()) % FEATURE_COLUMNS for feature in features})
        columns = np.concatenate(
            (words.indices, pieces.indices + WORD_COLUMNS, np.asarray(marks, dtype=np.int32) + _FIRST_FEATURE)
        )
        values = np.concatenate((_of_length_1(words.data), _of_length_1(pieces.data), [FEATURE_WEIGHT] * len(marks)))
        order = np.argsort(columns)
        return Vector(columns[order].astype(np.int32), values[order].astype(np.float32))

    def matrix(self, messages: Sequence[tuple[str, frozenset[str]]]) -> Any:  # noqa: ANN401 - scipy has no types
        """The vectors of many messages, a row each, as a sparse matrix of `COLUMNS` columns."""
        from scipy import sparse  # noqa: PLC0415 - see above

        rows = [self.of(folded, features) for folded, features in messages]
        columns = np.concatenate([row.columns for row in rows])
        values = np.concatenate([row.values for row in rows])
        ends = np.cumsum([0, *(len(row.columns) for row in rows)])
        scipy: Any = sparse  # Any: as above
        return scipy.csr_matrix((values, columns, ends), shape=(len(rows), COLUMNS))


def _of_length_1(values: NDArray[np.float64]) -> NDArray[np.float64]:
    length = float(np.sqrt(values @ values))
    return values / length if length else values


def read(text: str) -> str:
    """As much of a text as is looked at."""
    return text if len(text) <= READ_FIRST + READ_LAST else f"{text[:READ_FIRST]} {text[-READ_LAST:]}"
