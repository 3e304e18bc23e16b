"""Banned words: found at the borders of words in any script and spelling, and nowhere else."""

import pytest

from services.moderation.screening.banned_terms import Terms
from services.moderation.text.normalise import normalise


@pytest.mark.parametrize(
    ("term", "text"),
    [
        ("casino", "Best CASINO!"),
        ("казино", "онлайн-казино, заходи"),  # a hyphen ends a word
        ("казино", "кaзинo"),  # with two Latin letters
        ("казино", "к\u200bа\u200bзино"),
        ("казино", "К А З И Н О рядом"),
        ("лёгкие деньги", "Легкие,  деньги?"),  # a phrase, whatever stands between its words
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
def test_found(term: str, text: str) -> None:
    assert Terms(["nothing of the sort", term]).found_in(normalise(text)) == term


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
def test_not_found(term: str, text: str) -> None:
    assert Terms([term]).found_in(normalise(text)) is None


def test_the_first_of_the_list_is_told_as_it_was_written() -> None:
    assert Terms(["Poker", "КАЗИНО*", "casino"]).found_in(normalise("казиношка и casino")) == "КАЗИНО*"
