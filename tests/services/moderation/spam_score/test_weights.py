"""Correction and storage of weights."""

import base64
import io
import math
import pickle
import zipfile
from array import array

import pytest

from services.moderation.spam_score import weights as module
from services.moderation.spam_score.vectorizer import COLUMNS, SPACE, Vector
from services.moderation.spam_score.weights import MAX_STEP, TARGET_LOGIT, Weights


def vector(**values: float) -> Vector:
    """Returns a vector of the columns c1, c2..."""
    columns = sorted(int(name[1:]) for name in values)
    return Vector(tuple(columns), tuple(values[f"c{column}"] for column in columns))


OF_NUMPY = (
    "UEsDBC0AAAAIAAAAIQDQctqR//////////8JABQAc3BhY2UubnB5AQAQAIQAAAAAAAAARgAAAAAAAACb7BfqGxDJyFDGUK2eklqcXKRupaBu"
    "k2mirqOgnpZfVFKUmBefX5SSChJ3S8wpTgWKF2ckFqQC+RqaOgq1ChQBLkYGBgYAUEsDBC0AAAAIAAAAIQCywX2w//////////8LABQAY29s"
    "dW1ucy5ucHkBABAAiAAAAAAAAABLAAAAAAAAAJvsF+obEMnIUMZQrZ6SWpxcpG6loG6TaaKuo6Cell9UUpSYF59flJIKEndLzClOBYoXZyQW"
    "pAL5GkY6mjoKtQoUAC5GBgYGViAGAFBLAwQtAAAACAAAACEA7ey7EP//////////CgAUAHZhbHVlcy5ucHkBABAAiAAAAAAAAABMAAAAAAAA"
    "AJvsF+obEMnIUMZQrZ6SWpxcpG6loG6TZqKuo6Cell9UUpSYF59flJIKEndLzClOBYoXZyQWpAL5GkY6mjoKtQoUAC4GBgd7BoYD+wFQSwME"
    "LQAAAAgAAAAhAIPY1Lb//////////w0AFABpbnRlcmNlcHQubnB5AQAQAIgAAAAAAAAARwAAAAAAAACb7BfqGxDJyFDGUK2eklqcXKRupaBu"
    "k2ahrqOgnpZfVFKUmBefX5SSChJ3S8wpTgWKF2ckFqQC+RqaOgq1ChQBLgYwuGAPAFBLAQItAy0AAAAIAAAAIQDQctqRRgAAAIQAAAAJAAAA"
    "AAAAAAAAAACAAQAAAABzcGFjZS5ucHlQSwECLQMtAAAACAAAACEAssF9sEsAAACIAAAACwAAAAAAAAAAAAAAgAGBAAAAY29sdW1ucy5ucHlQ"
    "SwECLQMtAAAACAAAACEA7ey7EEwAAACIAAAACgAAAAAAAAAAAAAAgAEJAQAAdmFsdWVzLm5weVBLAQItAy0AAAAIAAAAIQCD2NS2RwAAAIgA"
    "AAANAAAAAAAAAAAAAACAAZEBAABpbnRlcmNlcHQubnB5UEsFBgAAAAAEAAQA4wAAABcCAAAAAA=="
)
"""Columns 1 and 5 with the weights 0.75 and -1.5, intercept 0.25."""

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
    stored = Weights(learned.columns, learned.values, 0.25)
    again = Weights.from_bytes(stored.as_bytes())
    assert again == stored
    assert again.dot(HERE) == pytest.approx(TARGET_LOGIT + 0.25)
    assert again.dense()[1] == learned.values[0]
    assert stored.as_bytes() == again.as_bytes()
    assert Weights.from_bytes(Weights.none().as_bytes()).dot(HERE) == 0


def test_from_bytes_reads_what_numpy_stored() -> None:
    """The row of a released version, written by `numpy.savez_compressed`."""
    assert Weights.from_bytes(base64.b64decode(OF_NUMPY)) == Weights(array("i", [1, 5]), array("f", [0.75, -1.5]), 0.25)


def npz(**changes: "array[int] | array[float] | bytes") -> bytes:
    """Returns stored weights with some members replaced, by another array or by raw bytes."""
    members = {
        "space": array("i", [SPACE]), "columns": array("i", [1, 5]), "values": array("f", [0.6, 0.8]),
        "intercept": array("d", [0]),
    }  # fmt: skip
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as written:
        for name, value in {**members, **changes}.items():
            if isinstance(value, bytes):
                written.writestr(f"{name}.npy", value)
            else:
                module._write_array(written, name, value, is_scalar=name in {"space", "intercept"})
    return file.getvalue()


def with_header(header: str) -> bytes:
    """Returns an array of the npz format with this header."""
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + bytes(8)


@pytest.mark.parametrize(
    "stored",
    [
        b"",
        b"nonsense",
        Weights.none().as_bytes()[:-30],  # cut off
        pickle.dumps({"columns": [1]}),
        npz(columns=with_header("{'descr': '|O', 'fortran_order': False, 'shape': (2,)}")),  # a pickle within
        npz(columns=with_header("{'descr': '<i4', 'fortran_order': False, 'shape': (1, 2)}")),
        npz(columns=with_header("__import__('os').getcwd()")),
        npz(columns=b"no array"),
        npz(columns=with_header("{'descr': '<i4', 'fortran_order': False, 'shape': (2,)}") + bytes(2**22)),  # too large
        npz(space=array("i", [SPACE + 1])),  # of another version
        npz(columns=array("i", [5, 1])),  # not ascending
        npz(columns=array("i", [1, 1])),
        npz(columns=array("i", [-1, 1])),
        npz(columns=array("i", [1, COLUMNS])),
        npz(columns=array("f", [1, 5])),
        npz(values=array("f", [1])),
        npz(values=array("f", [1, math.nan])),
        npz(intercept=array("d", [math.inf])),
    ],
)
def test_from_bytes_refuses_damaged_data(stored: bytes) -> None:
    with pytest.raises(ValueError, match="the weights"):
        Weights.from_bytes(stored)
