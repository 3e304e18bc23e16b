"""The embedded store: fakeredis, in which a cancellation is never lost."""

import asyncio

from fakeredis import FakeAsyncRedis, FakeAsyncRedisConnection
from typing_extensions import override


def open_embedded() -> FakeAsyncRedis:
    """Returns a client of a store of its own that decodes responses to strings."""
    # With a timeout redis-py sends by `asyncio.wait_for` as well.
    return FakeAsyncRedis(decode_responses=True, socket_timeout=None, connection_class=_EmbeddedConnection)


class _EmbeddedConnection(FakeAsyncRedisConnection):
    """Raises the cancellation that `asyncio.wait_for` swallows on Python 3.11 if it arrives with the result.

    fakeredis waits by it. The task would go on, and its owner wait for its end.
    """

    @override
    async def can_read(self, timeout: float | None = 0) -> bool:
        task = asyncio.current_task()
        cancellations = task.cancelling() if task is not None else 0
        is_readable = await super().can_read(timeout)
        if task is not None and task.cancelling() > cancellations:
            raise asyncio.CancelledError
        return is_readable
