"""Converts audio to mono OGG/Opus or MP3. Runs in a child process only, since FFmpeg's parsers are native code."""

import io
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from typing import cast

import av
import av.logging
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container.input import InputContainer
from av.error import FFmpegError, InvalidDataError

from services.files.child import Answer, Options, Refused

# Used as soon as a container has such a stream, when nothing can be imported any more.
for _name in ("av.subtitles.codeccontext", "av.subtitles.stream"):
    import_module(_name)

CONTAINERS = "ogg,mov,mp3,wav,flac,aac,matroska,webm,amr,aiff,asf,caf,w64,au"
"""Containers that FFmpeg may open: those of playlists, in which a file may name addresses, are not among them."""
RATE = 16_000
TARGETS: Mapping[str, tuple[str, int]] = {"ogg": ("libopus", 24_000), "mp3": ("libmp3lame", 40_000)}
"""Codec and bits a second of each format that is written."""


def load(data: bytes, options: Options) -> Callable[[], Answer]:
    """Returns the work on a recording.

    Args:
        data: the file.
        options: `longest_s`, the longest sound in seconds; measured by decoding, since headers may be wrong;
            `target`, of `TARGETS`.
    """
    return lambda: _convert(data, options["longest_s"], options.get("target", "ogg"))


def _convert(data: bytes, longest_s: float, target_format: str) -> Answer:
    """Returns the sound in another format.

    Raises:
        Refused: there is no sound, too much of it, or none that can be decoded.
    """
    av.logging.set_level(None)
    out = io.BytesIO()
    limits = {"format_whitelist": CONTAINERS, "protocol_whitelist": "pipe"}
    try:
        with av.open(io.BytesIO(data), "r", metadata_errors="ignore", options=limits) as source:
            if not source.streams.audio:
                raise Refused("no-sound")
            with av.open(out, "w", format=target_format) as target:
                codec, bits_a_second = TARGETS[target_format]
                stream = cast("AudioStream", target.add_stream(codec, rate=RATE, options={}, layout="mono"))
                stream.bit_rate = bits_a_second
                seconds = 0.0
                for frame in _frames(source, source.streams.audio[0]):
                    seconds += frame.samples / frame.sample_rate
                    if seconds > longest_s:
                        raise Refused("too-long")
                    frame.pts = None
                    target.mux(stream.encode(frame))
                if not seconds:
                    raise Refused("no-sound")
                target.mux(stream.encode(None))
    except FFmpegError as error:
        raise Refused("broken") from error
    return {"seconds": round(seconds, 2)}, out.getvalue()


def _frames(source: InputContainer, stream: AudioStream) -> Iterator[AudioFrame]:
    for packet in source.demux(stream):
        try:
            yield from packet.decode()
        except InvalidDataError:
            # A damaged packet is a gap; the rest can be heard.
            continue
