"""Normalises text to its visible form, and folds it for comparison."""

import re
import unicodedata
from dataclasses import dataclass
from functools import cache

from services.moderation.text.confusables import fold_confusables
from services.moderation.text.invisible import remove_invisible

_PASSES = 8
"""Removal may let neighbours combine into something removable; 3 passes is the most that was observed."""

_MARKS = "\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f"
_PILED_MARKS = re.compile(f"[{_MARKS}]{{4,}}")
"""More marks than any orthography puts on one letter: polytonic Greek and transcriptions use three."""
_SPACING_MARKS = re.compile("([\u00a8\u00af\u00b4\u00b8])")
"""NFKC turns these into a space and a mark, which splits a word (don´t) and breaks a shrug."""
_BREAK = re.compile("[\\s\u2800]*[\n\r\u2028\u2029][\\s\u2800]*")
_BLANK = re.compile("[^\\S\n]+|\u2800+")

_SPACED_LETTERS = re.compile(r"(?<![^\W_])[^\W\d_](?:([ .*_|/·•-]{1,2})[^\W\d_])(?:\1[^\W\d_]){2,}(?![^\W_])")
"""Four or more letters with equal separators: s p e l l e d."""
_BOXED_LETTERS = re.compile(
    "[\U0001f150-\U0001f169\U0001f170-\U0001f189]"
    "|(?<![\U0001f1e6-\U0001f1ff])[\U0001f1e6-\U0001f1ff](?![\U0001f1e6-\U0001f1ff])"
)
"""Emoji of letters. A regional indicator is one unless it is half of a flag."""
_FIRST_INDICATOR = 0x1F1E6
_FEWEST_BOXED = 3
"""Such letters from which a text is written in them: single ones are signs of a car park or of a blood group."""
_APOSTROPHES = str.maketrans(dict.fromkeys("’‘ʼ`´", "'") | {"ё": "е"})


@dataclass(frozen=True, slots=True)
class Normal:
    """Normalised text, the input of rules, score and judge.

    Args:
        text: NFKC, without invisible characters, white space collapsed (line breaks kept); case kept.
        folded: form for comparison: casefolded, on one line, confusables folded, spaced-out letters joined, marks that
            change no letter removed, ё as е.
        mixed_words: words that mix scripts, as written.
        hidden: number of invisible characters that only hiding explains.
    """

    text: str
    folded: str
    mixed_words: tuple[str, ...]
    hidden: int


def normalise(text: str) -> Normal:
    """Normalises a text. Never raises. The result is at most 18 times as long (NFKC's bound), mostly shorter."""
    text, hidden = remove_invisible(text)
    text = _normalise_fully(text)
    folded = fold_confusables(_join_letters(text))
    return Normal(text, _fold_for_comparison(folded.text), folded.mixed_words, hidden)


def letter_weight(text: str) -> int:
    """Returns the number of letters and digits; a character of a script without spaces counts as two."""
    return sum(2 if unicodedata.east_asian_width(char) == "W" else 1 for char in text if char.isalnum())


def _normalise_fully(text: str) -> str:
    """Applies NFKC and removes invisible characters, piled marks and extra white space, until nothing changes."""
    for _ in range(_PASSES):
        before = text
        text, _ = remove_invisible(_PILED_MARKS.sub("", text))
        text = "".join(
            piece if _SPACING_MARKS.fullmatch(piece) else unicodedata.normalize("NFKC", piece)
            for piece in _SPACING_MARKS.split(text)
        )
        text = _BREAK.sub("\n", _BLANK.sub(" ", text)).strip()
        if text == before:
            break
    return text


def _join_letters(text: str) -> str:
    """Joins letters that are spaced out or boxed."""
    if len(_BOXED_LETTERS.findall(text)) >= _FEWEST_BOXED:
        text = _BOXED_LETTERS.sub(_unbox, text)
    return _SPACED_LETTERS.sub(lambda letters: letters[0].replace(letters[1], ""), text)


def _unbox(box: re.Match[str]) -> str:
    code = ord(box[0])
    return chr(ord("A") + (code - _FIRST_INDICATOR if code >= _FIRST_INDICATOR else (code - 0x1F150) % 0x20))


def _fold_for_comparison(text: str) -> str:
    text = unicodedata.normalize("NFKC", text.translate(_APOSTROPHES).casefold()).translate(_APOSTROPHES)
    if not text.isascii():
        text = _removable_marks().sub("", text)
    return " ".join(text.split())


@cache
def _removable_marks() -> re.Pattern[str]:
    """Matches combining marks, Hebrew and Arabic points, enclosing marks, joiners and selectors.

    Marks that belong to a letter are composed with it by now. Vowel signs and viramas of Indic scripts do not match:
    their combining classes are 0 to 9, see https://www.unicode.org/reports/tr44/#Canonical_Combining_Class_Values
    """
    above_and_below = range(200, 256)
    lost = {1, *range(10, 37), *above_and_below}
    marks = "".join(
        char
        for char in map(chr, range(0x0300, 0x10000))
        if unicodedata.combining(char) in lost or unicodedata.category(char) == "Me"
    )
    return re.compile(f"[{marks}\u200c\u200d\ufe00-\ufe0f\U000e0000-\U000e0fff]")
