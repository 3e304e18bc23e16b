"""The base of the local score: a linear model trained on labelled examples."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from services.moderation.spam_score.examples import STARTER, Example, read_examples
from services.moderation.spam_score.vectorizer import Vectors
from services.moderation.spam_score.weights import Weights

SEED = 1
REGULARISATION = 1e-4
"""Chosen by cross-validation, docs/moderation-score.md has the figures."""
ROUNDS = 200
"""At most so many passes over the examples; it takes about ten."""
EMPTY_SCORE = 5
"""What a message without any word gets."""


def starter() -> list[Example]:
    """The examples that ship with the program."""
    with STARTER.open(encoding="utf-8") as lines:
        return list(read_examples(lines))


def fit(vectors: Vectors, examples: Sequence[Example]) -> Weights:
    """The weights that part spam from ham in these examples; the same ones give the same weights.

    Raises:
        ValueError: there are not both of them.
    """
    classifier = new_classifier()
    classifier.fit(vectors.matrix(inputs(examples)), labels(examples))
    return Weights.from_dense(classifier.coef_[0].astype(np.float32), float(classifier.intercept_[0]))


def new_classifier() -> Any:  # noqa: ANN401 - scikit-learn has no types
    """An untrained model of the kind that cross-validation chose: logistic regression, by stochastic gradients."""
    from sklearn.linear_model import SGDClassifier  # noqa: PLC0415 - a second or two, only when used

    return SGDClassifier(
        loss="log_loss", alpha=REGULARISATION, class_weight="balanced", max_iter=ROUNDS, tol=1e-4, random_state=SEED
    )


def inputs(examples: Iterable[Example]) -> list[tuple[str, frozenset[str]]]:
    """What vectors are made of."""
    return [(each.folded, each.features) for each in examples]


def labels(examples: Iterable[Example]) -> list[int]:
    """1 for spam."""
    return [int(each.is_spam) for each in examples]


def to_score(logit: float) -> int:
    """0 to 100, as the logistic function has it."""
    return round(100 / (1 + math.exp(-max(-50.0, min(50.0, logit)))))
