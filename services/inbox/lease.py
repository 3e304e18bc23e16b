"""ReplicaLease of a replica: its right to act, which ends by its own clock unless it is renewed.

A replica that was stopped, blocked or cut off from the database cannot be told that another one has taken its work
over. It finds out by itself: each call to Telegram waits while the lease has lapsed.
"""

import asyncio
import time
from collections.abc import Callable


def boot_time() -> float:
    """Return seconds since the start of the machine, including those during which it was suspended."""
    # Only Linux has a clock of that name; elsewhere the monotonic one is the closest.
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class ReplicaLease:
    """Permission to act until an instant; without `require` it is held for ever. For one event loop.

    Args:
        now: seconds that never step back and go on while the process or the machine stands still.
    """

    def __init__(self, now: Callable[[], float] = boot_time) -> None:
        self.now = now
        self._until = float("inf")
        self._changed = asyncio.Event()

    @property
    def is_held(self) -> bool:
        """Whether this process may act now."""
        return self.now() < self._until

    def require(self) -> None:
        """Let the lease lapse until it is renewed: there are other replicas."""
        self._until = float("-inf")

    def renew(self, until: float) -> None:
        """Hold the lease until an instant of `now`."""
        self._until = until
        self._changed.set()

    def revoke(self) -> None:
        """End the lease; another replica has taken over."""
        self._until = float("-inf")

    async def wait_until_held(self) -> None:
        """Return at once while the lease is held, else when it is renewed; after `revoke` that may be never."""
        while not self.is_held:
            self._changed.clear()
            await self._changed.wait()
