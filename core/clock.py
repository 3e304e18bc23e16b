"""Injected time: production uses the system clock, tests one that they advance."""

import asyncio
import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Source of time and pauses."""

    def time(self) -> float:
        """Return seconds since the epoch, for values that are stored or shared between replicas."""
        ...

    def monotonic(self) -> float:
        """Return seconds that never step back, for durations and deadlines."""
        ...

    def now(self) -> datetime:
        """Return the same instant as `time`, as an aware datetime in UTC."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Suspend the current task."""
        ...


class SystemClock:
    """The system clock."""

    def time(self) -> float:
        """Return seconds since the epoch."""
        return time.time()

    def monotonic(self) -> float:
        """Return seconds that never step back."""
        return time.monotonic()

    def now(self) -> datetime:
        """Return the current instant in UTC."""
        return datetime.now(UTC)

    async def sleep(self, seconds: float) -> None:
        """Suspend the current task."""
        await asyncio.sleep(seconds)
