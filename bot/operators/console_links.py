"""Sign-in links to the web console, valid once for a few minutes, and the `/console` command that creates them."""

import hashlib
import secrets
from dataclasses import dataclass

import structlog
from redis.asyncio import Redis

from bot.operators.formatting import Wording
from core.i18n import Texts
from core.redis.client import REDIS_ERRORS
from services.admin.audit import Audit

log = structlog.get_logger()

LINK_TTL_S = 300


class ConsoleLinks:
    """Creates and redeems the codes of sign-in links, which all replicas share.

    Args:
        redis: a client with `decode_responses=True`.
        prefix: prefix of all Redis keys.
        ttl_s: lifetime of a code, in seconds.
    """

    def __init__(self, redis: Redis, prefix: str, ttl_s: int = LINK_TTL_S) -> None:
        self._redis = redis
        self._prefix = f"{prefix}:console:link:"
        self.ttl_s = ttl_s

    async def create(self, actor_id: int) -> str:
        """Returns a new code that signs this operator in.

        Raises:
            RedisError: the code cannot be stored now.
        """
        code = secrets.token_urlsafe(32)
        await self._redis.set(self._key(code), actor_id, ex=self.ttl_s)
        return code

    async def redeem(self, code: str) -> int | None:
        """Returns the operator of a code and invalidates it; None if it is unknown, used or expired.

        Raises:
            RedisError: Redis does not answer.
        """
        # One transaction, so that a second request at the same instant finds nothing.
        async with self._redis.pipeline(transaction=True) as pipeline:
            pipeline.get(self._key(code))
            pipeline.delete(self._key(code))
            found: list[str | None] = await pipeline.execute()
        return int(found[0]) if found[0] is not None else None

    def _key(self, code: str) -> str:
        # Hashed, so that a reader of Redis cannot sign in.
        return self._prefix + hashlib.sha256(code.encode(errors="surrogateescape")).hexdigest()


@dataclass(frozen=True, slots=True)
class ConsoleInvitation:
    """The answer to `/console`.

    Args:
        app_url: address of the Mini App; None where Telegram would not open it.
    """

    text: str
    app_url: str | None = None


class ConsoleCommand:
    """The `/console` command, in the language of the operator.

    Args:
        address: public URL of the console without a trailing slash; None if it is off.
    """

    def __init__(self, links: ConsoleLinks, audit: Audit, address: str | None, texts: Texts | None = None) -> None:
        self._texts = texts or Texts()
        self._links = links
        self._audit = audit
        self._address = address

    async def run(self, actor_id: int, language: str | None = None, *, is_private: bool) -> ConsoleInvitation:
        """Returns a link for this operator; outside a private chat there is none."""
        say = Wording(self._texts, language)
        if self._address is None:
            return ConsoleInvitation(say.get("console-off"))
        if not is_private:
            return ConsoleInvitation(say.get("console-not-here"))
        try:
            code = await self._links.create(actor_id)
        except REDIS_ERRORS:
            log.warning("console.sessions_unavailable")
            return ConsoleInvitation(say.get("console-unavailable"))
        await self._audit.try_record(actor_id, "console.link")
        link = f"{self._address}/console/link/{code}"
        text = say.get("console-link", left=say.duration(self._links.ttl_s), link=link)
        app_url = f"{self._address}/console/app" if self._address.startswith("https://") else None
        return ConsoleInvitation(text, app_url)
