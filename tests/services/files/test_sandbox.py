"""Files are read in a child, whose end is the worst that a file can cause."""

import asyncio
import os
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import av
import pytest

from core.ogg import is_ogg_opus, ogg_seconds
from services.files import sandbox
from services.files.sandbox import SOUND_LIMITS, FileRefused, Refusal, Result, Sandbox, SandboxLimits, Task
from tests.support.clock import settle, until
from tests.support.sounds import ogg, video_note, wav

pytestmark = pytest.mark.integration

PLAYLIST = b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile:///etc/hostname\n#EXT-X-ENDLIST\n"


def children() -> set[str]:
    """Return the processes that this one has started and not collected."""
    return set(Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text(encoding="ascii").split())


async def convert(data: bytes, limits: SandboxLimits = SOUND_LIMITS, longest_s: float = 60) -> bytes:
    return (await Sandbox().run(Task.SOUND, data, limits, {"longest_s": longest_s})).body


@pytest.mark.parametrize("make", [wav, video_note], ids=["stereo", "video note"])
async def test_sound_becomes_ogg_opus(make: Callable[[], bytes]) -> None:
    converted = await convert(make())
    assert is_ogg_opus(converted)
    assert ogg_seconds(converted) == pytest.approx(1, abs=0.1)
    with av.open(BytesIO(converted)) as file:
        assert (file.streams.audio[0].codec_context.name, file.streams.audio[0].layout.name) == ("opus", "mono")


async def test_a_truncated_recording_is_heard_as_far_as_it_goes() -> None:
    assert 0.3 < ogg_seconds(await convert(wav(1)[:100_000])) < 0.9


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", Refusal.EMPTY),
        (b"not a sound " * 100, Refusal.BROKEN),
        # Playlists may name files and addresses.
        (PLAYLIST, Refusal.BROKEN),
        (wav(0), Refusal.NO_SOUND),
        (wav(3), Refusal.TOO_LONG),
    ],
    ids=["empty", "junk", "playlist", "silent", "long"],
)
async def test_what_is_no_recording_is_refused_with_its_reason(data: bytes, why: Refusal) -> None:
    with pytest.raises(FileRefused) as caught:
        await convert(data, longest_s=2)
    assert caught.value.why is why


@pytest.mark.parametrize(
    "limits",
    [
        SandboxLimits(memory=64 << 20),
        SandboxLimits(wall_s=0.01),
        SandboxLimits(output=10 - 64 * 1024),
    ],
    ids=["memory", "time", "output"],
)
async def test_each_limit_ends_the_child(limits: SandboxLimits) -> None:
    others = children()  # servers of other tests
    with pytest.raises(FileRefused) as caught:
        await convert(wav(1), limits)
    assert caught.value.why is Refusal.TOO_MUCH
    assert children() == others


def test_length_is_read_from_the_last_page() -> None:
    assert ogg_seconds(ogg(75.5)) == 75.5
    assert ogg_seconds(b"OggS") == ogg_seconds(b"") == 0
    assert is_ogg_opus(ogg())
    assert not is_ogg_opus(wav(0.1))


def test_parsers_are_imported_by_nothing_else() -> None:
    sources = [path for folder in ("bot", "core", "services") for path in Path(folder).rglob("*.py")]
    assert {str(path) for path in sources if "import av" in path.read_text()} == {"services/files/sounds.py"}


async def test_child_that_stays_after_its_last_byte_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    others = children()
    # The event loop hands it more than one number of the pipe.
    program = "import os, signal; os.write(1, b'{}'); os.closerange(0, 256); signal.pause()"
    monkeypatch.setattr(sandbox, "_PROGRAM", program)
    result = await Sandbox().run(Task.SOUND, b"", SandboxLimits(exit_s=0.01))
    assert result == Result()
    assert children() == others


async def test_cancelled_caller_ends_a_child_that_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has closed its output, and is only waited for."""
    others = children()
    monkeypatch.setattr(sandbox, "_PROGRAM", "import os, signal; os.closerange(0, 256); signal.pause()")
    reading = asyncio.create_task(Sandbox().run(Task.SOUND, b"", SandboxLimits(exit_s=60)))
    await until(lambda: children() != others)
    [child] = children() - others
    await until(lambda: not list(Path(f"/proc/{child}/fd").iterdir()))
    await settle()
    reading.cancel()
    await asyncio.wait([reading])
    assert reading.cancelled()
    await until(lambda: children() == others)
