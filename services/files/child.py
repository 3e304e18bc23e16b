"""The program of a child: reads one file from standard input, writes a line of JSON and the result.

Limits are set first; the parser is imported for its task only, and once it is there no further file or connection can
be opened.
"""

import codecs
import json
import resource
import signal
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

Options = Mapping[str, Any]
"""Options of a task, from JSON."""
Answer = tuple[Mapping[str, Any], bytes]
"""Facts about a file, and the result."""

_READERS = {"sound": "services.files.sounds", "document": "services.files.documents"}
"""The module of each task; its function `load` takes the file and the options, and returns the work."""
_ENCODINGS = ("utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "latin-1", "cp1252", "cp1251", "koi8-r", "idna")
"""Encodings that files are read in, loaded while that is possible."""


class Refused(Exception):
    """The file cannot be read; the message is one of the parent's reasons."""


def confine(memory: int, cpu_s: int, wall_s: float) -> None:
    """Limits this process for good. A limit of the system that is lower already stays."""
    for kind, wanted in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_CPU, cpu_s),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(kind)
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(kind, (most, most))
    # Ends this process even where its parent was killed.
    signal.setitimer(signal.ITIMER_REAL, wall_s)


def close_files() -> None:
    """Forbids opening files, directories and sockets from now on, and so every further import."""
    for name in _ENCODINGS:
        codecs.lookup(name)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))


def answer(task: str, data: bytes, options: Options) -> Answer:
    """Executes a task; a file that cannot be read gives its reason as `why`."""
    if not data:
        return {"why": "empty"}, b""
    reader = import_module(_READERS[task])
    try:
        work: Callable[[], Answer] = reader.load(data, options)
        close_files()
        return work()
    except Refused as refused:
        return {"why": str(refused)}, b""
    except (MemoryError, RecursionError):
        return {"why": "too-much"}, b""
    except Exception as error:  # noqa: BLE001 - parsers raise anything; the parent logs the type, which quotes no file
        return {"why": "broken", "error": type(error).__name__}, b""


def main() -> None:
    """Executes the task that the first argument describes, in JSON."""
    given: dict[str, Any] = json.loads(sys.argv[1])
    confine(given["memory"], given["cpu_s"], given["wall_s"])
    facts, body = answer(given["task"], sys.stdin.buffer.read(), given["options"])
    sys.stdout.buffer.write(json.dumps(facts).encode() + b"\n" + body)
    sys.stdout.buffer.flush()
