"""The time, as something that is handed in: production reads the system's, tests move their own."""

import asyncio
import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """What the program asks of time."""

    def time(self) -> float:
        """Seconds since the epoch, for what is shared between replicas or stored."""
        ...

    def monotonic(self) -> float:
        """Seconds that never step back, for measuring how long something took."""
        ...

    def now(self) -> datetime:
        """The same instant as `time`, as an aware datetime in UTC."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Give way for that long."""
        ...


class SystemClock:
    """The clock of this machine."""

    def time(self) -> float:
        """Seconds since the epoch."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds that never step back."""
        return time.monotonic()

    def now(self) -> datetime:
        """The current instant in UTC."""
        return datetime.now(UTC)

    async def sleep(self, seconds: float) -> None:
        """Give way for that long."""
        await asyncio.sleep(seconds)
