"""Turns messages into sparse vectors: hashed words, character n-grams and features, in a space of fixed size.

Hashing needs no vocabulary, so no text is stored, and weights learned by one replica fit all others. The columns are
those of scikit-learn's `FeatureHasher` (MurmurHash3), so that weights that earlier versions stored keep their meaning.
"""

import math
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, pairwise
from operator import mul
from typing import Final

SPACE = 1
"""Version of the columns' meaning. Weights of another version are discarded."""
WORD_COLUMNS = 2**17
NGRAM_COLUMNS = 2**17
FEATURE_COLUMNS = 2**9
COLUMNS = WORD_COLUMNS + NGRAM_COLUMNS + FEATURE_COLUMNS
_UNIT = re.compile(r"[^\W_]+|[^\w\s]")
"""A word or a single symbol: emoji and exclamation marks are typical of adverts."""
NGRAM_SIZES = (3, 4, 5)
_FIRST_FEATURE = WORD_COLUMNS + NGRAM_COLUMNS
FEATURE_WEIGHT = 0.3
"""Value of a feature's column; the word part of a vector has length 1."""
KEPT_FIRST, KEPT_LAST = 1000, 500
"""Characters of a long text that are used, from its start and its end, where adverts have their message."""
CACHED_WORDS = 2**13
"""Words with remembered columns, some 10 MB; everyday talk repeats them."""
_BITS: Final = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Vector:
    """A sparse vector; columns are unique and ascending."""

    columns: tuple[int, ...]
    values: tuple[float, ...]

    def dot(self, weights: Sequence[float]) -> float:
        """Returns the dot product with dense weights."""
        return sum(map(mul, map(weights.__getitem__, self.columns), self.values))

    @property
    def square(self) -> float:
        """The square of its length."""
        return sum(map(mul, self.values, self.values))


def vectorize(folded: str, features: Iterable[str]) -> Vector:
    """Returns the vector of a message: words and n-grams, each normalised to length 1, and features.

    `folded` is the text as in `Normal.folded`.
    """
    text = folded if len(folded) <= KEPT_FIRST + KEPT_LAST else f"{folded[:KEPT_FIRST]} {folded[-KEPT_LAST:]}"
    units = _UNIT.findall(text)
    words = Counter(map(_word_column, units))
    words.update(_hash(f"{one} {following}", WORD_COLUMNS) for one, following in pairwise(units))
    ngrams = Counter(chain.from_iterable(map(_ngram_columns, text.split())))
    found = {**_scale(words), **_scale(ngrams)}
    for feature in features:
        found[_FIRST_FEATURE + zlib.crc32(feature.encode()) % FEATURE_COLUMNS] = FEATURE_WEIGHT
    columns = tuple(sorted(found))
    return Vector(columns, tuple(map(found.__getitem__, columns)))


def _scale(counts: Counter[int]) -> dict[int, float]:
    """Returns the counts as a vector of length 1."""
    length = math.sqrt(sum(count * count for count in counts.values())) or 1.0
    return {column: count / length for column, count in counts.items()}


@lru_cache(CACHED_WORDS)
def _word_column(word: str) -> int:
    return _hash(word, WORD_COLUMNS)


@lru_cache(CACHED_WORDS)
def _ngram_columns(word: str) -> tuple[int, ...]:
    """Returns the columns of the n-grams of a word with a space on both sides.

    A word shorter than an n-gram is one itself.
    """
    padded = f" {word} "
    ngrams: list[str] = []
    for size in NGRAM_SIZES:
        ngrams += [padded[:size], *(padded[start : start + size] for start in range(1, len(padded) - size + 1))]
        if len(padded) <= size:
            break
    return tuple(WORD_COLUMNS + _hash(ngram, NGRAM_COLUMNS) for ngram in ngrams)


def _hash(part: str, size: int) -> int:
    hashed = _murmur3(part.encode())
    # The absolute value of the hash as a signed number; the smallest one has none.
    return (hashed if hashed < 2**31 else 2**32 - hashed) % size


def _murmur3(data: bytes) -> int:
    """Returns MurmurHash3 (32 bits, seed 0), https://en.wikipedia.org/wiki/MurmurHash."""
    hashed, end = 0, len(data) & ~3
    for start in range(0, end, 4):
        hashed ^= _mix(int.from_bytes(data[start : start + 4], "little"))
        hashed = ((hashed << 13) | (hashed >> 19)) & _BITS
        hashed = (hashed * 5 + 0xE6546B64) & _BITS
    if end < len(data):
        hashed ^= _mix(int.from_bytes(data[end:], "little"))
    hashed ^= len(data)
    hashed = ((hashed ^ (hashed >> 16)) * 0x85EBCA6B) & _BITS
    hashed = ((hashed ^ (hashed >> 13)) * 0xC2B2AE35) & _BITS
    return hashed ^ (hashed >> 16)


def _mix(block: int) -> int:
    block = (block * 0xCC9E2D51) & _BITS
    block = ((block << 15) | (block >> 17)) & _BITS
    return (block * 0x1B873593) & _BITS
