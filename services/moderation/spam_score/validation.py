"""Cross-validation of the local score on labelled examples."""

import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from services.moderation.spam_score.base_model import SEED, Example, fit_vectors, to_score, to_vectors

MOST_FOLDS = 10
FOLDS_WITHOUT_SOURCES = 5
FEWEST = 20
"""Lowest number of examples per label."""


class TooFewExamples(ValueError):
    """Raised for too few examples; the message has the numbers."""


@dataclass(frozen=True, slots=True)
class ConfusionCounts:
    """Results of a threshold on a set of examples."""

    spam: int
    ham: int
    found: int
    """Spam at or above the threshold."""
    false_positives: int
    """Ham at or above the threshold."""

    @property
    def precision(self) -> float:
        """The share of spam in everything flagged; 1 if that is nothing."""
        flagged = self.found + self.false_positives
        return self.found / flagged if flagged else 1.0

    @property
    def recall(self) -> float:
        """The share of spam that is flagged; 1 if there is none."""
        return self.found / self.spam if self.spam else 1.0


@dataclass(frozen=True, slots=True)
class Validation:
    """Examples with out-of-sample scores, each from a model that was not trained on the example or its source.

    Args:
        scores: 0 to 100 for each example.
        by_source: whether folds were split by source; otherwise `note` has the reason.
        note: reason why the figures are too good; empty for none.
    """

    examples: tuple[Example, ...]
    scores: tuple[int, ...]
    folds: int
    by_source: bool
    note: str = ""

    def count(self, threshold: int, source: str | None = None) -> ConfusionCounts:
        """Returns the results of a threshold, in one source or in all."""
        rows = [
            (each.is_spam, score >= threshold)
            for each, score in zip(self.examples, self.scores, strict=True)
            if source is None or each.source == source
        ]
        found = Counter(rows)
        return ConfusionCounts(
            spam=found[True, True] + found[True, False],
            ham=found[False, True] + found[False, False],
            found=found[True, True],
            false_positives=found[False, True],
        )

    @property
    def sources(self) -> list[str]:
        """All sources, in order of appearance."""
        return list(dict.fromkeys(each.source for each in self.examples))


def drop_duplicates(examples: Sequence[Example]) -> list[Example]:
    """Keeps the first of equal texts with equal labels: a copy in the test set was seen in training."""
    return list({(each.folded, each.is_spam): each for each in reversed(examples)}.values())[::-1]


def cross_validate(examples: Sequence[Example]) -> Validation:
    """Scores each example by a model that was trained on other sources.

    Raises:
        TooFewExamples: fewer than `FEWEST` of one label.
    """
    counts = Counter(each.is_spam for each in examples)
    if min(counts[True], counts[False]) < FEWEST:
        raise TooFewExamples(
            f"{counts[True]} spam and {counts[False]} ham; it takes at least {FEWEST} of each to learn and to measure"
        )
    vectors, truth = to_vectors(examples), [each.is_spam for each in examples]
    folds, note = split(examples)
    scores = [0] * len(examples)
    for test in folds:
        held_out = set(test)
        training = [index for index in range(len(examples)) if index not in held_out]
        weights = fit_vectors([vectors[index] for index in training], [truth[index] for index in training])
        dense = weights.dense()
        for index in test:
            scores[index] = to_score(vectors[index].dot(dense) + weights.intercept)
    return Validation(tuple(examples), tuple(scores), len(folds), by_source=not note, note=note)


def split(examples: Sequence[Example]) -> tuple[list[list[int]], str]:
    """Returns the test indices of each fold, and the reason if they are not split by source."""
    by_source: defaultdict[str, list[int]] = defaultdict(list)
    for index, each in enumerate(examples):
        by_source[each.source].append(index)
    note = "the examples name no sources"
    if len(by_source) > 1:
        by_size = _even_folds(sorted(by_source.values(), key=len, reverse=True), min(MOST_FOLDS, len(by_source)))
        if all(_has_both_labels(examples, fold) for fold in by_size):
            return by_size, ""
        note = "all spam or all ham is of one source"
    shuffler = random.Random(SEED)
    folds: list[list[int]] = [[] for _ in range(FOLDS_WITHOUT_SOURCES)]
    for label in (True, False):
        indices = [index for index, each in enumerate(examples) if each.is_spam is label]
        shuffler.shuffle(indices)
        for number, index in enumerate(indices):
            folds[number % FOLDS_WITHOUT_SOURCES].append(index)
    return folds, note


def _even_folds(sources: list[list[int]], count: int) -> list[list[int]]:
    """Distributes sources, largest first, each to the smallest fold."""
    folds: list[list[int]] = [[] for _ in range(count)]
    for source in sources:
        min(folds, key=len).extend(source)
    return folds


def _has_both_labels(examples: Sequence[Example], test: Sequence[int]) -> bool:
    """Returns whether both labels are left for training without a fold."""
    held_out = set(test)
    return len({each.is_spam for index, each in enumerate(examples) if index not in held_out}) > 1
