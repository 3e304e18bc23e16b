"""Settings of the whole process: signals, open files, threads, garbage collection."""

import asyncio
import gc
import resource
import signal
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

OPEN_FILES = 65_536
THREADS = 64
"""Size of the event loop's default executor. While a database is unreachable, connection attempts occupy some threads.
asyncio's default is four more than there are cores."""
GC_THRESHOLDS = (50_000, 50, 100)
"""The imports leave half a million long-lived objects. Measured: the default thresholds doubled aiogram's cost of an
update, and a full collection paused the process for 129 ms."""


@contextmanager
def stop_on_signals() -> Generator[asyncio.Event]:
    """Provides an event that SIGTERM and SIGINT set."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    signals = (signal.SIGTERM, signal.SIGINT)
    for number in signals:
        loop.add_signal_handler(number, stop.set)
    try:
        yield stop
    finally:
        for number in signals:
            loop.remove_signal_handler(number)


def enlarge_thread_pool() -> None:
    """Gives the running event loop a default executor of `THREADS` threads."""
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(THREADS, thread_name_prefix="work"))


def raise_open_files_limit() -> None:
    """Raises the soft limit of open files up to `OPEN_FILES`: each answer in progress holds a connection.

    The usual soft limit of 1,024 is meant for programs that use `select`; beyond it connections fail, and the failures
    would be blamed on providers.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Some systems report no hard limit and refuse to set an infinite one.
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES)
    if wanted > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def tune_garbage_collection() -> None:
    """Exempts the objects that exist now from collection and makes collections rarer. Call after the imports."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
