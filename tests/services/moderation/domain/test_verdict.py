"""Verdicts as models write them."""

import json

import pytest
from pydantic import ValidationError

from services.moderation.domain.verdict import Verdict


def read(confidence: str) -> int:
    """Returns the confidence of a verdict, given as JSON."""
    return Verdict.model_validate(json.loads(f'{{"category": "job_scam", "confidence": {confidence}}}')).confidence


@pytest.mark.parametrize(
    ("written", "confidence"),
    [
        ("97", 97),
        ('"97"', 97),
        ('"97 %"', 97),
        ("0.97", 97),
        ('"0.97"', 97),
        ("1.0", 100),
        ("92.4", 92),
        ("0", 0),
        ("0.0", 0),
        ("100", 100),
    ],
)
def test_confidence_reads_percentages_and_fractions(written: str, confidence: int) -> None:
    assert read(written) == confidence


@pytest.mark.parametrize(
    "written",
    ["1e999", "-1e999", "NaN", "-3", "101", "-0.5", "1e30", "null", "true", "[]", '"high"', '""', '"inf"', '"nan"'],
)
def test_confidence_out_of_range_is_no_verdict(written: str) -> None:
    with pytest.raises(ValidationError):
        read(written)
