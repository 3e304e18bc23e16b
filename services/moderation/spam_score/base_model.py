"""Base model of the local score: logistic regression, trained on labelled examples, and the examples in JSON lines.

The model trained on the starter set ships as a file, since training takes seconds of CPU time. After a change of the
starter set, of features or of the training, `python -m services.moderation.spam_score.base_model` writes it anew.
"""

import math
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from operator import itemgetter, mul
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, StringConstraints, ValidationError

from services.moderation.domain.message import Author, AuthorKind, GroupMessage
from services.moderation.screening.features import extract_features, normalise_scored
from services.moderation.spam_score.vectorizer import COLUMNS, Vector, vectorize
from services.moderation.spam_score.weights import Weights

STARTER = Path(__file__).parent / "data" / "starter.jsonl"
"""Written for this project, in English and Russian."""
_NO_AUTHOR = Author(0, AuthorKind.USER, "")
_EPOCH = datetime.fromtimestamp(0, UTC)
SHIPPED = STARTER.with_name("base.npz")
SEED = 1
REGULARISATION = 1e-4
"""Chosen by cross-validation, see docs/moderation-score.md."""
ROUNDS = 60
"""Limit of passes over the examples; training takes about fifteen."""
PATIENCE = 3
TOLERANCE = 1e-3
"""Training ends after `PATIENCE` passes that lower the mean loss by less than this."""
SMALLEST_WEIGHT = 0.02
"""Smaller weights are left out: together they move a score by one point at most, and they are half of the file."""
EMPTY_SCORE = 5
"""Score of a message without text."""


class MalformedExample(ValueError):
    """Raised for an invalid line; the message starts with its number."""


class _Line(BaseModel):
    label: Literal["spam", "ham"]
    text: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
    source: str | int | None = None
    group: str | int | None = None
    lang: str = ""


@dataclass(frozen=True, slots=True)
class Example:
    """A labelled example in the form that the score reads.

    Args:
        folded: the text, as `Normal.folded`.
        source: the group or author that it comes from; empty if unknown.
        language: of the text; empty if unknown.
    """

    is_spam: bool
    folded: str
    features: frozenset[str]
    source: str = ""
    language: str = ""


def read_examples(lines: Iterable[str]) -> Iterator[Example]:
    """Parses the lines of a file; empty ones are skipped.

    Raises:
        MalformedExample: at the first invalid line.
    """
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield _parse_line(line, number)


def _parse_line(line: str, number: int) -> Example:
    try:
        found = _Line.model_validate_json(line)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        path = ".".join(map(str, first["loc"]))
        raise MalformedExample(f"line {number}: {path or 'the line'}: {first['msg']}") from None
    source = found.source if found.source is not None else found.group
    return create_example(
        found.text, is_spam=found.label == "spam", source="" if source is None else str(source), language=found.lang
    )


def create_example(text: str, *, is_spam: bool, source: str = "", language: str = "") -> Example:
    """Returns an example of a text as it was posted."""
    message = GroupMessage(group_id=0, message_ids=(0,), author=_NO_AUTHOR, sent_at=_EPOCH, text=text)
    normal = normalise_scored(message)
    return Example(is_spam, normal.folded, extract_features(message, normal), source, language)


def starter_examples() -> list[Example]:
    """Returns the examples that ship with the program."""
    with STARTER.open(encoding="utf-8") as lines:
        return list(read_examples(lines))


def shipped_weights() -> Weights:
    """Returns the model that was trained on the starter set."""
    return Weights.from_bytes(SHIPPED.read_bytes())


def to_vectors(examples: Iterable[Example]) -> list[Vector]:
    """Returns the vectors of examples."""
    return [vectorize(each.folded, each.features) for each in examples]


def fit(examples: Sequence[Example]) -> Weights:
    """Trains on the examples. Deterministic.

    Raises:
        ValueError: the examples are all spam or all ham.
    """
    return fit_vectors(to_vectors(examples), [each.is_spam for each in examples])


def fit_vectors(vectors: Sequence[Vector], labels: Sequence[bool]) -> Weights:
    """Trains by stochastic gradient descent; both labels weigh the same, however many examples each has.

    The learning rate falls with the number of examples seen, as in Bottou's SGD
    (https://leon.bottou.org/projects/sgd). The weights are kept divided by `scale`, so that regularisation costs
    nothing per column.

    Raises:
        ValueError: the examples are all spam or all ham.
    """
    spam = sum(labels)
    if not 0 < spam < len(labels):
        raise ValueError("the examples are all spam or all ham")
    shares = {True: len(labels) / (2 * spam), False: len(labels) / (2 * (len(labels) - spam))}
    rows = [
        (_getter(each.columns), each.columns, each.values, label) for each, label in zip(vectors, labels, strict=True)
    ]
    typical = math.sqrt(1 / math.sqrt(REGULARISATION))
    first = 1 / (typical * REGULARISATION)
    weights, scale, intercept, step = [0.0] * COLUMNS, 1.0, 0.0, 0
    shuffler, best, stalled = random.Random(SEED), math.inf, 0
    for _ in range(ROUNDS):
        shuffler.shuffle(rows)
        loss = 0.0
        for select, columns, values, label in rows:
            rate = 1 / (REGULARISATION * (first + step))
            step += 1
            side = 1.0 if label else -1.0
            margin = side * (scale * sum(map(mul, select(weights), values)) + intercept)
            margin = max(-50.0, min(50.0, margin))
            loss += shares[label] * math.log1p(math.exp(-margin))
            scale *= 1 - rate * REGULARISATION
            move = rate * shares[label] * side / (1 + math.exp(margin))
            intercept += move
            move /= scale
            for column, value in zip(columns, values, strict=True):
                weights[column] += move * value
        stalled = stalled + 1 if loss > (best - TOLERANCE * len(rows)) else 0
        best = min(best, loss)
        if stalled == PATIENCE:
            break
    learned = {
        column: value for column, value in enumerate(value * scale for value in weights) if abs(value) > SMALLEST_WEIGHT
    }
    return Weights.from_mapping(learned, intercept)


def _getter(columns: tuple[int, ...]) -> "itemgetter[tuple[float, ...]]":
    """Returns a function that reads a row's weights at once; it reads at least two, and `map` ignores the second."""
    return itemgetter(*columns) if len(columns) > 1 else itemgetter(*(columns or (0,)) * 2, 0)


def to_score(logit: float) -> int:
    """Maps a logit to 0..100 by the logistic function."""
    return round(100 / (1 + math.exp(-max(-50.0, min(50.0, logit)))))


if __name__ == "__main__":
    SHIPPED.write_bytes(fit(starter_examples()).as_bytes())
