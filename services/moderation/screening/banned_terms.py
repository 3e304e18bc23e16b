"""Finds banned words and phrases, at word boundaries of any script."""

import re
import unicodedata
from collections.abc import Iterable
from functools import cache

from services.moderation.text.invisible import character_script
from services.moderation.text.normalise import Normal, normalise

_WITHOUT_SPACES = frozenset({"HAN", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN"})
_END_OF_BMP = 0x10000
"""Beyond it only historic scripts have marks, and a character class is no longer a table lookup."""


class BannedTerms:
    """A parsed list of banned terms.

    Args:
        terms: words or phrases; `stem*` matches words that start with it, `*stem` words that end with it. Case,
            look-alike letters and separators between words are ignored. Terms without letters (an emoji, `$$$`) match
            anywhere.
    """

    def __init__(self, terms: Iterable[str]) -> None:
        self._words: dict[str, str] = {}
        self._symbols: dict[str, str] = {}
        for term in terms:
            core = term.strip()
            begins, ends = not core.startswith("*"), not core.endswith("*")
            normal = normalise(core.strip("*"))
            for spelled in _spellings(normal):
                if words := _split_words(spelled):
                    before = " " if begins and character_script(words[0]) not in _WITHOUT_SPACES else ""
                    after = " " if ends and character_script(words[-1]) not in _WITHOUT_SPACES else ""
                    self._words.setdefault(f"{before}{words}{after}", term)
                elif spelled:
                    self._symbols.setdefault(spelled, term)

    def find(self, normal: Normal) -> str | None:
        """Returns the first term that a message contains, as spelled in the list."""
        spellings = _spellings(normal)
        padded = [f" {_split_words(spelling)} " for spelling in spellings]
        for needle, term in self._words.items():
            if any(needle in text for text in padded):
                return term
        return next((term for needle, term in self._symbols.items() if any(needle in text for text in spellings)), None)


def _spellings(normal: Normal) -> set[str]:
    """Returns the folded and the written text: a word that only resembles another script matches as itself, too."""
    return {normal.folded, " ".join(normal.text.casefold().replace("ё", "е").split())}


def _split_words(text: str) -> str:
    """Returns the words of a text, separated by single spaces."""
    return _separators().sub(" ", text).strip()


@cache
def _separators() -> re.Pattern[str]:
    r"""Returns a pattern for word separators. Marks are none, although `\w` lacks them: Indic vowels are marks."""
    marks = "".join(char for char in map(chr, range(_END_OF_BMP)) if unicodedata.category(char)[0] == "M")
    return re.compile(f"(?:_|[^\\w{marks}])+")
