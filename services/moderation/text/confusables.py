"""Folds look-alike letters of other scripts, so that each word has one script.

Only a word that mixes scripts, or is the odd one out in its text, is folded: a Russian word whose letters all have
Latin look-alikes ("сор") stays Russian in a Russian text.

The look-alikes are Unicode's confusables table (https://www.unicode.org/reports/tr39/) as packaged by
confusable-homoglyphs. Its last release is of January 2024; the table hardly changes, and no maintained package ships
it. Only the table and the scripts are used: the library's own verdicts are about whole strings and report an honest
"VPNом" or "µTorrent" as mixed, like a forged "раypal".
"""

import re
import unicodedata
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

from services.moderation.text.invisible import character_script

_WORD = re.compile(r"[^\W_](?:[^\W_]|[\u0300-\u036f\u0483-\u0489])*")
_UNSPACED = frozenset({"HAN", "HIRAGANA", "KATAKANA", "HANGUL", "BOPOMOFO", "COMMON"})
"""Scripts that mix with others within a word in ordinary text."""
_EUROPEAN = frozenset({"LATIN", "CYRILLIC", "GREEK"})
_SHORTEST = 3
"""Letters from which a word is reported as mixed; shorter ones are units, formulas and abbreviations."""

_FEWEST_FOREIGN = 2
"""Foreign letters from which the words of a text are reported: a single one is a slip of the keyboard."""

_LATIN = "LATIN"
_CYRILLIC = "CYRILLIC"
_CLOSE = {
    # Missing from Unicode's table, or different there, although fonts show them alike.
    _LATIN: {"к": "k", "Ι": "I", "І": "I", "Ӏ": "I", "ӏ": "l", "ё": "ë", "Ё": "Ë", "ї": "ï", "Ї": "Ï", "κ": "k"},
    _CYRILLIC: {"k": "к", "ë": "ё", "Ë": "Ё", "ï": "ї", "Ï": "Ї"},
}
_LOOSE = {
    # Look-alikes only in context; not sufficient by themselves.
    _LATIN: {"в": "b", "м": "m", "н": "h", "т": "t", "п": "n", "и": "u", "г": "r", "ш": "w", "я": "r"},
    _CYRILLIC: {"m": "м", "h": "н", "t": "т", "n": "п", "u": "и", "r": "г", "w": "ш", "b": "в", "N": "И", "R": "Я",
                "s": "ѕ", "g": "д"},
}  # fmt: skip
_DIGITS = {_LATIN: {"0": "o", "1": "l", "3": "e"}, _CYRILLIC: {"0": "о", "3": "з", "4": "ч", "6": "б"}}
_ALPHABET = {
    _LATIN: frozenset("abcdefghijklmnopqrstuvwxyz"),
    _CYRILLIC: frozenset("абвгдеёжзийклмнопрстуфхцчшщъыьэюяіїєґўј"),
}
"""Letters that a look-alike may stand for."""

_SMALL_CAPITALS = {
    char: name.removeprefix("LATIN LETTER SMALL CAPITAL ").lower()
    for code in (*range(0x0250, 0x02B0), *range(0x1D00, 0x1D2C), *range(0xA720, 0xA800))
    if re.fullmatch(r"LATIN LETTER SMALL CAPITAL [A-Z]", name := unicodedata.name(char := chr(code), ""))
} | {"ɑ": "a", "ɡ": "g"}
_PLAIN_LATIN = str.maketrans(_SMALL_CAPITALS)


@dataclass(frozen=True, slots=True)
class Folded:
    """A text with one script per word, and the words that mixed scripts, as written."""

    text: str
    mixed_words: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Mixture:
    """A word that mixes scripts.

    Args:
        targets: scripts that it can fold to; empty if it is only reported.
        is_loose: uses look-alikes that hold only in context.
    """

    targets: tuple[str, ...]
    is_loose: bool = False
    is_reported: bool = True


def fold_confusables(text: str) -> Folded:
    """Folds each word that mixes scripts or imitates another script to the script that it imitates."""
    text = text.translate(_PLAIN_LATIN)
    if text.isascii():
        return Folded(text, ())
    words = list(_WORD.finditer(text))
    scripts = [_find_scripts(word[0]) for word in words]
    mixtures = [_classify_mixture(word[0], found) for word, found in zip(words, scripts, strict=True)]
    letter_counts = _count_letters(words, scripts)
    pieces: list[str] = []
    end = 0
    for word, found, mixture in zip(words, scripts, mixtures, strict=True):
        target = None
        if mixture is not None and mixture.targets:
            target = max(mixture.targets, key=lambda script: (letter_counts[script], script == _LATIN))
        elif len(found) == 1 and _imitates_latin(word[0], found, letter_counts):
            target = _LATIN
        if target is not None:
            is_loose = mixture is not None and mixture.is_loose
            pieces += (text[end : word.start()], _fold(word[0], target, is_loose=is_loose))
            end = word.end()
    reported = tuple(word[0] for word, mixture in zip(words, mixtures, strict=True) if mixture and mixture.is_reported)
    if sum(map(_count_foreign_letters, reported)) < _FEWEST_FOREIGN:
        reported = ()
    return Folded("".join((*pieces, text[end:])), reported)


