"""Base model of the local score: a linear model trained on labelled examples."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from services.moderation.spam_score.examples import STARTER, Example, read_examples
from services.moderation.spam_score.vectorizer import Vectorizer
from services.moderation.spam_score.weights import Weights

SEED = 1
REGULARISATION = 1e-4
"""Chosen by cross-validation, see docs/moderation-score.md."""
ROUNDS = 200
"""Limit of passes over the examples; training takes about ten."""
EMPTY_SCORE = 5
"""Score of a message without text."""


def starter_examples() -> list[Example]:
    """Returns the examples that ship with the program."""
    with STARTER.open(encoding="utf-8") as lines:
        return list(read_examples(lines))


def fit(vectorizer: Vectorizer, examples: Sequence[Example]) -> Weights:
    """Trains on the examples. Deterministic.

    Raises:
        ValueError: the examples are all spam or all ham.
    """
    classifier = new_classifier()
    classifier.fit(vectorizer.matrix(inputs(examples)), labels(examples))
    return Weights.from_dense(classifier.coef_[0].astype(np.float32), float(classifier.intercept_[0]))


def new_classifier() -> Any:  # noqa: ANN401 - scikit-learn has no types
    """Returns an untrained model: logistic regression by stochastic gradient descent, see docs/moderation-score.md."""
    from sklearn.linear_model import SGDClassifier  # noqa: PLC0415 - takes a second or two, imported on first use

    return SGDClassifier(
        loss="log_loss", alpha=REGULARISATION, class_weight="balanced", max_iter=ROUNDS, tol=1e-4, random_state=SEED
    )


def inputs(examples: Iterable[Example]) -> list[tuple[str, frozenset[str]]]:
    """Returns the vectorizer's input."""
    return [(each.folded, each.features) for each in examples]


def labels(examples: Iterable[Example]) -> list[int]:
    """Returns 1 for spam, 0 for ham."""
    return [int(each.is_spam) for each in examples]


def to_score(logit: float) -> int:
    """Maps a logit to 0..100 by the logistic function."""
    return round(100 / (1 + math.exp(-max(-50.0, min(50.0, logit)))))
