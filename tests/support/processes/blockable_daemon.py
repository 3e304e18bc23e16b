"""The daemon with an event loop that SIGUSR1 blocks for `BLOCK_S` seconds, as a bug would."""

import os
import signal
import time
from collections.abc import Sequence

from bot.__main__ import main as run


def main(arguments: Sequence[str]) -> int:
    """Run `python -m bot telegram`; return its exit code."""
    seconds = float(os.environ["BLOCK_S"])
    signal.signal(signal.SIGUSR1, lambda *_: time.sleep(seconds))
    return run(arguments)
