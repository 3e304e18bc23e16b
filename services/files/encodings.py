"""Decodes text files, of which few say their encoding: by a byte order mark, as UTF-8, or by their letters.

A guess is named as one, and bytes that are no text in any encoding are refused: unreadable characters must never reach
a model as if they were the text.
"""

import codecs
from collections.abc import Sequence
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
"""Encodings that are told apart by their letters; of two that fit equally well, the first."""
LOOKED_AT = 65_536
"""Bytes by which an encoding is found: a few milliseconds."""
_DAMAGED_SHARE = 0.02
"""Largest share of characters that are damaged in a text that counts as UTF-8."""
_TEXT_SHARE = 0.95
"""Least share of characters of the usual alphabets in a text that counts as UTF-16 without a mark."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """A decoded text.

    Args:
        guessed_encoding: set where the file does not tell its encoding; else empty.
    """

    text: str
    guessed_encoding: str = ""


def decode(data: bytes) -> Decoded | None:
    """Returns the text of a file; None where it is no text in any known encoding."""
    for mark, encoding in MARKS:
        if data.startswith(mark):
            return Decoded(data.decode(encoding, "replace"))
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
    """Returns UTF-8 with some bytes missing; the gaps are marked."""
    text = data.decode(errors="replace")
    damaged = text.count("\ufffd")
    written = sum(character > "\x7f" for character in text) - damaged
    return Decoded(text) if damaged <= _DAMAGED_SHARE * written else None


def _decode_by_letters(data: bytes) -> Decoded | None:
    # Loaded for such files only: 4 MB and a fifth of a second.
    from charset_normalizer import from_bytes

    sample = data[:LOOKED_AT]
    if len(sample) < len(data):
        # Not in the middle of a character.
        sample = sample[: sample.rfind(b"\n") + 1] or sample
    matches = {match.encoding: match for match in from_bytes(sample, cp_isolation=list(CANDIDATES))}
    fitting = [name for name in CANDIDATES if name in matches]
    if not fitting:
        return None
    best = min(fitting, key=lambda name: matches[name].chaos)
    try:
        return Decoded(data.decode(best), best.replace("_", "-"))
    except UnicodeDecodeError:
        return None
