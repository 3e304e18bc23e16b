"""Banned terms match at word boundaries of any script and spelling."""

import pytest

from services.moderation.screening.rules import BannedTerms
from services.moderation.text.normalise import normalise


@pytest.mark.parametrize(
    ("term", "text"),
    [
        ("casino", "Best CASINO!"),
        ("казино", "онлайн-казино, заходи"),  # a hyphen ends a word
        ("казино", "кaзинo"),  # with two Latin letters
        ("казино", "к\u200bа\u200bзино"),
        ("казино", "К А З И Н О рядом"),
        ("лёгкие деньги", "Легкие,  деньги?"),  # a phrase with any separators
        ("легкие деньги", "лёгкие\nденьги"),
        ("заработ*", "хороший заработок"),
        ("*коин", "новый шиткоин"),
        ("*ставк*", "подставка"),
        ("free", "𝐅𝐑𝐄𝐄 stuff"),
        ("BTC", "купи BTC"),  # a Latin word in a Russian text, all of its letters with a Cyrillic double
        ("сор", "вынес сор"),
        ("🔞", "смотри🔞тут"),  # no letters: anywhere
        ("$$$", "big $$$!"),
        ("t.me/joinchat", "https://t.me/joinchat/abc"),
        ("赌场", "最好的赌场在这里"),  # no spaces between words
        ("คาสิโน", "เล่นคาสิโนออนไลน์"),
        ("नमस्ते", "अरे नमस्ते दोस्त"),
        ("straße", "STRASSE"),
        ("İstanbul", "istanbul"),
        ("c++", "I like C"),  # its letters decide
    ],
)
def test_terms_match(term: str, text: str) -> None:
    assert BannedTerms(["nothing of the sort", term]).find(normalise(text)) == term


@pytest.mark.parametrize(
    ("term", "text"),
    [
        ("ass", "a classic passage, class"),
        ("casino", "casinos"),  # another word, without a star
        ("хер", "парикмахер и херувим"),
        ("бля", "сабля, рубля"),
        ("cop", "copper and scope"),
        ("заработ*", "подзаработать"),
        ("легкие деньги", "легкие, а деньги"),  # something else in between
        ("नम", "नमस्ते"),  # a vowel sign continues the word
        ("ка", "ка́ша"),  # so does a mark of stress
        ("рог", "the ROG laptop"),  # Latin, and no letter of it is feigned
        ("", "anything"),
        ("*", "anything"),
        ("  ", "anything"),
    ],
)
def test_terms_do_not_match(term: str, text: str) -> None:
    assert BannedTerms([term]).find(normalise(text)) is None


def test_terms_return_first_match_as_spelled() -> None:
    assert BannedTerms(["Poker", "КАЗИНО*", "casino"]).find(normalise("казиношка и casino")) == "КАЗИНО*"
