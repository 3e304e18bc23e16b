"""Decodes text files: by a byte order mark, as UTF-8, or by detecting the encoding from their letters.

A detected encoding is reported as a guess. Bytes that are not text in any encoding are refused: garbled characters must
never reach a model as the text of the file.
"""

import codecs
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

MARKS: Sequence[tuple[bytes, str]] = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
"""Encodings by byte order mark. UTF-32 comes first: its little-endian mark begins with that of UTF-16."""
CANDIDATES: Sequence[str] = (
    "cp1251", "koi8_r", "koi8_u", "cp866", "iso8859_5", "mac_cyrillic", "cp1252", "cp1250", "iso8859_2", "cp1253",
    "cp1254", "cp1255", "cp1256", "cp1257", "shift_jis", "euc_jp", "gb18030", "big5", "euc_kr",
)  # fmt: skip
"""Encodings to detect; the earlier one wins if two fit equally well."""
LOOKED_AT = 65_536
"""Bytes examined for detection, which takes a few milliseconds."""
_FOREIGN = re.compile(rb"[\x80-\xff][^\n]*")
"""A line from its first non-ASCII letter on."""
_CONTEXT = 200
"""Bytes before that letter that are examined as its context."""
_MIXED = re.compile(r"[A-Za-z][\u0370-\u06ff]|[\u0370-\u06ff][A-Za-z]")
"""A Latin letter next to one of another alphabet within a word."""
_DAMAGED_SHARE = 0.02
"""Maximum share of damaged characters among the non-ASCII ones."""
_TEXT_SHARE = 0.95
"""Minimum share of characters of the usual alphabets in UTF-16 without a byte order mark."""


_SHIFTS = (b"\x1b$B", b"\x1b$@")
"""The sequences by which Japanese mail of 7 bits begins its kanji."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """A decoded text.

    Args:
        guessed_encoding: name of a detected encoding; empty if the file declares its encoding or is UTF-8.
    """

    text: str
    guessed_encoding: str = ""


def decode(data: bytes) -> Decoded | None:
    """Returns the text of a file; None if it is not text in any known encoding."""
    for mark, encoding in MARKS:
        if data.startswith(mark):
            return Decoded(data.decode(encoding, "replace"))
    if any(shift in data[:LOOKED_AT] for shift in _SHIFTS):
        with suppress(UnicodeDecodeError):
            return Decoded(data.decode("iso2022_jp_2"), "ISO-2022-JP")
    try:
        return Decoded(data.decode()) if b"\0" not in data[:LOOKED_AT] else _decode_utf16(data)
    except UnicodeDecodeError:
        return _decode_damaged(data) or _decode_by_letters(data)


def _decode_utf16(data: bytes) -> Decoded | None:
    """Returns UTF-16 without a mark, whose ASCII has zeros in every other byte."""
    found = max(
        (data[: len(data) & ~1].decode(encoding, "replace") for encoding in ("utf-16-le", "utf-16-be")),
        key=_usual_share,
    )
    return Decoded(found, "UTF-16") if _usual_share(found) >= _TEXT_SHARE else None


def _usual_share(text: str) -> float:
    """Returns the share of characters of European alphabets; few others come from swapped bytes or other data."""
    sample = text[:LOOKED_AT]
    usual = sum((character.isprintable() and character < "\u0530") or character in "\r\n\t" for character in sample)
    return usual / (len(sample) or 1)


def _decode_damaged(data: bytes) -> Decoded | None:
    """Returns UTF-8 that was cut within a character, or has some bytes missing; the gaps are marked."""
    with suppress(UnicodeDecodeError):
        cut = codecs.getincrementaldecoder("utf-8")().decode(data)
        if not cut.isascii():
            return Decoded(f"{cut}\ufffd")
    text = data.decode(errors="replace")
    return Decoded(text) if _is_sound(text) else None


def _is_sound(text: str) -> bool:
    """Returns whether few of the characters outside of ASCII are damaged."""
    damaged = text.count("\ufffd")
    written = _count_foreign(text) - damaged
    return damaged <= _DAMAGED_SHARE * written


def _count_foreign(text: str) -> int:
    """Returns the number of characters outside of ASCII."""
    return len(text) - len(text.encode("ascii", "ignore"))


def _count_oddness(text: str, chaos: float) -> float:
    """Returns how odd a text looks; the accented letters of a few Latin words pass for those of any alphabet."""
    return chaos + len(_MIXED.findall(text)) / (_count_foreign(text) or 1)


def _decode_by_letters(data: bytes) -> Decoded | None:
    # Loaded for such files only: 4 MB and a fifth of a second.
    from charset_normalizer import from_bytes

    matches = {match.encoding: match for match in from_bytes(_take_sample(data), cp_isolation=list(CANDIDATES))}
    fitting = [name for name in CANDIDATES if name in matches]
    if not fitting:
        return None
    best = min(fitting, key=lambda name: _count_oddness(str(matches[name]), matches[name].chaos))
    text = data.decode(best, "replace")
    return Decoded(text, best.replace("_", "-")) if _is_sound(text) else None


def _take_sample(data: bytes) -> bytes:
    """Returns the lines with letters outside of ASCII; the others are the same in every encoding."""
    lines: list[bytes] = []
    left = LOOKED_AT
    for found in _FOREIGN.finditer(data):
        earliest = max(0, found.start() - _CONTEXT)
        start = data.rfind(b"\n", earliest, found.start()) + 1 or earliest
        lines.append(data[start : min(found.end() + 1, start + left)])
        left -= len(lines[-1])
        if left <= 0:
            # Not in the middle of a character.
            return b"".join(lines[:-1]) or lines[0]
    return b"".join(lines)
