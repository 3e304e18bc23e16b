"""Characters that nobody sees: taken out, except where they belong to what is seen.

A joiner holds an emoji sequence together and shapes Arabic and Indic words, a variation selector makes a heart red,
tags make the flag of Scotland: those stay. What is taken out is counted where only somebody who hides something would
have put it, so that a soft hyphen too many counts and an Arabic text with its marks of direction does not.
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
    "\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f"  # controls that are no white space
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f"
    "\u200b-\u200f\u202a-\u202e\u2060-\u206f"  # zero-width, marks of direction, invisible operators
    "\u3164\ufeff\uffa0\ufff0-\ufffb"
    "\ufe00-\ufe0f\U000e0100-\U000e01ef"  # variation selectors
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    "\U000e0000-\U000e00ff\U000e01f0-\U000e0fff"  # tags, and what is reserved beside them
    "\ud800-\udfff"  # half a pair: no character at all
    "]+"
)
_FLAG_TAGS = re.compile("[\U000e0030-\U000e0039\U000e0061-\U000e007a]{3,6}\U000e007f")
"""The tags of a subdivision's flag, https://www.unicode.org/reports/tr51/#flag-emoji-tag-sequences"""

_JOINED_SCRIPTS = frozenset(
    {"ARABIC", "SYRIAC", "MONGOLIAN", "NKO", "DEVANAGARI", "BENGALI", "GURMUKHI", "GUJARATI", "ORIYA", "TAMIL",
     "TELUGU", "KANNADA", "MALAYALAM", "SINHALA", "KHMER", "MYANMAR", "TIBETAN"}
)  # fmt: skip
"""Where a joiner, or its opposite, is part of how a word is spelled."""
_UNSPACED_SCRIPTS = frozenset({"THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN"})
"""Where a zero-width space parts words."""
_SELECTED_SCRIPTS = frozenset({"HAN", "MONGOLIAN", "MYANMAR", "PHAGS_PA"})
"""Where a variation selector chooses between two shapes of a letter."""
_SPOOFED_SCRIPTS = frozenset({"LATIN", "CYRILLIC", "GREEK", "ARMENIAN"})
_FIRST_RIGHT_TO_LEFT = "\u0590"


@lru_cache(maxsize=8192)
def character_script(char: str) -> str:
    """The script of a character by its Unicode name in capitals; COMMON where it belongs to none by itself."""
    if char.isascii():
        return "LATIN" if char.isalpha() else "COMMON"
    script = categories.alias(char)
    return "COMMON" if script in {"INHERITED", "Unknown"} else script


def without_invisible(text: str) -> tuple[str, int]:
    """The text without what nobody sees, and how many of those characters were hidden on purpose."""
    if not _INVISIBLE.search(text):
        return text, 0
    hidden = 0
    is_right_to_left = any(_is_right_to_left(char) for char in text)

    def kept(run: re.Match[str]) -> str:
        nonlocal hidden
        before = text[run.start() - 1] if run.start() else ""
        after = text[run.end()] if run.end() < len(text) else ""
        stays = _belongs(run[0], before, after)
        rest = run[0]
        for char in stays:
            rest = rest.replace(char, "", 1)
        hidden += sum(_is_hidden(char, before, after, is_right_to_left=is_right_to_left) for char in rest)
        return stays

    return _INVISIBLE.sub(kept, text), hidden


def _belongs(run: str, before: str, after: str) -> str:
    """What of a run of invisible characters is part of what is seen."""
    if before == _BLACK_FLAG and (flag := _FLAG_TAGS.match(run)):
        return flag[0]
    stays = ""
    if _is_selector(run[0]) and before and (_is_pictured(before) or character_script(before) in _SELECTED_SCRIPTS):
        stays = run[0]
    joiner = next((char for char in run if char in _JOINERS), "")
    if joiner and before and after:
        joins_pictures = joiner == _ZWJ and _is_picture(before) and _is_picture(after)
        joins_letters = character_script(before) in _JOINED_SCRIPTS and character_script(after) in _JOINED_SCRIPTS
        if joins_pictures or joins_letters:
            stays += joiner
    return stays


def _is_hidden(char: str, before: str, after: str, *, is_right_to_left: bool) -> bool:
    """Whether somebody hides something with this character, as far as one can tell from where it stands."""
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
        return not neighbours & _JOINED_SCRIPTS and not any(each and _is_picture(each) for each in (before, after))
    if char == "\u200b":
        return not neighbours & _UNSPACED_SCRIPTS
    return True


def _is_selector(char: str) -> bool:
    return "\ufe00" <= char <= "\ufe0f" or "\U000e0100" <= char <= "\U000e01ef" or "\u180b" <= char <= "\u180f"


def _is_picture(char: str) -> bool:
    return unicodedata.category(char) in {"So", "Sk"}


def _is_pictured(char: str) -> bool:
    """Whether a variation selector may show the character as a picture: symbols, and what keycaps are made of."""
    return unicodedata.category(char)[0] == "S" or char in "#*0123456789‼⁉〰〽"


def _is_right_to_left(char: str) -> bool:
    return char >= _FIRST_RIGHT_TO_LEFT and unicodedata.bidirectional(char) in {"R", "AL"}
