"""The lines under an answer: the provider that answered or stands in, the sources, and omitted capabilities."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol
from uuid import uuid4

from cachetools import TTLCache
from redis.asyncio import Redis

from core.clock import Clock
from core.i18n import Texts
from core.messages import ChatRef, Incoming
from core.redis.guard import FailFastRedis, RedisUnavailable
from services.chat.agent import find_sources
from services.chat.prompts import split_parts
from services.chat.turn import StandIn, TurnOutcome, TurnRun


class Footers:
    """Words the notice and the footer of an answer.

    Args:
        demo_ids: demo providers; their answers say so.
    """

    def __init__(self, texts: Texts, demo_ids: frozenset[str]) -> None:
        self._texts = texts
        self._demo_ids = demo_ids

    def notice(self, run: TurnRun, outcome: TurnOutcome) -> str | None:
        """Returns why the answer ended as it did, and the calls that it asks to allow."""
        language = run.incoming.speaker.language
        notice = self._texts.get(outcome.key, language, **outcome.arguments) if outcome.key is not None else None
        if notice is None and run.reply.is_cut:
            notice = self._texts.get("answer-cut", language)
        calls = run.reply.asked_calls
        questions = [
            self._texts.get("call-question", language, what=call.what if len(calls) == 1 else f"{number}. {call.what}")
            for number, call in enumerate(calls, 1)
        ]
        return "\n".join(line for line in (notice, *questions) if line) or None

    def footer(self, run: TurnRun, *, is_blind: bool, is_saved: bool) -> str | None:
        """Returns the footer of an answer, if any."""
        reply, language = run.reply, run.incoming.speaker.language
        if not reply.text:
            return None
        sources = [
            f"{number}. {source.title}: {source.url}" if source.title else f"{number}. {source.url}"
            for number, source in enumerate(find_sources(run.messages, reply.text), 1)
        ]
        lines = [
            "\n".join([self._texts.get("sources", language), *sources]) if sources else None,
            self._texts.get("answered-by", language, provider=reply.provider)
            if run.preference.footers and reply.provider
            else None,
            self._texts.get("answered-remotely", language, failed=stand_in.local, provider=stand_in.remote)
            if (stand_in := run.stand_in) is not None
            else None,
            self._texts.get("demo-footer", language) if reply.provider in self._demo_ids else None,
            self._texts.get("cannot-see-image", language) if is_blind else None,
            *self._describe_files(run.incoming),
            self._texts.get("memory-compacted", language) if run.is_first_drop else None,
            None if run.has_memory else self._texts.get("degraded-memory-footer", language),
            None if is_saved else self._texts.get("failed-storage-footer", language),
        ]
        return "\n".join(line for line in lines if line) or None

    def _describe_files(self, incoming: Incoming) -> Sequence[str]:
        """Returns a line for each file that was not read as a whole."""
        language = incoming.speaker.language
        lines: list[str] = []
        for file in incoming.files:
            parts = len(split_parts(file.text)) if file.by_part else 1
            if parts > 1:
                lines.append(self._texts.get("document-by-part", language, name=file.name[:100], parts=parts))
            if file.is_cut:
                count = len(file.text)
                lines.append(self._texts.get("document-cut", language, name=file.name[:100], characters=count))
        return lines


@dataclass(frozen=True, slots=True)
class StandInLimits:
    """Bounds of the remembered chats.

    Args:
        outage_s: how long a chat's line is remembered; a longer outage is told again.
        single_s: the same for a local provider that is healthy and refused one request only.
        max_chats: entries of this process.
    """

    outage_s: int = 7 * 24 * 3600
    single_s: int = 24 * 3600
    max_chats: int = 10_000


class Outages(Protocol):
    """Knows since when a provider has not answered."""

    def outage_since(self, provider: str) -> float | None:
        """Returns the instant of a provider's first failure since its last answer; None while it is healthy."""
        ...


class StandInNotices:
    """Elects the answer that says that a remote provider stands in for a local one.

    It is the first answer of an outage in each chat, over all replicas; while Redis is unreachable, of this process.

    Args:
        redis: a client with `decode_responses=True`.
        prefix: of all keys.
        outages: tells one outage of a provider from the next.
    """

    def __init__(
        self, redis: Redis, prefix: str, clock: Clock, outages: Outages, limits: StandInLimits | None = None
    ) -> None:
        self._redis = FailFastRedis(redis, "stand-in notices")
        self._prefix = prefix
        self._outages = outages
        self._limits = limits or StandInLimits()
        self._holders: TTLCache[str, str] = TTLCache(
            self._limits.max_chats, self._limits.outage_s, timer=clock.monotonic
        )

    async def is_news(self, chat: ChatRef, stand_in: StandIn, origin: str | None) -> bool:
        """Returns whether an answer carries the line.

        Args:
            chat: the chat of the answer.
            stand_in: the local provider that failed, and the one that answered.
            origin: id of the job; the same job gets the same reply again when it is retried.
        """
        since = self._outages.outage_since(stand_in.local)
        lifetime_s = self._limits.single_s if since is None else self._limits.outage_s
        key = f"{self._prefix}:stand-in:{chat}:{stand_in.local}:{since or 0:.3f}"
        holder = origin or uuid4().hex
        known = self._holders.get(key)
        if known is None:
            known = await self._claim(key, holder, lifetime_s)
            if since is not None:
                self._holders[key] = known
        return known == holder

    async def _claim(self, key: str, holder: str, lifetime_s: int) -> str:
        """Returns the holder of a key: the first one that claimed it."""

        async def claim(redis: Redis) -> str:
            if await redis.set(key, holder, nx=True, ex=lifetime_s):
                return holder
            return str(await redis.get(key) or holder)

        try:
            return await self._redis.call(claim)
        except RedisUnavailable:
            # A line that appears twice is better than none.
            return holder
