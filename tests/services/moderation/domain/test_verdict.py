"""Verdicts as models write them."""

import json

import pytest
from pydantic import ValidationError

from services.moderation.domain.verdict import About, Category, Verdict


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
        ('"97/100"', 97),
        ('"97 per cent"', 97),
        ('"97 процентов"', 97),
    ],
)
def test_confidence_reads_percentages_and_fractions(written: str, confidence: int) -> None:
    assert read(written) == confidence


@pytest.mark.parametrize("word", ["JOB_SCAM", "Job scam", "job-scam", " job_scam "])
def test_words_are_read_in_any_case(word: str) -> None:
    """A model without structured output writes them as it likes."""
    verdict = Verdict.model_validate({"category": word, "confidence": 97, "about": "Author"})
    assert (verdict.category, verdict.about) == (Category.JOB_SCAM, About.AUTHOR)


@pytest.mark.parametrize(
    "written",
    ["1e999", "-1e999", "NaN", "-3", "101", "-0.5", "1e30", "null", "true", "[]", '"high"', '""', '"inf"', '"nan"'],
)
def test_confidence_out_of_range_is_no_verdict(written: str) -> None:
    with pytest.raises(ValidationError):
        read(written)
