"""Training a base of one's own: how good it is, measured on what it was not trained on, and putting it into use."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.moderation.spam_score.base_model import SEED, inputs, labels, new_classifier, to_score
from services.moderation.spam_score.examples import Example
from services.moderation.spam_score.vectorizer import Vectors

MOST_FOLDS = 10
FOLDS_WITHOUT_SOURCES = 5
FEWEST = 20
"""Examples of each label below which there is nothing to measure."""


class TooFewExamples(ValueError):
    """There is too little to train on; the message says what is missing."""


@dataclass(frozen=True, slots=True)
class ConfusionCounts:
    """What a threshold gets right and wrong in a set of examples."""

    spam: int
    ham: int
    found: int
    """Spam that it finds."""
    false_positives: int
    """Ham that it takes for spam."""

    @property
    def precision(self) -> float:
        """The share of spam in what it takes for spam; 1 where that is nothing."""
        taken = self.found + self.false_positives
        return self.found / taken if taken else 1.0

    @property
    def recall(self) -> float:
        """The share of the spam that it finds; 1 where there is none."""
        return self.found / self.spam if self.spam else 1.0


@dataclass(frozen=True, slots=True)
class Validation:
    """Examples with the score that a model gave which knew neither them nor anything else of their source.

    Args:
        examples: what was scored.
        scores: 0 to 100 for each.
        folds: how many models that took.
        by_source: whether a source was never in both training and test; `note` says why where it could not be.
        note: what the figures suffer from; empty where nothing.
    """

    examples: tuple[Example, ...]
    scores: tuple[int, ...]
    folds: int
    by_source: bool
    note: str = ""

    def tally(self, threshold: int, source: str | None = None) -> ConfusionCounts:
        """What a threshold gets right and wrong, in one source or in all."""
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
        """All sources, in their order of appearance."""
        return list(dict.fromkeys(each.source for each in self.examples))


def without_copies(examples: Sequence[Example]) -> list[Example]:
    """The first of those that are the same text with the same label: a copy in the test was seen in the training."""
    return list({(each.folded, each.is_spam): each for each in reversed(examples)}.values())[::-1]


def cross_validate(vectors: Vectors, examples: Sequence[Example]) -> Validation:
    """Score each example by a model that was trained on other sources.

    Raises:
        TooFewExamples: there is too little of one label.
    """
    counts = Counter(each.is_spam for each in examples)
    if min(counts[True], counts[False]) < FEWEST:
        raise TooFewExamples(
            f"{counts[True]} spam and {counts[False]} ham; it takes at least {FEWEST} of each to learn and to measure"
        )
    matrix, truth = vectors.matrix(inputs(examples)), np.asarray(labels(examples))
    splits, note = _splits(examples, truth)
    scores = np.zeros(len(examples), dtype=int)
    for training, test in splits:
        classifier = new_classifier()
        classifier.fit(matrix[training], truth[training])
        scores[test] = [to_score(logit) for logit in classifier.decision_function(matrix[test])]
    return Validation(tuple(examples), tuple(map(int, scores)), len(splits), by_source=not note, note=note)


_Splits = list[tuple[NDArray[np.intp], NDArray[np.intp]]]


def _splits(examples: Sequence[Example], truth: NDArray[Any]) -> tuple[_Splits, str]:
    """Which examples train and which test, round by round; and why not by source, where it cannot be."""
    from sklearn import model_selection  # noqa: PLC0415 - a second or two, only when used

    selection: Any = model_selection  # Any: scikit-learn has no types
    sources = np.asarray([each.source for each in examples])
    unlike = len(set(sources))
    note = "the examples name no sources"
    if unlike > 1:
        folds = selection.GroupKFold(n_splits=min(MOST_FOLDS, unlike))
        splits: _Splits = list(folds.split(truth, truth, sources))
        if all(len(set(truth[training])) > 1 for training, _ in splits):
            return splits, ""
        note = "all spam or all ham is of one source"
    folds = selection.StratifiedKFold(n_splits=FOLDS_WITHOUT_SOURCES, shuffle=True, random_state=SEED)
    return list(folds.split(truth, truth)), note
