"""Banned words and phrases, found at the borders of words in any script."""

import re
import unicodedata
from collections.abc import Iterable
from functools import cache

from services.moderation.text.invisible import character_script
from services.moderation.text.normalise import Normal, normalise

_WITHOUT_SPACES = frozenset({"HAN", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN"})
_LAST_OF_PLANE = 0x10000
"""Beyond it only scripts of the past have marks, and a class of characters is no longer looked up in a table."""


class Terms:
    """A list of words and phrases to look for.

    Args:
        written: each a word or several; `stem*` for all that begin so, `*stem` for all that end so. Case, look-alike
            letters and what stands between words do not matter. What has no letter (an emoji, `$$$`) is found anywhere.
    """

    def __init__(self, written: Iterable[str]) -> None:
        self._words: dict[str, str] = {}
        self._symbols: dict[str, str] = {}
        for term in written:
            core = term.strip()
            begins, ends = not core.startswith("*"), not core.endswith("*")
            normal = normalise(core.strip("*"))
            for spelled in _spellings(normal):
                if words := _words_of(spelled):
                    before = " " if begins and character_script(words[0]) not in _WITHOUT_SPACES else ""
                    after = " " if ends and character_script(words[-1]) not in _WITHOUT_SPACES else ""
                    self._words.setdefault(f"{before}{words}{after}", term)
                elif spelled:
                    self._symbols.setdefault(spelled, term)

    def found_in(self, normal: Normal) -> str | None:
        """The first term of the list that a message contains, as it stands in the list."""
        spellings = _spellings(normal)
        padded = [f" {_words_of(spelling)} " for spelling in spellings]
        for needle, term in self._words.items():
            if any(needle in text for text in padded):
                return term
        return next((term for needle, term in self._symbols.items() if any(needle in text for text in spellings)), None)


def _spellings(normal: Normal) -> set[str]:
    """Folded, and as written: a word that only happens to look foreign is found as what it is, too."""
    return {normal.folded, " ".join(normal.text.casefold().replace("ё", "е").split())}


def _words_of(text: str) -> str:
    """The words of a text with one space between each two."""
    return _between_words().sub(" ", text).strip()


@cache
def _between_words() -> re.Pattern[str]:
    r"""What parts words. Marks do not, although `\w` lacks them: they are vowels in Indic scripts."""
    marks = "".join(char for char in map(chr, range(_LAST_OF_PLANE)) if unicodedata.category(char)[0] == "M")
    return re.compile(f"(?:_|[^\\w{marks}])+")
