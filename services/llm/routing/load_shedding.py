"""Load shedding: what keeps each provider to its limit, and its users from being sent to and fro."""

from redis.asyncio import Redis

from core.clock import Clock
from services.llm.routing.affinity import ProviderAffinity
from services.llm.routing.concurrency import ConcurrencyLimiter


class LoadShedding:
    """The slots of all providers, and who stays where.

    Args:
        redis: a client with `decode_responses=True`; None where every replica keeps to the limits by itself.
        prefix: what all keys begin with.
        clock: the time.
    """

    def __init__(self, redis: Redis | None, prefix: str, clock: Clock) -> None:
        self.slots = ConcurrencyLimiter(redis, prefix, clock)
        self.stays = ProviderAffinity(redis, prefix, clock)

    async def close(self) -> None:
        """Wait for what is being written."""
        await self.slots.close()
        await self.stays.close()
