"""Sign-in to the console: sessions in Redis, a strict cookie, and an anti-forgery field in each form."""

import hashlib
import hmac
import secrets
from dataclasses import dataclass

import structlog
from aiohttp import web
from pydantic import BaseModel, SecretStr, ValidationError
from redis.asyncio import Redis

from core.clock import Clock
from core.redis.client import REDIS_ERRORS

log = structlog.get_logger()

COOKIE = "understudy_console"
FORM_FIELD = "form"
TOKEN_ACTOR = 0
"""Actor in the audit log of an operator who signed in by WEB_TOKEN and has no Telegram id."""


@dataclass(frozen=True, slots=True)
class AccessRules:
    """Limits of signing in.

    Args:
        session_s: lifetime of a session, in seconds.
        refusal_s: how long the answer to a wrong token takes, in seconds. No address is locked out: behind a proxy all
            have the same one, and a stranger could keep operators out.
    """

    session_s: int = 12 * 3600
    refusal_s: float = 1.0


@dataclass(frozen=True, slots=True)
class OperatorSession:
    """An operator who is signed in.

    Args:
        id: the cookie's value.
        actor_id: of the audit log.
        form: the anti-forgery value that every form of this session carries.
    """

    id: str
    actor_id: int
    form: str


class _StoredSession(BaseModel):
    actor: int
    form: str


class SignInRefused(Exception):
    """The token is wrong."""


class ConsoleAccess:
    """Opens, finds and ends sessions.

    Args:
        redis: a client with `decode_responses=True`; all replicas share the sessions.
        prefix: of all keys.
        token: WEB_TOKEN.
    """

    def __init__(
        self, redis: Redis, prefix: str, token: SecretStr, clock: Clock, rules: AccessRules | None = None
    ) -> None:
        self._redis = redis
        self._prefix = f"{prefix}:console:session:"
        self._token = token.get_secret_value().encode()
        self._rules = rules or AccessRules()
        self._clock = clock

    async def sign_in(self, token: str) -> OperatorSession:
        """Opens a session for the holder of WEB_TOKEN.

        Raises:
            SignInRefused: the token is wrong.
            RedisError: sessions cannot be stored now.
        """
        if not hmac.compare_digest(token.strip().encode(errors="surrogateescape"), self._token):
            log.info("console.sign_in_refused")
            await self._clock.sleep(self._rules.refusal_s)
            raise SignInRefused
        session = OperatorSession(secrets.token_urlsafe(32), TOKEN_ACTOR, secrets.token_urlsafe(24))
        stored = _StoredSession(actor=session.actor_id, form=session.form).model_dump_json()
        await self._redis.set(self._key(session.id), stored, ex=self._rules.session_s)
        return session

    async def find(self, request: web.Request) -> OperatorSession | None:
        """Returns the session of a request; None if there is none, or if Redis does not answer."""
        session_id = request.cookies.get(COOKIE, "")
        if not session_id:
            return None
        try:
            stored = await self._redis.get(self._key(session_id))
        except REDIS_ERRORS:
            return None
        if stored is None:
            return None
        try:
            known = _StoredSession.model_validate_json(stored)
        except ValidationError:
            return None
        return OperatorSession(session_id, known.actor, known.form)

    async def end(self, session: OperatorSession) -> None:
        """Ends a session."""
        await self._redis.delete(self._key(session.id))

    def set_cookie(self, response: web.StreamResponse, session: OperatorSession, *, is_secure: bool) -> None:
        """Hands the session to the browser: for this site only, and out of reach of scripts."""
        response.set_cookie(
            COOKIE,
            session.id,
            max_age=self._rules.session_s,
            path="/console",
            httponly=True,
            samesite="Strict",
            secure=is_secure,
        )

    def _key(self, session_id: str) -> str:
        # Hashed, so that a reader of Redis cannot take over a session.
        return self._prefix + hashlib.sha256(session_id.encode(errors="surrogateescape")).hexdigest()


def is_own_form(session: OperatorSession, sent: str) -> bool:
    """Returns whether a form carries the anti-forgery value of its session."""
    return hmac.compare_digest(sent.encode(errors="surrogateescape"), session.form.encode())
