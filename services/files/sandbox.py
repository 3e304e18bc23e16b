"""Runs one task on one file in a child process with limits."""

import asyncio
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, cast

import structlog

log = structlog.get_logger()

MB = 1 << 20
_ROOT = Path(__file__).resolve().parents[2]
_PROGRAM = f"import sys; sys.path.insert(0, {str(_ROOT)!r}); from services.files.child import main; main()"
_HEADER_BYTES = 64 * 1024


class Task(StrEnum):
    """A task for a child process."""

    SOUND = "sound"
    """Any recording, or the sound of a video, to OGG/Opus or MP3."""
    DOCUMENT = "document"
    """A document to its text."""


class Refusal(StrEnum):
    """Reason why a file was refused."""

    BROKEN = "broken"
    EMPTY = "empty"
    ENCRYPTED = "encrypted"
    MISLABELLED = "mislabelled"
    NO_SOUND = "no-sound"
    TOO_LONG = "too-long"
    TOO_MUCH = "too-much"
    """It exceeded the memory, the time or the output of its child, as a bomb does, or crashed its parser."""


class FileRefused(Exception):
    """A file that cannot be read; its `why` is for the person who sent it."""

    def __init__(self, why: Refusal) -> None:
        self.why = why
        super().__init__(why.value)


@dataclass(frozen=True, slots=True)
class SandboxLimits:
    """Limits of one child.

    Args:
        memory: bytes of address space.
        cpu_s: seconds of CPU, rounded up.
        wall_s: seconds from its start to its last byte.
        output: bytes of the result.
        exit_s: seconds from its last byte to its end.
    """

    memory: int = 768 * MB
    cpu_s: int = 10
    wall_s: float = 30.0
    output: int = 8 * MB
    exit_s: float = 5.0


SOUND_LIMITS = SandboxLimits(cpu_s=60, wall_s=120.0)
"""Measured: fifteen minutes of WAV take 4 s of CPU, 90 MB of memory."""

DOCUMENT_LIMITS = SandboxLimits()


@dataclass(frozen=True, slots=True)
class Result:
    """The result of a task: its facts, and its bytes."""

    facts: Mapping[str, Any] = field(default_factory=dict[str, Any])  # Any: JSON of our own program
    body: bytes = b""


class Sandbox:
    """Reads files in children.

    Args:
        at_once: maximum number of concurrent children; further files wait.
    """

    def __init__(self, at_once: int = 2) -> None:
        self._places = asyncio.Semaphore(at_once)

    async def run(
        self, task: str, data: bytes, limits: SandboxLimits, options: Mapping[str, object] | None = None
    ) -> Result:
        """Executes a task on a file.

        Args:
            task: task to run.
            data: the file, given on standard input.
            options: options of the task.

        Raises:
            FileRefused: the file cannot be read within the limits.
        """
        async with self._places:
            return await self._run(task, data, limits, options or {})

    async def _run(self, task: str, data: bytes, limits: SandboxLimits, options: Mapping[str, object]) -> Result:
        given = {
            "task": task, "memory": limits.memory, "cpu_s": limits.cpu_s, "wall_s": limits.wall_s, "options": options,
        }  # fmt: skip
        # Isolated: neither our environment, which holds secrets, nor a module of the working directory.
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-I", "-c", _PROGRAM, json.dumps(given),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
            env={"PATH": os.defpath, "OPENBLAS_NUM_THREADS": "1"}, cwd="/",
        )  # fmt: skip
        output = b""
        try:
            async with asyncio.timeout(limits.wall_s):
                feeding = asyncio.create_task(_feed(process, data))
                try:
                    output = await _read(process, limits.output + _HEADER_BYTES)
                finally:
                    feeding.cancel()
                    await asyncio.gather(feeding, return_exceptions=True)
        except TimeoutError:
            log.info("file.child_timed_out", task=task, seconds=limits.wall_s)
        finally:
            code = await _end(process, limits.exit_s)
        return _parse(task, output, code)


async def _feed(process: asyncio.subprocess.Process, data: bytes) -> None:
    pipe = process.stdin
    if pipe is None:
        return
    try:
        pipe.write(data)
        await pipe.drain()
    except (BrokenPipeError, ConnectionResetError):
        # A child that refuses a file need not read all of it.
        pass
    finally:
        pipe.close()


async def _read(process: asyncio.subprocess.Process, most: int) -> bytes:
    """Returns the output; nothing where it is longer than allowed."""
    pieces: list[bytes] = []
    size = 0
    pipe = process.stdout
    while pipe is not None and (piece := await pipe.read(65_536)):
        size += len(piece)
        if size > most:
            return b""
        pieces.append(piece)
    return b"".join(pieces)


async def _end(process: asyncio.subprocess.Process, exit_s: float) -> int:
    """Returns the exit code of a child.

    One that still writes is ended, as is one that stays `exit_s` after that, or until the caller is cancelled.
    """
    if process.returncode is None and process.stdout is not None and not process.stdout.at_eof():
        process.kill()
    if process.stdout is not None:
        # Its transport closes only once the pipe has been read to its end.
        while await process.stdout.read(65_536):
            pass
    try:
        async with asyncio.timeout(exit_s):
            return await process.wait()
    except TimeoutError:
        pass
    finally:
        if process.returncode is None:
            process.kill()
    return await process.wait()


def _parse(task: str, output: bytes, code: int) -> Result:
    head, _, body = output.partition(b"\n")
    try:
        found: object = json.loads(head)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        log.info("file.child_died", task=task, code=code)
        raise FileRefused(Refusal.TOO_MUCH)
    facts = cast("dict[str, Any]", found)  # Any: JSON of our own program
    why = facts.get("why")
    if why is not None:
        log.info("file.refused", task=task, why=why, error=facts.get("error"))
        raise FileRefused(Refusal(why))
    return Result(facts, body)
