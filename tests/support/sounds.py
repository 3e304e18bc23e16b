"""Recordings: their headers alone, or real sound."""

import io
import math
import struct
import wave
from fractions import Fraction

import av


def ogg(seconds: float = 2.0, filling: bytes = b"sound") -> bytes:
    """Returns the pages of an OGG/Opus file of that length, with nothing to decode in them."""
    return _page(0, b"OpusHead\x01\x01" + bytes(9)) + _page(round(seconds * 48_000), filling)


def _page(position: int, body: bytes) -> bytes:
    return b"OggS" + struct.pack("<BBqIIIB", 0, 2, position, 1, 0, 0, 1) + bytes([len(body)]) + body


def wav(seconds: float = 1.0, rate: int = 44_100, channels: int = 2) -> bytes:
    """Returns a tone."""
    target = io.BytesIO()
    with wave.open(target, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        period = b"".join(struct.pack("<h", round(8000 * math.sin(i / 8))) * channels for i in range(1000))
        file.writeframes((period * (round(seconds * rate) // 1000 + 1))[: round(seconds * rate) * 2 * channels])
    return target.getvalue()


def opus(seconds: float = 1.0) -> bytes:
    """Returns a tone in OGG/Opus, as a voice message has it."""
    target = io.BytesIO()
    with av.open(target, "w", format="ogg") as file, av.open(io.BytesIO(wav(seconds))) as tone:
        sound = file.add_stream("libopus", rate=48_000, layout="mono")
        for frame in tone.decode(audio=0):
            file.mux(sound.encode(frame))
        file.mux(sound.encode(None))
    return target.getvalue()


def video_note(seconds: float = 1.0) -> bytes:
    """Returns an MP4 with a picture and a tone, as a phone records it."""
    target = io.BytesIO()
    with av.open(target, "w", format="mp4") as file, av.open(io.BytesIO(wav(seconds))) as tone:
        picture = file.add_stream("mpeg4", rate=10)
        picture.width = picture.height = 64
        sound = file.add_stream("aac", rate=44_100, layout="stereo")
        for frame in tone.decode(audio=0):
            file.mux(sound.encode(frame))
        file.mux(sound.encode(None))
        for number in range(round(seconds * 10)):
            frame = av.VideoFrame(64, 64, "yuv420p")
            frame.pts, frame.time_base = number, Fraction(1, 10)
            file.mux(picture.encode(frame))
        file.mux(picture.encode(None))
    return target.getvalue()