def _count_foreign_letters(word: str) -> int:
    """Returns the letters of a word that are not of its main script."""
    scripts = Counter(character_script(char) for char in word if char.isalpha())
    return scripts.total() - max(scripts.values(), default=0)


@lru_cache(maxsize=8192)
def _find_scripts(word: str) -> frozenset[str]:
    """Returns the scripts of a word's letters, without those that mix with any other."""
    if word.isascii():
        return frozenset({_LATIN})
    return frozenset(character_script(char) for char in word if char.isalpha()) - _UNSPACED


def _classify_mixture(word: str, scripts: frozenset[str]) -> _Mixture | None:
    """Classifies a word of several scripts; None if the mixture is ordinary."""
    if len(scripts) <= 1:
        return None
    letters = [char for char in word if char.isalpha()]
    own = [character_script(char) for char in letters]
    is_long = len(letters) >= _SHORTEST
    strict = tuple(target for target in sorted(scripts & _ALPHABET.keys()) if _all_look_like(letters, own, target))
    switches = sum(before != after for before, after in pairwise(own))
    if strict:
        # A forgery keeps the case; an abbreviation with an ending ("VPNа") does not.
        foreign = "".join(letters[: own.count(own[0])])
        is_ending = switches == 1 and len(foreign) > 1 and foreign.isupper() and letters[-1].islower()
        return None if is_ending else _Mixture(strict, is_reported=is_long)
    loose = tuple(
        target for target in sorted(scripts & _ALPHABET.keys()) if _all_look_like(letters, own, target, is_loose=True)
    )
    # A foreign name with an ending ("VPNом") switches once; a single foreign letter is no name.
    is_one_letter = own[0] == _LATIN and own.count(_LATIN) == 1 and loose == (_CYRILLIC,)
    if not is_long or (switches == 1 and not is_one_letter):
        return None
    return _Mixture(loose, is_loose=True) if scripts <= _EUROPEAN or loose else None


def _count_letters(words: list[re.Match[str]], scripts: list[frozenset[str]]) -> Counter[str]:
    """Counts the letters of unambiguous words by script."""
    letter_counts: Counter[str] = Counter()
    for word, its_scripts in zip(words, scripts, strict=True):
        if len(its_scripts) == 1:
            (script,) = its_scripts
            if script == _LATIN or not _looks_latin(word[0]):
                letter_counts[script] += len(word[0])
    return letter_counts


def _imitates_latin(word: str, scripts: frozenset[str], letter_counts: Counter[str]) -> bool:
    """Returns whether a word passes for Latin, in a text that is Latin apart from such words."""
    (script,) = scripts
    return script != _LATIN and letter_counts[_LATIN] > 1 and not letter_counts[script] and _looks_latin(word)


@lru_cache(maxsize=4096)
def _looks_latin(word: str) -> bool:
    letters = [char for char in word if char.isalpha()]
    return _all_look_like(letters, [character_script(char) for char in letters], _LATIN)


def _all_look_like(letters: list[str], scripts: list[str], target: str, *, is_loose: bool = False) -> bool:
    return all(
        script == target or _find_look_alike(letter, target, is_loose=is_loose)
        for letter, script in zip(letters, scripts, strict=True)
    )


def _fold(word: str, target: str, *, is_loose: bool) -> str:
    digits = _DIGITS[target]
    return "".join(
        char
        if character_script(char) == target
        else _find_look_alike(char, target, is_loose=is_loose) or digits.get(char, char)
        for char in word
    )


@lru_cache(maxsize=8192)
def _find_look_alike(char: str, target: str, *, is_loose: bool) -> str:
    """Returns the target script's look-alike of a letter, in the same case if possible; empty if there is none."""
    if not char.isalpha():
        return ""
    if close := _CLOSE[target].get(char):
        return close
    from confusable_homoglyphs import confusables

    found = [glyph["c"] for glyph in confusables.confusables_data.get(char, ())]
    known = [each for each in found if len(each) == 1 and each.lower() in _ALPHABET[target]]
    known.sort(key=lambda each: (each.isupper() != char.isupper(), each))
    if known:
        return known[0]
    return _LOOSE[target].get(char, "") if is_loose else ""
