"""Equal text is judged once: a cache of verdicts, and one judgement at a time of one text.

"Spam" is shared within the group, since what is an advert from one is one from all. Anything else holds for the
sender alone: "ok" of a member's joke must not open the door to whoever repeats it. Errors are never kept. All of this
is in Redis, with one hash slot a group; without Redis each judgement is asked for.
"""

import asyncio
import hashlib
import json
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import cast

import structlog
from pydantic import ValidationError
from redis.asyncio import Redis

from core.clock import Clock
from core.redis.client import REDIS_ERRORS
from services.moderation.domain.verdict import About, Evidence, Judged, Judgement, Verdict

log = structlog.get_logger()

KEPT_S = 24 * 3600
FLIGHT_S = 45
"""How long the others wait for whoever judges a text; longer, and they ask themselves."""
POLL_S = 0.25


@dataclass(frozen=True, slots=True)
class CacheKeyText:
    """What is judged, as far as it decides whether two judgements are the same one."""

    group_id: int
    author_id: int
    digest: str

    @classmethod
    def of(cls, group_id: int, author_id: int, *said: str) -> "CacheKeyText":
        """The text of these parts: the prompt's version, the models, the house rules, the message."""
        digest = hashlib.sha256(json.dumps(said).encode()).hexdigest()
        return cls(group_id, author_id, digest[:32])


Ask = Callable[[], Awaitable[Judgement]]


class VerdictCache:
    """Finds verdicts, or has them made.

    Args:
        redis: where replicas share them.
        prefix: what all keys begin with.
        clock: what is waited by.
    """

    def __init__(self, redis: Redis, prefix: str, clock: Clock) -> None:
        self._redis = redis
        self._prefix = f"{prefix}:mod"
        self._clock = clock
        self._flights: dict[tuple[int, str], asyncio.Task[Judgement]] = {}

    async def judged(self, text: CacheKeyText, ask: Ask) -> Judgement:
        """The verdict on a text: a known one, one that is being made, or one that `ask` makes now."""
        key = (text.group_id, text.digest)
        while (flight := self._flights.get(key)) is not None:
            await asyncio.wait([flight])
            if not flight.cancelled() and flight.exception() is None:
                judgement = flight.result()
                if not isinstance(judgement, Judged):
                    # Who fails for one fails for all who waited: an outage must not be paid for in turn.
                    return judgement
            known = await self._known(text)
            if known is not None:
                return known
        flight = self._flights[key] = asyncio.create_task(self._made(text, ask), name="judge")
        flight.add_done_callback(lambda _: self._flights.pop(key, None))
        try:
            return await asyncio.shield(flight)
        except asyncio.CancelledError:
            flight.cancel()
            raise

    async def _made(self, text: CacheKeyText, ask: Ask) -> Judgement:
        known = await self._known(text)
        if known is not None:
            return known
        lock, holder = f"{self._key(text)}:flight", uuid.uuid4().hex
        if not await self._boarded(lock, holder):
            known = await self._awaited(text, lock)
            if known is not None:
                return known
        try:
            judgement = await ask()
            if isinstance(judgement, Judged):
                await self._keep(text, judgement)
        finally:
            await self._left(lock, holder)
        return judgement

    async def _known(self, text: CacheKeyText) -> Judged | None:
        try:
            # A client with `decode_responses` answers in strings, which its types do not say.
            found = await self._redis.mget(self._key(text), self._key(text, text.author_id))
            values = cast("list[str | None]", found)
        except REDIS_ERRORS as error:
            log.info("moderation.cache_unread", error=type(error).__name__)
            return None
        for value in values:
            if value:
                try:
                    return _decoded(value)
                except (ValidationError, ValueError, KeyError):
                    # Of another version of ours; it is judged anew.
                    continue
        return None

    async def _keep(self, text: CacheKeyText, judged: Judged) -> None:
        shared = judged.verdict.is_spam and judged.evidence is Evidence.OWN and judged.verdict.about is About.AUTHOR
        key = self._key(text) if shared else self._key(text, text.author_id)
        try:
            await self._redis.set(key, _encoded(judged), ex=KEPT_S)
        except REDIS_ERRORS as error:
            log.info("moderation.cache_unwritten", error=type(error).__name__)

    async def _boarded(self, lock: str, holder: str) -> bool:
        """Whether no other replica judges this text."""
        try:
            return bool(await self._redis.set(lock, holder, nx=True, ex=FLIGHT_S))
        except REDIS_ERRORS:
            return True

    async def _awaited(self, text: CacheKeyText, lock: str) -> Judged | None:
        """Wait for the replica that judges this text; None where it is through without a verdict for us."""
        for _ in range(int(FLIGHT_S / POLL_S)):
            await self._clock.sleep(POLL_S)
            known = await self._known(text)
            if known is not None:
                return known
            try:
                if not await self._redis.exists(lock):
                    return None
            except REDIS_ERRORS:
                return None
        return None

    async def _left(self, lock: str, holder: str) -> None:
        try:
            # Not atomic: at worst a flight that took longer than `FLIGHT_S` opens the way for one more.
            if await self._redis.get(lock) == holder:
                await self._redis.delete(lock)
        except REDIS_ERRORS:
            return

    def _key(self, text: CacheKeyText, author_id: int | None = None) -> str:
        whose = "all" if author_id is None else str(author_id)
        return f"{self._prefix}:{{{text.group_id}}}:verdict:{text.digest}:{whose}"


def _encoded(judged: Judged) -> str:
    return json.dumps(
        {
            "verdict": judged.verdict.model_dump(mode="json"),
            "evidence": judged.evidence.value,
            "provider": judged.provider,
            "model": judged.model,
        }
    )


def _decoded(value: str) -> Judged:
    fields = json.loads(value)
    verdict = Verdict.model_validate(fields["verdict"])
    return Judged(verdict, Evidence(fields["evidence"]), fields["provider"], fields["model"], cached=True)
