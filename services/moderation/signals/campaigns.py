"""Remembers adverts that were found in one group, so that the judge reads the same campaign in the operator's others.

Kept in Redis for two weeks: checksums of an advert's links and user names, of its letters, and of its words (a sketch
by minimal hashes, which recognises variants). No text and no person.
"""

import hashlib
import json
import zlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import cast

from redis.asyncio import Redis

from core.bounded_json import parse_json
from core.redis.guard import FailFastRedis, RedisUnavailable
from services.moderation.records.shared_cards import Campaign

RETENTION_S = 14 * 24 * 3600
SHORTEST_TEXT = 24
"""Letters of a text that is remembered as a whole: shorter ones are everyday phrases."""
FEWEST_WORDS = 8
HASHES, BAND = 18, 3
"""Minimal hashes of a sketch, and how many of them form a key: variants with six tenths of their words in common share
one of the six keys in 77 % of cases, texts with two tenths in 5."""
ALIKE = 0.5
"""Share of equal minimal hashes from which a text is a variant: an estimate of the words in common."""
_MODULUS = (1 << 61) - 1
_FACTORS = tuple(
    tuple(int.from_bytes(hashlib.sha256(f"{which} {number}".encode()).digest()[:7]) for which in ("factor", "offset"))
    for number in range(HASHES)
)


@dataclass(frozen=True, slots=True)
class Traits:
    """The keys under which an advert is remembered, and its sketch."""

    exact: tuple[str, ...]
    bands: tuple[str, ...]
    sketch: tuple[int, ...]

    @classmethod
    def of_text(cls, text: str) -> "Traits":
        """Returns the traits of an advert."""
        campaign = Campaign.of_text(text)
        exact = [_digest(f"target {target}") for target in sorted(campaign.targets)[:5]]
        if len(campaign.letters) >= SHORTEST_TEXT:
            exact.append(_digest(f"letters {campaign.letters}"))
        sketch = _sketch(campaign.words) if len(campaign.words) >= FEWEST_WORDS else ()
        bands = [_digest(f"band {at} {sketch[at : at + BAND]}") for at in range(0, len(sketch), BAND)]
        return cls(tuple(exact), tuple(bands), sketch)


class CampaignMemory:
    """The campaigns that any group of this bot has seen. While Redis is unreachable, none is known.

    Args:
        prefix: prefix of all Redis keys.
    """

    def __init__(self, redis: Redis | None, prefix: str) -> None:
        self._redis = FailFastRedis(redis, "campaigns")
        # One slot of a cluster for all of them: a text is looked up by several keys at once.
        self._prefix = f"{prefix}:mod:{{campaign}}"

    async def is_known(self, text: str) -> bool:
        """Returns whether a text is of a campaign."""
        traits = Traits.of_text(text)
        keys = self._keys(traits)
        if not keys:
            return False
        try:
            # A client with `decode_responses` returns strings, which its types do not say.
            found = cast("list[str | None]", await self._redis.call(lambda redis: redis.mget(*keys)))
        except RedisUnavailable:
            return False
        exact, bands = found[: len(traits.exact)], found[len(traits.exact) :]
        return any(exact) or any(_is_alike(traits.sketch, value) for value in bands if value)

    async def remember(self, text: str) -> None:
        """Remembers an advert."""
        traits = Traits.of_text(text)
        keys, value = self._keys(traits), json.dumps(traits.sketch)

        async def write(redis: Redis) -> None:
            async with redis.pipeline(transaction=False) as pipe:
                for key in keys:
                    pipe.set(key, value, ex=RETENTION_S)
                await pipe.execute()

        await self._write(keys, write)

    async def forget(self, text: str) -> None:
        """Forgets a text that an admin marked as no spam."""
        keys = self._keys(Traits.of_text(text))
        await self._write(keys, lambda redis: redis.delete(*keys))

    async def _write(self, keys: Sequence[str], write: Callable[[Redis], Awaitable[object]]) -> None:
        if keys:
            try:
                await self._redis.call(write)
            except RedisUnavailable:
                # A lost campaign costs its signal only.
                return

    def _keys(self, traits: Traits) -> list[str]:
        return [f"{self._prefix}:{digest}" for digest in (*traits.exact, *traits.bands)]


def _sketch(words: frozenset[str]) -> tuple[int, ...]:
    values = [zlib.crc32(word.encode()) for word in words]
    return tuple(min((a * value + b) % _MODULUS for value in values) & 0xFFFFFFFF for a, b in _FACTORS)


def _is_alike(sketch: tuple[int, ...], encoded: str) -> bool:
    try:
        other = parse_json(encoded)
    except ValueError:
        return False
    if not isinstance(other, list) or len(cast("list[object]", other)) != len(sketch):
        return False
    return sum(one == two for one, two in zip(sketch, cast("list[object]", other), strict=True)) >= ALIKE * HASHES


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:24]
