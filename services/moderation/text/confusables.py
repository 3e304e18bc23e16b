"""Letters that pass for those of another script, folded to one script a word.

Only a word that mixes scripts or stands as a foreigner among its like is touched: a Russian word that happens to have
Latin look-alikes for all its letters ("сор") stays Russian in a Russian text. The table is Unicode's own
(https://www.unicode.org/reports/tr39/), as the library confusable-homoglyphs has it, read letter by letter: its own
verdicts are about whole strings and call an honest "VPNом" or "µTorrent" as mixed as a forged "раypal".
"""

import re
import unicodedata
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

from confusable_homoglyphs import confusables

from services.moderation.text.invisible import character_script

_WORD = re.compile(r"[^\W_](?:[^\W_]|[\u0300-\u036f\u0483-\u0489])*")
_UNSPACED = frozenset({"HAN", "HIRAGANA", "KATAKANA", "HANGUL", "BOPOMOFO", "COMMON"})
"""Scripts that stand beside others in one word as a matter of course."""
_EUROPEAN = frozenset({"LATIN", "CYRILLIC", "GREEK"})
_SHORTEST = 3
"""Letters of a word that can be said to mix scripts: fewer are units, formulas and abbreviations."""

_LATIN = "LATIN"
_CYRILLIC = "CYRILLIC"
_CLOSE = {
    # What Unicode's table has not, or has otherwise, and every font shows alike.
    _LATIN: {"к": "k", "Ι": "I", "І": "I", "Ӏ": "I", "ӏ": "l", "ё": "ë", "Ё": "Ë", "ї": "ï", "Ї": "Ï", "κ": "k"},
    _CYRILLIC: {"k": "к", "ë": "ё", "Ë": "Ё", "ï": "ї", "Ï": "Ї"},
}
_LOOSE = {
    # Look-alikes only to somebody who reads on; they decide nothing by themselves.
    _LATIN: {"в": "b", "м": "m", "н": "h", "т": "t", "п": "n", "и": "u", "г": "r", "ш": "w", "я": "r"},
    _CYRILLIC: {"m": "м", "h": "н", "t": "т", "n": "п", "u": "и", "r": "г", "w": "ш", "b": "в", "N": "И", "R": "Я",
                "s": "ѕ", "g": "д"},
}  # fmt: skip
_DIGITS = {_LATIN: {"0": "o", "1": "l", "3": "e"}, _CYRILLIC: {"0": "о", "3": "з", "4": "ч", "6": "б"}}
_ALPHABET = {
    _LATIN: frozenset("abcdefghijklmnopqrstuvwxyz"),
    _CYRILLIC: frozenset("абвгдеёжзийклмнопрстуфхцчшщъыьэюяіїєґўј"),
}
"""The letters that a look-alike stands for: it imitates what readers know."""

_SMALL_CAPITALS = {
    char: name.removeprefix("LATIN LETTER SMALL CAPITAL ").lower()
    for code in (*range(0x0250, 0x02B0), *range(0x1D00, 0x1D2C), *range(0xA720, 0xA800))
    if re.fullmatch(r"LATIN LETTER SMALL CAPITAL [A-Z]", name := unicodedata.name(char := chr(code), ""))
} | {"ɑ": "a", "ɡ": "g"}
_PLAIN_LATIN = str.maketrans(_SMALL_CAPITALS)


@dataclass(frozen=True, slots=True)
class Folded:
    """A text whose words are each of one script, and those that were not, as written."""

    text: str
    mixed_words: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Mixture:
    """A word of several scripts: to which of them it folds, nowhere when it is only to be told."""

    targets: tuple[str, ...]
    is_loose: bool = False
    is_told: bool = True


def fold_confusables(text: str) -> Folded:
    """Give each word that mixes scripts, or imitates another one, the script that it pretends to have."""
    text = text.translate(_PLAIN_LATIN)
    if text.isascii():
        return Folded(text, ())
    words = list(_WORD.finditer(text))
    scripts = [_scripts_of(word[0]) for word in words]
    mixtures = {
        place: mixture for place, word in enumerate(words) if (mixture := _mixture(word[0], scripts[place])) is not None
    }
    census = _census(words, scripts)
    pieces: list[str] = []
    end = 0
    for place, word in enumerate(words):
        target, is_loose = None, False
        if (mixture := mixtures.get(place)) is not None and mixture.targets:
            target, is_loose = (
                max(mixture.targets, key=lambda script: (census[script], script == _LATIN)),
                mixture.is_loose,
            )
        elif len(scripts[place]) == 1 and _imitates_latin(word[0], scripts[place], census):
            target = _LATIN
        if target is not None:
            pieces += (text[end : word.start()], _fold(word[0], target, is_loose=is_loose))
            end = word.end()
    return Folded(
        "".join((*pieces, text[end:])), tuple(words[place][0] for place, mixture in mixtures.items() if mixture.is_told)
    )


