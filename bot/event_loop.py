"""The event loop of every program of the bot: uvloop, which takes an eighth less CPU per turn than asyncio's own."""

import asyncio
import os
import sys
from collections.abc import Coroutine
from typing import Any, TypeVar

if sys.platform == "win32":
    from asyncio import new_event_loop as _new_loop
else:
    from uvloop import new_event_loop as _new_loop

ResultT = TypeVar("ResultT")

LOOK_UPS = 32
"""Host names that are looked up at once. By default two are, which could both wait for silent name servers; the end of
a program waits for those that have begun and for those that wait for them."""
_POOL_SHARE = 2
"""libuv gives look-ups half of its threads."""


def new_event_loop() -> asyncio.AbstractEventLoop:
    """Returns an event loop; on Windows, which uvloop does not support, asyncio's."""
    # Read by libuv at the first look-up of the process.
    os.environ.setdefault("UV_THREADPOOL_SIZE", str(_POOL_SHARE * LOOK_UPS))
    return _new_loop()


def run(main: Coroutine[Any, Any, ResultT]) -> ResultT:
    """Runs a program to its end and returns its result, like `asyncio.run`."""
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(main)
