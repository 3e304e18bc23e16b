"""Stops an answer on whichever replica produces it."""

import asyncio
import json
import secrets
import uuid
from collections.abc import Generator
from contextlib import contextmanager
from itertools import count
from typing import Any, cast

import structlog
from redis.asyncio import Redis

from core.clock import Clock
from core.messages import ConversationKey, Surface
from core.redis.client import REDIS_ERRORS
from services.chat.reply import Reply

log = structlog.get_logger()

ANSWER_S = 0.5
"""Time that another replica has to confirm a stop."""
RECONNECT_S = 1.0
LISTEN_S = 5.0


class ActiveReplies:
    """At most one answer per conversation; each has a number that its Stop button carries."""

    def __init__(self) -> None:
        # Each replica numbers from its own random start: a button of one must not match an answer of another.
        self._numbers = count(secrets.randbelow(2**40))
        self._live: dict[ConversationKey, tuple[int, Reply]] = {}

    @contextmanager
    def showing(self, key: ConversationKey, reply: Reply) -> Generator[int]:
        """Register an answer while the context lasts. Yields its number."""
        number = next(self._numbers)
        self._live[key] = (number, reply)
        try:
            yield number
        finally:
            del self._live[key]

    def stop(self, key: ConversationKey, number: int | None = None) -> bool:
        """Stop the answer of a conversation, or only the one with this number. Returns False if there is none."""
        live = self._live.get(key)
        if live is None or (number is not None and number != live[0]):
            return False
        live[1].stop()
        return True

    def stop_chat(self, chat_id: int) -> bool:
        """Stop every answer of a chat in all topics. Returns False if there is none."""
        replies = [reply for key, (_, reply) in self._live.items() if key.chat_id == chat_id]
        for reply in replies:
            reply.stop()
        return bool(replies)


class ReplyCancellation:
    """Stops answers of this process, and asks the other replicas through Redis.

    Args:
        redis: connects the replicas; None for a single process.
        prefix: of all keys.
    """

    def __init__(self, live: ActiveReplies, redis: Redis | None, prefix: str, clock: Clock) -> None:
        self._live = live
        self._redis = redis
        self._channel = f"{prefix}:stops"
        self._clock = clock

    async def stop(self, key: ConversationKey, number: int | None = None) -> bool:
        """Stop the answer of a conversation, or only the one with this number. Returns False if there is none."""
        return self._live.stop(key, number) or await self._ask(
            {"chat": key.chat_id, "topic": key.topic_id, "number": number}
        )

    async def stop_chat(self, chat_id: int) -> None:
        """Stop every answer of a chat in all topics."""
        self._live.stop_chat(chat_id)
        # Another replica may be answering in another topic.
        await self._ask({"chat": chat_id, "topic": None, "number": None})

    async def run(self) -> None:
        """Execute stop requests of other replicas until cancelled."""
        while self._redis is not None:
            try:
                async with self._redis.pubsub() as pubsub:
                    await pubsub.subscribe(self._channel)
                    while True:
                        message = cast(  # the types of message values are not declared
                            "dict[str, Any] | None",
                            await pubsub.get_message(ignore_subscribe_messages=True, timeout=LISTEN_S),
                        )
                        if message is not None:
                            await self._obey(self._redis, message["data"])
            except REDIS_ERRORS as error:
                log.info("stops.not_heard", error=type(error).__name__)
                await self._clock.sleep(RECONNECT_S)

    async def _ask(self, wanted: dict[str, int | str | None]) -> bool:
        if self._redis is None:
            return False
        answer = f"{self._channel}:{uuid.uuid4().hex}"
        try:
            async with asyncio.timeout(2 * ANSWER_S):
                await self._redis.publish(self._channel, json.dumps({**wanted, "answer": answer}))
                return await self._redis.blpop([answer], timeout=ANSWER_S) is not None
        except REDIS_ERRORS as error:
            log.warning("stops.not_asked", error=type(error).__name__)
            return False

    async def _obey(self, redis: Redis, data: str) -> None:
        try:
            await self._stop_for_another(redis, data)
        except (ValueError, LookupError, TypeError) as error:
            # Of another release, or of an unknown sender.
            log.warning("stops.not_understood", error=type(error).__name__)

    async def _stop_for_another(self, redis: Redis, data: str) -> None:
        wanted = json.loads(data)
        if wanted["topic"] is None:
            stopped = self._live.stop_chat(wanted["chat"])
        else:
            key = ConversationKey(Surface.TELEGRAM, wanted["chat"], wanted["topic"])
            stopped = self._live.stop(key, wanted["number"])
        if stopped:
            log.info("stops.stopped_for_another", chat_id=wanted["chat"])
            await redis.rpush(wanted["answer"], "1")
            await redis.expire(wanted["answer"], 10)
