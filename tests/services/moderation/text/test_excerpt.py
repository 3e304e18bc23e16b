"""Long texts: an advert is found wherever it stands, at a bounded cost."""

import time

import pytest

from services.moderation.text.excerpt import LONGEST, cut_long

ADVERT = "Earn $500 a day, write @boss"


@pytest.mark.parametrize(
    ("before", "after"), [(0, 30_000), (3500, 0), (30_000, 0), (15_000, 15_000), (4500, 20_000), (29_000, 1500)]
)
def test_advert_is_kept_wherever_it_stands(before: int, after: int) -> None:
    found = cut_long("word " * (before // 5) + ADVERT + " word" * (after // 5))
    assert ADVERT in found
    assert len(found) <= LONGEST + 100


def test_texts_of_telegrams_length_are_read_whole() -> None:
    text = "x" * 4096
    assert cut_long(text) == text


def test_many_telling_signs_are_bounded() -> None:
    text = "@boss " * 50_000
    began = time.process_time()
    assert len(cut_long(text)) <= LONGEST + 100
    assert time.process_time() - began < 0.1
