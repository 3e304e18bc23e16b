"""Length of OGG/Opus, read from its pages without decoding."""

import struct

_HEAD_BYTES = 4096
_SAMPLES_A_SECOND = 48_000
"""Granule positions of Opus count samples at 48 kHz, independent of the recording's rate (RFC 7845)."""
_HOURS_24 = 86_400.0


def is_ogg_opus(data: bytes) -> bool:
    """Returns whether a file is OGG with Opus in it: Telegram's voice messages, and what transcription servers take."""
    return data.startswith(b"OggS") and b"OpusHead" in data[:_HEAD_BYTES]


def ogg_seconds(data: bytes) -> float:
    """Returns the length by the position of the last page; 0 where there is none.

    A forged file may name another length: the result bounds honest files and prices, its size bounds the others.
    """
    page = data.rfind(b"OggS")
    if page < 0 or len(data) < page + 14:
        return 0.0
    (position,) = struct.unpack_from("<q", data, page + 6)
    return min(max(position / _SAMPLES_A_SECOND, 0.0), _HOURS_24)