@lru_cache(maxsize=8192)
def _scripts_of(word: str) -> frozenset[str]:
    """The scripts of a word's letters, without those that mix with anything."""
    if word.isascii():
        return frozenset({_LATIN})
    return frozenset(character_script(char) for char in word if char.isalpha()) - _UNSPACED


def _mixture(word: str, scripts: frozenset[str]) -> _Mixture | None:
    """What to do with a word of several scripts; None where there is nothing odd about it."""
    if len(scripts) < 2:  # noqa: PLR2004 - one script is no mixture
        return None
    letters = [char for char in word if char.isalpha()]
    own = [character_script(char) for char in letters]
    is_long = len(letters) >= _SHORTEST
    strict = tuple(target for target in sorted(scripts & _ALPHABET.keys()) if _all_look_like(letters, own, target))
    switches = sum(before != after for before, after in pairwise(own))
    if strict:
        # A forger keeps the case, an abbreviation with an ending ("VPNа") does not.
        foreign = "".join(letters[: own.count(own[0])])
        is_ending = switches == 1 and len(foreign) > 1 and foreign.isupper() and letters[-1].islower()
        return None if is_ending else _Mixture(strict, is_told=is_long)
    loose = tuple(
        target for target in sorted(scripts & _ALPHABET.keys()) if _all_look_like(letters, own, target, is_loose=True)
    )
    # One switch is how a foreign name takes an ending ("VPNом"), unless all of the foreign part is a single letter.
    is_one_letter = own[0] == _LATIN and own.count(_LATIN) == 1 and loose == (_CYRILLIC,)
    if not is_long or (switches == 1 and not is_one_letter):
        return None
    return _Mixture(loose, is_loose=True) if scripts <= _EUROPEAN or loose else None


def _census(words: list[re.Match[str]], scripts: list[frozenset[str]]) -> Counter[str]:
    """The letters of the text's undoubted words by their script."""
    census: Counter[str] = Counter()
    for word, its_scripts in zip(words, scripts, strict=True):
        if len(its_scripts) == 1:
            (script,) = its_scripts
            if script == _LATIN or not _looks_latin(word[0]):
                census[script] += len(word[0])
    return census


def _imitates_latin(word: str, scripts: frozenset[str], census: Counter[str]) -> bool:
    """Whether a word of another script could be Latin, in a text that is Latin apart from such words."""
    (script,) = scripts
    return script != _LATIN and census[_LATIN] > 1 and not census[script] and _looks_latin(word)


@lru_cache(maxsize=4096)
def _looks_latin(word: str) -> bool:
    letters = [char for char in word if char.isalpha()]
    return _all_look_like(letters, [character_script(char) for char in letters], _LATIN)


def _all_look_like(letters: list[str], scripts: list[str], target: str, *, is_loose: bool = False) -> bool:
    return all(
        script == target or _look_alike(letter, target, is_loose=is_loose)
        for letter, script in zip(letters, scripts, strict=True)
    )


def _fold(word: str, target: str, *, is_loose: bool) -> str:
    digits = _DIGITS[target]
    return "".join(
        char
        if character_script(char) == target
        else _look_alike(char, target, is_loose=is_loose) or digits.get(char, char)
        for char in word
    )


@lru_cache(maxsize=8192)
def _look_alike(char: str, target: str, *, is_loose: bool) -> str:
    """The letter of the target's alphabet that passes for this one, in the same case where there is one; or nothing."""
    if not char.isalpha():
        return ""
    if close := _CLOSE[target].get(char):
        return close
    found = [glyph["c"] for glyph in confusables.confusables_data.get(char, ())]
    known = [each for each in found if len(each) == 1 and each.lower() in _ALPHABET[target]]
    known.sort(key=lambda each: (each.isupper() != char.isupper(), each))
    if known:
        return known[0]
    return _LOOSE[target].get(char, "") if is_loose else ""
