"""Cross-validation of the local score on labelled examples."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.moderation.spam_score.base_model import SEED, inputs, labels, new_classifier, to_score
from services.moderation.spam_score.examples import Example
from services.moderation.spam_score.vectorizer import Vectorizer

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


def cross_validate(vectorizer: Vectorizer, examples: Sequence[Example]) -> Validation:
    """Scores each example by a model that was trained on other sources.

    Raises:
        TooFewExamples: fewer than `FEWEST` of one label.
    """
    counts = Counter(each.is_spam for each in examples)
    if min(counts[True], counts[False]) < FEWEST:
        raise TooFewExamples(
            f"{counts[True]} spam and {counts[False]} ham; it takes at least {FEWEST} of each to learn and to measure"
        )
    matrix, truth = vectorizer.matrix(inputs(examples)), np.asarray(labels(examples))
    splits, note = _split(examples, truth)
    scores = np.zeros(len(examples), dtype=int)
    for training, test in splits:
        classifier = new_classifier()
        classifier.fit(matrix[training], truth[training])
        scores[test] = [to_score(logit) for logit in classifier.decision_function(matrix[test])]
    return Validation(tuple(examples), tuple(map(int, scores)), len(splits), by_source=not note, note=note)


_Splits = list[tuple[NDArray[np.intp], NDArray[np.intp]]]


def _split(examples: Sequence[Example], truth: NDArray[Any]) -> tuple[_Splits, str]:
    """Returns training and test indices per fold, and the reason if they are not split by source."""
    from sklearn import model_selection  # noqa: PLC0415 - takes a second or two, imported on first use

    selection: Any = model_selection  # Any: scikit-learn has no types
    sources = np.asarray([each.source for each in examples])
    source_count = len(set(sources))
    note = "the examples name no sources"
    if source_count > 1:
        folds = selection.GroupKFold(n_splits=min(MOST_FOLDS, source_count))
        splits: _Splits = list(folds.split(truth, truth, sources))
        if all(len(set(truth[training])) > 1 for training, _ in splits):
            return splits, ""
        note = "all spam or all ham is of one source"
    folds = selection.StratifiedKFold(n_splits=FOLDS_WITHOUT_SOURCES, shuffle=True, random_state=SEED)
    return list(folds.split(truth, truth)), note
