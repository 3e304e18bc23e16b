"""Registry of answers in progress, so that they can be stopped."""

import secrets
from collections.abc import Generator
from contextlib import contextmanager
from itertools import count

from core.messages import ConversationKey
from services.chat.reply import Reply


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
