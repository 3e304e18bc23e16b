"""Stops an answer on whichever replica produces it."""

import asyncio
from dataclasses import dataclass
from uuid import uuid4

import structlog
from pydantic import BaseModel, ConfigDict
from redis.asyncio import Redis

from core.background import Outage
from core.bounded_json import parse_json
from core.clock import Clock
from core.messages import ConversationKey, Surface
from core.redis.client import REDIS_ERRORS, read_message, subscribe
from services.chat.reply import ActiveReplies

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class CancellationTiming:
    """Intervals of the stop requests between replicas.

    Args:
        confirm_s: time that another replica has to confirm a stop.
        reconnect_s: pause after a failed subscription.
        listen_s: longest wait for a message before the connection is checked.
    """

    confirm_s: float = 0.5
    reconnect_s: float = 1.0
    listen_s: float = 5.0


class _StopRequest(BaseModel):
    """A request to the other replicas."""

    model_config = ConfigDict(strict=True)

    chat: int
    topic: int | None = None
    """None: every topic of the chat."""
    number: int | None = None
    """None: whichever answer is in progress."""
    answer: str
    """The key of the list that the confirmation is pushed to."""


class ReplyCancellation:
    """Stops answers of this process, and asks the other replicas through Redis.

    Args:
        redis: connects the replicas; None for a single process.
        prefix: prefix of all Redis keys.
    """

    def __init__(
        self,
        active: ActiveReplies,
        redis: Redis | None,
        prefix: str,
        clock: Clock,
        timing: CancellationTiming | None = None,
    ) -> None:
        self.active = active
        self._timing = timing or CancellationTiming()
        self._redis = redis
        self._channel = f"{prefix}:stops"
        self._clock = clock
        self._is_warned = False

    async def stop(self, key: ConversationKey, number: int | None = None) -> bool:
        """Stops the answer of a conversation, or only the one with this number. Returns False if there is none."""
        return self.active.stop(key, number) or await self._request_stop(
            chat=key.chat_id, topic=key.topic_id, number=number
        )

    async def stop_chat(self, chat_id: int) -> None:
        """Stops every answer of a chat in all topics."""
        self.active.stop_chat(chat_id)
        # Another replica may be answering in another topic.
        await self._request_stop(chat=chat_id, topic=None, number=None)

    async def run(self) -> None:
        """Executes stop requests of other replicas until cancelled."""
        outage = Outage()
        while self._redis is not None:
            try:
                async with self._redis.pubsub() as pubsub:
                    await subscribe(pubsub, self._channel)
                    outage.end()
                    while True:
                        message = await read_message(pubsub, self._timing.listen_s)
                        if message is not None:
                            await self._handle_request(self._redis, message["data"])
            except REDIS_ERRORS as error:
                if outage.begins():
                    log.info("cancellation.subscription_failed", error=type(error).__name__)
                await self._clock.sleep(self._timing.reconnect_s)

    async def _request_stop(self, *, chat: int, topic: int | None, number: int | None) -> bool:
        if self._redis is None:
            return False
        request = _StopRequest(chat=chat, topic=topic, number=number, answer=f"{self._channel}:{uuid4().hex}")
        try:
            async with asyncio.timeout(2 * self._timing.confirm_s):
                await self._redis.publish(self._channel, request.model_dump_json())
                return await self._redis.blpop([request.answer], timeout=self._timing.confirm_s) is not None
        except REDIS_ERRORS as error:
            log.warning("cancellation.request_failed", error=type(error).__name__)
            return False

    async def _handle_request(self, redis: Redis, data: object) -> None:
        try:
            request = _StopRequest.model_validate(parse_json(data if isinstance(data, str) else ""))
        except ValueError:
            request = None
        # A confirmation must not reach other data.
        if request is None or not request.answer.startswith(f"{self._channel}:"):
            # Of another release, or of an unknown sender. Logged once: one that repeats it must not fill the log.
            if not self._is_warned:
                self._is_warned = True
                log.warning("cancellation.request_invalid")
            return
        if request.topic is None:
            stopped = self.active.stop_chat(request.chat)
        else:
            key = ConversationKey(Surface.TELEGRAM, request.chat, request.topic)
            stopped = self.active.stop(key, request.number)
        if stopped:
            log.info("cancellation.stopped_for_replica", chat_id=request.chat)
            await redis.rpush(request.answer, "1")
            await redis.expire(request.answer, 10)
