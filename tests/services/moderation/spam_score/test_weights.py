"""Correction and storage of weights."""

import io
import pickle

import numpy as np
import pytest

from services.moderation.spam_score import weights as module
from services.moderation.spam_score.vectorizer import COLUMNS, SPACE, Vector
from services.moderation.spam_score.weights import MAX_STEP, TARGET_LOGIT, Weights


def vector(**values: float) -> Vector:
    """Returns a vector of the columns c1, c2..."""
    columns = sorted(int(name[1:]) for name in values)
    return Vector(
        np.asarray(columns, dtype=np.int32), np.asarray([values[f"c{column}"] for column in columns], dtype=np.float32)
    )


HERE, NEAR, ELSEWHERE = vector(c1=0.6, c5=0.8), vector(c1=0.6, c9=0.8), vector(c2=1.0)


@pytest.mark.parametrize("is_spam", [True, False])
def test_correct_moves_message_to_target(*, is_spam: bool) -> None:
    learned = Weights.none().correct(HERE, 0.0, is_spam=is_spam)
    side = 1 if is_spam else -1
    assert learned.dot(HERE) == pytest.approx(side * TARGET_LOGIT)
    assert 0 < side * learned.dot(NEAR) < TARGET_LOGIT
    assert learned.dot(ELSEWHERE) == 0


def test_correct_skips_message_beyond_target() -> None:
    assert list(Weights.none().correct(HERE, TARGET_LOGIT + 1, is_spam=True).columns) == []


def test_correct_is_limited_to_max_step() -> None:
    assert Weights.none().correct(HERE, 40.0, is_spam=False).dot(HERE) == pytest.approx(-MAX_STEP)


def test_corrections_add_up() -> None:
    learned = Weights.none().correct(HERE, 0, is_spam=True).correct(ELSEWHERE, 0, is_spam=False)
    assert learned.dot(HERE) == pytest.approx(TARGET_LOGIT)
    assert learned.dot(ELSEWHERE) == pytest.approx(-TARGET_LOGIT)
    assert list(learned.columns) == [1, 2, 5]


def test_correct_drops_smallest_weights_beyond_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_COLUMNS", 2)
    learned = Weights.none().correct(vector(c1=0.1, c2=0.7, c3=0.7), 0, is_spam=True)
    assert list(learned.columns) == [2, 3]


def test_from_bytes_restores_as_bytes() -> None:
    learned = Weights.none().correct(HERE, 0, is_spam=True)
    again = Weights.from_bytes(Weights(learned.columns, learned.values, 0.25).as_bytes())
    assert again.dot(HERE) == pytest.approx(TARGET_LOGIT + 0.25)
    assert again.dense()[1] == learned.values[0]
    assert Weights.from_dense(again.dense(), 0.25).columns.tolist() == [1, 5]
    assert Weights.from_bytes(Weights.none().as_bytes()).dot(HERE) == 0


def npz(**changes: object) -> bytes:
    """Returns stored weights with some arrays replaced."""
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
        npz(columns=np.asarray([5, 1], dtype=np.int32)),  # not ascending
        npz(columns=np.asarray([1, 1], dtype=np.int32)),
        npz(columns=np.asarray([-1, 1], dtype=np.int32)),
        npz(columns=np.asarray([1, COLUMNS], dtype=np.int32)),
        npz(columns=np.asarray([1, 5], dtype=np.int64)),
        npz(values=np.asarray([1], dtype=np.float32)),
        npz(values=np.asarray([1, np.nan], dtype=np.float32)),
        npz(intercept=np.float64("inf")),
    ],
)
def test_from_bytes_refuses_damaged_data(stored: bytes) -> None:
    with pytest.raises(ValueError, match="the weights"):
        Weights.from_bytes(stored)
