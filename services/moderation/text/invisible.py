"""Removes invisible characters, except those that visible text needs.

A joiner holds an emoji sequence together and shapes Arabic and Indic words, a variation selector makes a heart red,
tags make the flag of Scotland: those stay. A removed character counts as hidden only if nothing but hiding explains
it: a misplaced soft hyphen counts, the direction marks of an Arabic text do not.
"""

import re
import unicodedata
from functools import lru_cache

from confusable_homoglyphs import categories

_ZWNJ, _ZWJ = "\u200c", "\u200d"
_JOINERS = frozenset({_ZWNJ, _ZWJ})
_BLACK_FLAG = "\U0001f3f4"
_OVERRIDES = frozenset("\u202d\u202e")
_DIRECTIONS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u2066\u2067\u2068\u2069")

_INVISIBLE = re.compile(
    "["
    "\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f"  # controls other than white space
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f"
    "\u200b-\u200f\u202a-\u202e\u2060-\u206f"  # zero-width characters, direction marks, invisible operators
    "\u3164\ufeff\uffa0\ufff0-\ufffb"
    "\ufe00-\ufe0f\U000e0100-\U000e01ef"  # variation selectors
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    "\U000e0000-\U000e00ff\U000e01f0-\U000e0fff"  # tags and reserved code points
    "\ud800-\udfff"  # lone surrogates
    "]+"
)
_FLAG_TAGS = re.compile("[\U000e0030-\U000e0039\U000e0061-\U000e007a]{3,6}\U000e007f")
"""Tags of a subdivision flag, https://www.unicode.org/reports/tr51/#flag-emoji-tag-sequences"""

_JOINED_SCRIPTS = frozenset(
    {"ARABIC", "SYRIAC", "MONGOLIAN", "NKO", "DEVANAGARI", "BENGALI", "GURMUKHI", "GUJARATI", "ORIYA", "TAMIL",
     "TELUGU", "KANNADA", "MALAYALAM", "SINHALA", "KHMER", "MYANMAR", "TIBETAN"}
)  # fmt: skip
"""Scripts with joiners and non-joiners in their spelling."""
_UNSPACED_SCRIPTS = frozenset({"THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN"})
"""Scripts that separate words by zero-width spaces."""
_SELECTED_SCRIPTS = frozenset({"HAN", "MONGOLIAN", "MYANMAR", "PHAGS_PA"})
"""Scripts with variants of letters, chosen by a variation selector."""
_SPOOFED_SCRIPTS = frozenset({"LATIN", "CYRILLIC", "GREEK", "ARMENIAN"})
_FIRST_RIGHT_TO_LEFT = "\u0590"


@lru_cache(maxsize=8192)
def character_script(char: str) -> str:
    """Returns a character's Unicode script in upper case; COMMON for inherited and unknown ones."""
    if char.isascii():
        return "LATIN" if char.isalpha() else "COMMON"
    script = categories.alias(char)
    return "COMMON" if script in {"INHERITED", "Unknown"} else script


def remove_invisible(text: str) -> tuple[str, int]:
    """Returns the text without invisible characters, and the number of those that were hidden on purpose."""
    if not _INVISIBLE.search(text):
        return text, 0
    hidden = 0
    is_right_to_left = any(_is_right_to_left(char) for char in text)

    def replace(run: re.Match[str]) -> str:
        nonlocal hidden
        before = text[run.start() - 1] if run.start() else ""
        after = text[run.end()] if run.end() < len(text) else ""
        kept = _keep_needed(run[0], before, after)
        rest = run[0]
        for char in kept:
            rest = rest.replace(char, "", 1)
        hidden += sum(_is_hidden(char, before, after, is_right_to_left=is_right_to_left) for char in rest)
        return kept

    return _INVISIBLE.sub(replace, text), hidden


def _keep_needed(run: str, before: str, after: str) -> str:
    """Returns the characters of an invisible run that the visible text needs."""
    if before == _BLACK_FLAG and (flag := _FLAG_TAGS.match(run)):
        return flag[0]
    kept = ""
    if _is_selector(run[0]) and before and (_takes_selector(before) or character_script(before) in _SELECTED_SCRIPTS):
        kept = run[0]
    joiner = next((char for char in run if char in _JOINERS), "")
    if joiner and before and after:
        joins_emoji = joiner == _ZWJ and _is_emoji(before) and _is_emoji(after)
        joins_letters = character_script(before) in _JOINED_SCRIPTS and character_script(after) in _JOINED_SCRIPTS
        if joins_emoji or joins_letters:
            kept += joiner
    return kept


def _is_hidden(char: str, before: str, after: str, *, is_right_to_left: bool) -> bool:
    """Returns whether only hiding explains this character, judged by its neighbours."""
    neighbours = {character_script(each) for each in (before, after) if each}
    if char in _OVERRIDES:
        return True
    if "\ud800" <= char <= "\udfff" or (char == "\ufeff" and not before):
        return False
    if char in _DIRECTIONS:
        return not is_right_to_left and bool(neighbours)
    if _is_selector(char):
        return bool(before) and character_script(before) in _SPOOFED_SCRIPTS
    if char in _JOINERS:
        return not neighbours & _JOINED_SCRIPTS and not any(each and _is_emoji(each) for each in (before, after))
    if char == "\u200b":
        return not neighbours & _UNSPACED_SCRIPTS
    return True


def _is_selector(char: str) -> bool:
    return "\ufe00" <= char <= "\ufe0f" or "\U000e0100" <= char <= "\U000e01ef" or "\u180b" <= char <= "\u180f"


def _is_emoji(char: str) -> bool:
    return unicodedata.category(char) in {"So", "Sk"}


def _takes_selector(char: str) -> bool:
    """Returns whether a variation selector applies: to symbols and to the characters of keycaps."""
    return unicodedata.category(char)[0] == "S" or char in "#*0123456789‼⁉〰〽"


def _is_right_to_left(char: str) -> bool:
    return char >= _FIRST_RIGHT_TO_LEFT and unicodedata.bidirectional(char) in {"R", "AL"}
