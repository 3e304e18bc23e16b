"""Weights: what one decision changes, and how they are stored."""

import io
import pickle

import numpy as np
import pytest

from services.moderation.spam_score import weights as module
from services.moderation.spam_score.vectorizer import COLUMNS, SPACE, Vector
from services.moderation.spam_score.weights import FARTHEST, SURE, Weights


def vector(**values: float) -> Vector:
    """A vector of the columns c1, c2..."""
    columns = sorted(int(name[1:]) for name in values)
    return Vector(
        np.asarray(columns, dtype=np.int32), np.asarray([values[f"c{column}"] for column in columns], dtype=np.float32)
    )


HERE, NEAR, ELSEWHERE = vector(c1=0.6, c5=0.8), vector(c1=0.6, c9=0.8), vector(c2=1.0)


@pytest.mark.parametrize("is_spam", [True, False])
def test_a_decision_moves_the_message_to_the_decided_side(*, is_spam: bool) -> None:
    learned = Weights.none().corrected(HERE, 0.0, is_spam=is_spam)
    side = 1 if is_spam else -1
    assert learned.dot(HERE) == pytest.approx(side * SURE)
    assert 0 < side * learned.dot(NEAR) < SURE
    assert learned.dot(ELSEWHERE) == 0


def test_what_is_on_its_side_already_changes_nothing() -> None:
    assert list(Weights.none().corrected(HERE, SURE + 1, is_spam=True).columns) == []


def test_one_decision_goes_only_so_far() -> None:
    assert Weights.none().corrected(HERE, 40.0, is_spam=False).dot(HERE) == pytest.approx(-FARTHEST)


def test_decisions_add_up_in_any_columns() -> None:
    learned = Weights.none().corrected(HERE, 0, is_spam=True).corrected(ELSEWHERE, 0, is_spam=False)
    assert learned.dot(HERE) == pytest.approx(SURE)
    assert learned.dot(ELSEWHERE) == pytest.approx(-SURE)
    assert list(learned.columns) == [1, 2, 5]


def test_what_is_learned_is_bounded_and_the_weakest_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_LEARNED", 2)
    learned = Weights.none().corrected(vector(c1=0.1, c2=0.7, c3=0.7), 0, is_spam=True)
    assert list(learned.columns) == [2, 3]


def test_stored_and_read_again() -> None:
    learned = Weights.none().corrected(HERE, 0, is_spam=True)
    again = Weights.from_bytes(Weights(learned.columns, learned.values, 0.25).as_bytes())
    assert again.dot(HERE) == pytest.approx(SURE + 0.25)
    assert again.dense()[1] == learned.values[0]
    assert Weights.from_dense(again.dense(), 0.25).columns.tolist() == [1, 5]
    assert Weights.from_bytes(Weights.none().as_bytes()).dot(HERE) == 0


def npz(**changes: object) -> bytes:
    """A file of weights with something else in it."""
    arrays = {"space": np.int32(SPACE), "columns": HERE.columns, "values": HERE.values, "intercept": np.float64(0)}
    file = io.BytesIO()
    np.savez(file, **{**arrays, **changes})
    return file.getvalue()


@pytest.mark.parametrize(
    "stored",
    [
        b"",
        b"nonsense",
        Weights.none().as_bytes()[:-30],  # cut off
        pickle.dumps({"columns": [1]}),
        npz(columns=np.asarray([object(), object()])),  # a pickle within
        npz(space=np.int32(SPACE + 1)),  # of another version
        npz(columns=np.asarray([5, 1], dtype=np.int32)),  # in no order
        npz(columns=np.asarray([1, 1], dtype=np.int32)),
        npz(columns=np.asarray([-1, 1], dtype=np.int32)),
        npz(columns=np.asarray([1, COLUMNS], dtype=np.int32)),
        npz(columns=np.asarray([1, 5], dtype=np.int64)),
        npz(values=np.asarray([1], dtype=np.float32)),
        npz(values=np.asarray([1, np.nan], dtype=np.float32)),
        npz(intercept=np.float64("inf")),
    ],
)
def test_what_is_no_sound_file_of_weights_is_refused(stored: bytes) -> None:
    with pytest.raises(ValueError, match="the weights"):
        Weights.from_bytes(stored)
