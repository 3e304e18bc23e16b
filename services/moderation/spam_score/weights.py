"""Sparse weights of a linear model, their online correction and their binary format."""

import ast
import io
import math
import sys
import zipfile
from array import array
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Self, cast

from services.moderation.spam_score.vectorizer import COLUMNS, SPACE, Vector

MAX_COLUMNS = 20_000
"""Bound of a group's columns, enough for some hundred decisions; the smallest weights are dropped first."""
TARGET_LOGIT = 2.0
"""Logit that one decision moves its message to: a score of 88, or 12 for ham."""
MAX_STEP = 7.0
"""Limit of that move in logits: a single wrong decision must not flip everything similar."""

_TYPES = {"i": "<i4", "f": "<f4", "d": "<f8"}
"""The format's types by those of `array`."""
_MAGIC = b"\x93NUMPY\x01\x00"
_HEADER_END = 10
_LARGEST_MEMBER = 4 * COLUMNS + 1024


@dataclass(frozen=True, slots=True)
class Weights:
    """Sparse weights over the columns of the vectorizer, which are unique and ascending."""

    columns: "array[int]"
    values: "array[float]"
    intercept: float = 0.0

    @classmethod
    def none(cls) -> Self:
        """Returns weights of zero."""
        return cls(array("i"), array("f"))

    @classmethod
    def from_mapping(cls, weights: Mapping[int, float], intercept: float = 0.0) -> Self:
        """Returns the weights of some columns; those of zero are left out."""
        columns = sorted(column for column, value in weights.items() if value)
        return cls(array("i", columns), array("f", (weights[column] for column in columns)), intercept)

    @classmethod
    def from_bytes(cls, stored: bytes) -> Self:
        """Parses the output of `as_bytes`, and the form that earlier versions stored with numpy. Pickles are refused.

        Raises:
            ValueError: the data is damaged or of another version.
        """
        try:
            with zipfile.ZipFile(io.BytesIO(stored)) as file:
                columns, values = _read_array(file, "columns", "i"), _read_array(file, "values", "f")
                space, intercept = _read_array(file, "space", "i")[0], _read_array(file, "intercept", "d")[0]
        except Exception as error:
            # zipfile, zlib and ast each raise their own errors.
            raise ValueError(f"the weights cannot be read: {type(error).__name__}") from error
        is_sound = (
            len(columns) == len(values)
            and (not columns or (columns[0] >= 0 and columns[-1] < COLUMNS))
            and all(one < next_one for one, next_one in pairwise(columns))
            and all(map(math.isfinite, values))
            and math.isfinite(intercept)
        )
        if space != SPACE or not is_sound:
            raise ValueError("the weights are of another version, or damaged")
        return cls(cast("array[int]", columns), values, intercept)

    def as_bytes(self) -> bytes:
        """Returns the weights as a compressed npz file without pickles."""
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as members:
            _write_array(members, "space", array("i", [SPACE]), is_scalar=True)
            _write_array(members, "columns", self.columns)
            _write_array(members, "values", self.values)
            _write_array(members, "intercept", array("d", [self.intercept]), is_scalar=True)
        return file.getvalue()

    def dense(self) -> "array[float]":
        """Returns a weight for every column: one megabyte, and the fastest look-up."""
        dense = array("f", bytes(4 * COLUMNS))
        for column, value in zip(self.columns, self.values, strict=True):
            dense[column] = value
        return dense

    def dot(self, vector: Vector) -> float:
        """Returns the dot product with a vector, plus the intercept."""
        columns, values, total = self.columns, self.values, self.intercept
        if not columns:
            return total
        position, end = 0, len(columns)
        for column, value in zip(vector.columns, vector.values, strict=True):
            position = bisect_left(columns, column, position)
            if position == end:
                break
            if columns[position] == column:
                total += values[position] * value
        return total

    def correct(self, vector: Vector, logit: float, *, is_spam: bool) -> Self:
        """Returns the weights after one passive-aggressive step (PA-I), limited by `MAX_STEP`.

        Only the message's own columns change, each by its share of the message: similar messages move along, others
        do not. https://jmlr.org/papers/v7/crammer06a.html

        `logit` is the message's current one, of base and group together; `is_spam` is the decision.
        """
        side = 1.0 if is_spam else -1.0
        length = vector.square
        step = side * min(MAX_STEP, max(0.0, TARGET_LOGIT - side * logit))
        if not step or not length:
            return self
        corrected = dict(zip(self.columns, self.values, strict=True))
        for column, value in zip(vector.columns, vector.values, strict=True):
            corrected[column] = corrected.get(column, 0.0) + step / length * value
        if len(corrected) > MAX_COLUMNS:
            strongest = sorted(corrected, key=lambda column: -abs(corrected[column]))[:MAX_COLUMNS]
            corrected = {column: corrected[column] for column in strongest}
        return type(self).from_mapping(corrected, self.intercept)


def _read_array(file: zipfile.ZipFile, name: str, kind: str) -> "array[float]":
    """Returns a one-dimensional array or a scalar of the npz format, https://numpy.org/neps/nep-0001-npy-format.html.

    Raises:
        ValueError: it is of another type, of two dimensions, or incomplete.
    """
    member = file.getinfo(f"{name}.npy")
    if member.file_size > _LARGEST_MEMBER:
        raise ValueError("too large")
    data = file.read(member)
    if not data.startswith(_MAGIC):
        raise ValueError("no array")
    end = _HEADER_END + int.from_bytes(data[8:_HEADER_END], "little")
    match ast.literal_eval(data[_HEADER_END:end].decode("latin-1").strip()):
        case {"descr": str(descr), "fortran_order": False, "shape": [] | [int()]} if descr == _TYPES[kind]:
            found: array[float] = array(kind, data[end:])
        case _:
            raise ValueError("another type")
    if sys.byteorder == "big":
        found.byteswap()
    return found


def _write_array(
    file: zipfile.ZipFile, name: str, values: "array[float] | array[int]", *, is_scalar: bool = False
) -> None:
    shape: Sequence[int] = () if is_scalar else (len(values),)
    header = repr({"descr": _TYPES[values.typecode], "fortran_order": False, "shape": shape})
    padding = -(_HEADER_END + len(header) + 1) % 64
    written = array(values.typecode, values)
    if sys.byteorder == "big":
        written.byteswap()
    content = f"{header}{' ' * padding}\n".encode()
    # A fixed date, so that equal weights have equal bytes.
    member = zipfile.ZipInfo(f"{name}.npy")
    member.compress_type = zipfile.ZIP_DEFLATED
    file.writestr(member, _MAGIC + len(content).to_bytes(2, "little") + content + written.tobytes())
