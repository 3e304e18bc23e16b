"""A message's words as they are read, whatever they were spelled with."""

import re
import unicodedata
from dataclasses import dataclass
from functools import cache

from services.moderation.text.confusables import fold_confusables
from services.moderation.text.invisible import without_invisible

_PASSES = 8
"""Removing a character may let its neighbours combine, and what they combine to may be removable; seen: 3."""

_MARKS = "\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f"
_PILED_MARKS = re.compile(f"[{_MARKS}]{{4,}}")
"""More marks than any orthography puts on one letter: three in polytonic Greek and in transcriptions."""
_SPACING_MARKS = re.compile("([\u00a8\u00af\u00b4\u00b8])")
"""NFKC makes a space and a mark of these, which parts a word (don´t) and breaks a shrug."""
_BREAK = re.compile("[\\s\u2800]*[\n\r\u2028\u2029][\\s\u2800]*")
_BLANK = re.compile("[^\\S\n]+|\u2800+")

_SPACED_LETTERS = re.compile(r"(?<![^\W_])[^\W\d_](?:([ .*_|/·•-]{1,2})[^\W\d_])(?:\1[^\W\d_]){2,}(?![^\W_])")
"""Four letters or more with the same thing between each two: s p e l l e d."""
_BOXED_LETTERS = re.compile("[\U0001f150-\U0001f169\U0001f170-\U0001f189]{3,}")
_APOSTROPHES = str.maketrans(dict.fromkeys("’‘ʼ`´", "'") | {"ё": "е"})


@dataclass(frozen=True, slots=True)
class Normal:
    """What rules, score and judge read of a message.

    Args:
        text: NFKC, without what nobody sees, white space folded (a line break stays one); case kept.
        folded: the same for comparing: casefolded, on one line, confusables folded to one script where a word mixes
            scripts or imitates another, spaced-out letters joined, marks that change no letter dropped, ё as е.
        mixed_words: the words that mix scripts, as written.
        hidden: characters that were invisible where nothing but hiding explains them.
    """

    text: str
    folded: str
    mixed_words: tuple[str, ...]
    hidden: int


def normalise(text: str) -> Normal:
    """Read a text. Never raises; at most 18 times as long (NFKC's longest), mostly shorter."""
    text, hidden = without_invisible(text)
    text = _settled(text)
    folded = fold_confusables(_joined(text))
    return Normal(text, _for_comparing(folded.text), folded.mixed_words, hidden)


def _settled(text: str) -> str:
    """NFKC without invisible characters, piles of marks and superfluous white space, until nothing changes."""
    for _ in range(_PASSES):
        before = text
        text, _ = without_invisible(_PILED_MARKS.sub("", text))
        text = "".join(
            piece if _SPACING_MARKS.fullmatch(piece) else unicodedata.normalize("NFKC", piece)
            for piece in _SPACING_MARKS.split(text)
        )
        text = _BREAK.sub("\n", _BLANK.sub(" ", text)).strip()
        if text == before:
            break
    return text


def _joined(text: str) -> str:
    """Words spelled with something between their letters, or in boxes, as words."""
    text = _BOXED_LETTERS.sub(_unboxed, text)
    return _SPACED_LETTERS.sub(lambda letters: letters[0].replace(letters[1], ""), text)


def _unboxed(boxes: re.Match[str]) -> str:
    return "".join(chr(ord("A") + (ord(box) - 0x1F150) % 0x20) for box in boxes[0])


def _for_comparing(text: str) -> str:
    text = unicodedata.normalize("NFKC", text.translate(_APOSTROPHES).casefold()).translate(_APOSTROPHES)
    if not text.isascii():
        text = _changing_no_letter().sub("", text)
    return " ".join(text.split())


@cache
def _changing_no_letter() -> re.Pattern[str]:
    """Marks above, below and across a letter, points of Hebrew and Arabic, frames, joiners and selectors.

    Those that are a letter's own are composed with it by now; vowel signs and viramas of Indic scripts are no such
    marks, their combining classes are 0 to 9: https://www.unicode.org/reports/tr44/#Canonical_Combining_Class_Values
    """
    above_and_below = range(200, 256)
    lost = {1, *range(10, 37), *above_and_below}
    marks = "".join(
        char
        for char in map(chr, range(0x0300, 0x10000))
        if unicodedata.combining(char) in lost or unicodedata.category(char) == "Me"
    )
    return re.compile(f"[{marks}\u200c\u200d\ufe00-\ufe0f\U000e0000-\U000e0fff]")
